//! What HAProxy tells of a request.

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri};
use spop::{TypedData, decode_varint, frame::Message};

/// The message that asks whether a request may pass.
const NAME: &str = "check-request";

/// The request that a message is about.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) extensions: Extensions,
}

impl Checked {
    /// From the one message of a frame; `None` where anything is not as it has to be.
    pub(super) fn read(messages: &[Message]) -> Option<Self> {
        let [message] = messages else { return None };
        if message.name != NAME {
            return None;
        }
        let (TypedData::String(method), TypedData::String(path), TypedData::Binary(headers)) =
            (only(message, "method")?, only(message, "path")?, only(message, "hdrs")?)
        else {
            return None;
        };
        Some(Self {
            method: Method::from_bytes(method.as_bytes()).ok()?,
            uri: Uri::try_from(path.as_str()).ok()?,
            headers: fields(headers)?,
            extensions: Extensions::new(),
        })
    }
}

/// The one argument of this name.
fn only<'a>(message: &'a Message, name: &str) -> Option<&'a TypedData> {
    let mut named = message.args.iter().filter(|(argument, _)| argument == name);
    match (named.next(), named.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// Names and values, each behind its length, up to an empty name with an empty value (`req.hdrs_bin`).
fn fields(binary: &[u8]) -> Option<HeaderMap> {
    // One copy for all values.
    let all = Bytes::copy_from_slice(binary);
    let mut rest = binary;
    let mut headers = HeaderMap::with_capacity(16);
    loop {
        let (name, value);
        (name, rest) = text(rest)?;
        (value, rest) = text(rest)?;
        if name.is_empty() {
            return (value.is_empty() && rest.is_empty()).then_some(headers);
        }
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_maybe_shared(all.slice_ref(all.get(offset(binary, value))?)).ok()?;
        headers.try_append(name, value).ok()?;
    }
}

fn text(binary: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, length) = decode_varint(binary).ok()?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// Where a part of `whole` is in it.
fn offset(whole: &[u8], part: &[u8]) -> std::ops::Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}
