//! Subject identifiers (RFC 9493).

use serde_json::value::RawValue;

use super::refusal::Refusal;
use crate::token::{Malformed, Members};

/// Who a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SubjectId {
    /// By the `sub` of an issuer (RFC 9493 §3.2.3).
    IssSub { iss: String, sub: String },
    /// By an attribute: a simple format of RFC 9493, or an application's own.
    Attribute { name: String, value: String },
    /// By any of these (RFC 9493 §3.2.8); none of them is of this kind.
    Aliases(Vec<Self>),
}

/// More names than anybody has: bounds the look-ups of one request.
const MAX_ALIASES: usize = 16;

impl SubjectId {
    /// Reads an identifier with exactly the members of its format, none of them null or empty (RFC 9493 §3).
    ///
    /// With `attributes`, every other format that comes with exactly an `id` names an attribute: Janssen's form.
    pub(super) fn parse(json: &RawValue, attributes: bool) -> Result<Self, Refusal> {
        let members = Members::parse(json.get().as_bytes())?;
        match members.string("format")?.as_deref() {
            Some("aliases") => aliases(&members, attributes),
            _ => Self::simple(&members, attributes),
        }
    }

    fn simple(members: &Members<'_>, attributes: bool) -> Result<Self, Refusal> {
        let format = members.string("format")?.ok_or(Refusal::Subject)?;
        let only = |names: &[&str]| if members.are_only(names) { Ok(()) } else { Err(Refusal::Subject) };
        let text = |name: &str| {
            let text = members.string(name)?.ok_or(Refusal::Subject)?;
            if text.chars().any(char::is_control) { Err(Refusal::Subject) } else { Ok(text.into_owned()) }
        };
        let attribute = |member: &str, valid: fn(&str) -> bool| {
            only(&["format", member])?;
            let value = text(member)?;
            if valid(&value) {
                Ok(Self::Attribute { name: format.clone().into_owned(), value })
            } else {
                Err(Refusal::Subject)
            }
        };
        match &*format {
            "iss_sub" => {
                only(&["format", "iss", "sub"])?;
                Ok(Self::IssSub { iss: text("iss")?, sub: text("sub")? })
            }
            "aliases" => Err(Refusal::Subject),
            // Only `opaque` has an `id` among the formats of RFC 9493, so that this cannot be another.
            _ if attributes && members.raw("id").is_some() => attribute("id", |_| true),
            "account" => attribute("uri", |uri| uri.strip_prefix("acct:").is_some_and(is_address)),
            "email" => attribute("email", is_address),
            "opaque" => attribute("id", |_| true),
            "phone_number" => attribute("phone_number", is_e164),
            "did" => attribute("url", |url| url.starts_with("did:")),
            "uri" => attribute("uri", |uri| uri.contains(':')),
            _ => Err(Refusal::Subject),
        }
    }
}

fn aliases(members: &Members<'_>, attributes: bool) -> Result<SubjectId, Refusal> {
    let identifiers: Vec<&RawValue> = members.get("identifiers")?.ok_or(Refusal::Subject)?;
    if !members.are_only(&["format", "identifiers"]) || !(1..=MAX_ALIASES).contains(&identifiers.len()) {
        return Err(Refusal::Subject);
    }
    let simple = |json: &RawValue| SubjectId::simple(&Members::parse(json.get().as_bytes())?, attributes);
    Ok(SubjectId::Aliases(identifiers.into_iter().map(simple).collect::<Result<_, _>>()?))
}

/// `local@domain` (RFC 5322 §3.4.1, RFC 7565 §7), no closer than it takes to tell it from something else.
fn is_address(address: &str) -> bool {
    address.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

/// A plus and up to fifteen digits (E.164).
fn is_e164(number: &str) -> bool {
    let digits = number.strip_prefix('+').unwrap_or_default();
    (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Subject
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(json: &str, attributes: bool) -> Result<SubjectId, Refusal> {
        SubjectId::parse(&RawValue::from_string(json.to_owned()).unwrap(), attributes)
    }

    /// RFC 9493 §3, §3.2.
    #[test]
    fn identifiers_have_exactly_the_members_of_their_format() {
        let attribute =
            |name: &str, value: &str| SubjectId::Attribute { name: name.to_owned(), value: value.to_owned() };
        let iss_sub = || SubjectId::IssSub { iss: "https://i/".to_owned(), sub: "1".to_owned() };
        for (json, expected) in [
            (r#"{"format":"account","uri":"acct:a@b.example"}"#, attribute("account", "acct:a@b.example")),
            (r#"{"format":"email","email":"a@b.example"}"#, attribute("email", "a@b.example")),
            (r#"{"format":"iss_sub","iss":"https://i/","sub":"1"}"#, iss_sub()),
            (r#"{"format":"opaque","id":"1"}"#, attribute("opaque", "1")),
            (r#"{"format":"phone_number","phone_number":"+12065550100"}"#, attribute("phone_number", "+12065550100")),
            (r#"{"format":"did","url":"did:example:1"}"#, attribute("did", "did:example:1")),
            (r#"{"format":"uri","uri":"urn:uuid:1"}"#, attribute("uri", "urn:uuid:1")),
            (
                r#"{"format":"aliases","identifiers":[{"format":"email","email":"a@b"},{"format":"iss_sub","iss":"https://i/","sub":"1"}]}"#,
                SubjectId::Aliases(vec![attribute("email", "a@b"), iss_sub()]),
            ),
        ] {
            assert_eq!(parse(json, false), Ok(expected), "{json}");
        }
        assert_eq!(parse(r#"{"format":"uid","id":"x"}"#, true), Ok(attribute("uid", "x")));
        assert_eq!(parse(r#"{"format":"opaque","id":"x"}"#, true), Ok(attribute("opaque", "x")));
        assert_eq!(parse(r#"{"format":"email","id":"a@b"}"#, true), Ok(attribute("email", "a@b")));
    }

    #[test]
    fn everything_else_is_refused() {
        let nested =
            r#"{"format":"aliases","identifiers":[{"format":"aliases","identifiers":[{"format":"opaque","id":"1"}]}]}"#;
        let many = format!(
            r#"{{"format":"aliases","identifiers":[{}]}}"#,
            vec![r#"{"format":"opaque","id":"1"}"#; MAX_ALIASES + 1].join(",")
        );
        for json in [
            "null",
            "[]",
            "\"a\"",
            "1",
            "{}",
            nested,
            &many,
            r#"{"format":"email"}"#,
            r#"{"email":"a@b"}"#,
            r#"{"format":"email","email":""}"#,
            r#"{"format":"email","email":null}"#,
            r#"{"format":"email","email":["a@b"]}"#,
            r#"{"format":"email","email":"a"}"#,
            r#"{"format":"email","email":"a@b\u0000"}"#,
            r#"{"format":"email","email":"a@b","email":"a@b"}"#,
            r#"{"format":"email","email":"a@b","x":1}"#,
            r#"{"format":"Email","email":"a@b"}"#,
            r#"{"format":["email"],"email":"a@b"}"#,
            r#"{"format":"iss_sub","iss":"i"}"#,
            r#"{"format":"iss_sub","iss":"i","sub":1}"#,
            r#"{"format":"iss_sub","id":"i"}"#,
            r#"{"format":"phone_number","phone_number":"12065550100"}"#,
            r#"{"format":"phone_number","phone_number":"+1 206"}"#,
            r#"{"format":"did","url":"https://a"}"#,
            r#"{"format":"account","uri":"mailto:a@b"}"#,
            r#"{"format":"uri","uri":"a"}"#,
            r#"{"format":"aliases","identifiers":[]}"#,
            r#"{"format":"aliases","identifiers":{}}"#,
            r#"{"format":"aliases","identifiers":[null]}"#,
            r#"{"format":"aliases"}"#,
        ] {
            assert_eq!(parse(json, false), Err(Refusal::Subject), "{json}");
            assert_eq!(parse(json, true), Err(Refusal::Subject), "{json}");
        }
        assert_eq!(parse(r#"{"format":"uid","id":"x"}"#, false), Err(Refusal::Subject));
    }
}
