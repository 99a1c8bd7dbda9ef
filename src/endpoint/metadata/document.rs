use bytes::Bytes;
use http::header::{self, HeaderMap};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::{RawValue, to_raw_value};

use crate::token::{Members, Raw};

/// A member that is added, or put in the place of one with its name.
pub(super) struct Member {
    name: String,
    value: Value,
}

enum Value {
    /// Takes the place of what was there.
    Json(Box<RawValue>),
    /// Goes into the object that was there; without members there is none.
    Object(Vec<Member>),
    /// Leaves with what was there.
    Gone,
}

impl Member {
    pub(super) fn text(name: &str, value: &str) -> Self {
        Self::json(name, &value)
    }

    pub(super) fn list(name: &str, values: &[String]) -> Self {
        Self::json(name, &values)
    }

    pub(super) fn object(name: &str, members: Vec<Self>) -> Self {
        Self { name: name.to_owned(), value: Value::Object(members) }
    }

    pub(super) const fn gone(name: String) -> Self {
        Self { name, value: Value::Gone }
    }

    fn json(name: &str, value: &impl Serialize) -> Self {
        // Texts and lists of texts: nothing here can fail to serialise.
        Self { name: name.to_owned(), value: Value::Json(to_raw_value(value).unwrap_or_default()) }
    }
}

/// Whether a body is JSON: one `application/json`.
pub(in crate::endpoint) fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(one), None) = (types.next(), types.next()) else { return false };
    let media = one.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    media.eq_ignore_ascii_case(b"application/json")
}

/// The object with these members; what else is in it stays byte for byte and in its order. `None` where it is no
/// object that can be read in one way only.
pub(super) fn merge(object: &[u8], members: &[Member]) -> Option<Bytes> {
    let theirs = Members::parse(object).ok()?;
    serde_json::to_vec(&Merged { theirs: &theirs, ours: members }).ok().map(Bytes::from)
}

struct Merged<'a, 'b> {
    theirs: &'a Members<'b>,
    ours: &'a [Member],
}

impl Serialize for Merged<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.theirs.iter() {
            match self.ours.iter().find(|member| member.name == name) {
                Some(member) => entry(&mut map, name, member.over(Some(value)))?,
                None => map.serialize_entry(name, &value)?,
            }
        }
        for member in self.ours.iter().filter(|member| self.theirs.raw(&member.name).is_none()) {
            entry(&mut map, &member.name, member.over(None))?;
        }
        map.end()
    }
}

fn entry<M: SerializeMap>(map: &mut M, name: &str, value: Option<Box<RawValue>>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &*value))
}

impl Member {
    /// The value in the place of `theirs`; `None` for no member.
    fn over(&self, theirs: Option<Raw<'_>>) -> Option<Box<RawValue>> {
        match &self.value {
            Value::Gone => None,
            Value::Json(json) => Some(json.clone()),
            Value::Object(members) => {
                let theirs = theirs.and_then(|raw| Members::parse(raw.get().as_bytes()).ok());
                let empty = Members::default();
                let merged = Merged { theirs: theirs.as_ref().unwrap_or(&empty), ours: members };
                to_raw_value(&merged).ok().filter(|object| object.get() != "{}")
            }
        }
    }
}
