//! Lists of revocations as text, one entry a line, read strictly: one wrong line, and there is no list.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::{
    revocation::{Cutoff, RevocationId, Scope},
    token::{Malformed, Members},
};

/// What the lines of a list are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON objects.
    Json,
    /// Subjects of this issuer.
    Subjects(Box<str>),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Revoke {
        number: usize,
        digest: [u8; 32],
        id: Option<RevocationId>,
        scope: Scope,
        cutoff: Cutoff,
        retain_until: u64,
        reason: Option<String>,
        revoked_by: Option<String>,
        revoked_at: u64,
    },
    Lift {
        number: usize,
        digest: [u8; 32],
        ids: Vec<RevocationId>,
        scope: Scope,
    },
}

impl Listed {
    /// Its line, counted from 1.
    pub(crate) const fn number(&self) -> usize {
        match self {
            Self::Revoke { number, .. } | Self::Lift { number, .. } => *number,
        }
    }

    /// The time that tokens are held against, where it has one.
    pub(crate) const fn cutoff(&self) -> Option<u64> {
        match self {
            Self::Revoke { cutoff, .. } => cutoff.secs(),
            Self::Lift { .. } => None,
        }
    }
}

/// A list that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListError {
    line: usize,
    what: &'static str,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// The longest line.
const MAX_LINE: usize = 64 << 10;
/// What a cutoff is called that refuses every token, whenever it was issued.
const FOREVER: &str = "forever";
/// Until when that is kept which somebody has to lift.
const LIFTED: &str = "lifted";

/// Reads a whole list.
pub(crate) fn parse(text: &[u8], format: &Format) -> Result<Vec<Listed>, ListError> {
    let mut listed = Vec::new();
    let mut ended = false;
    let lines = match text.strip_suffix(b"\n") {
        Some(lines) => lines,
        None if text.is_empty() => return Ok(listed),
        None => {
            let line = text.split(|byte| *byte == b'\n').count();
            return Err(ListError { line, what: "it has no end: the file is written by halves" });
        }
    };
    for (line, number) in lines.split(|byte| *byte == b'\n').zip(1..) {
        let wrong = |what| ListError { line: number, what };
        if line.len() > MAX_LINE {
            return Err(wrong("it is longer than 65536 bytes"));
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            continue;
        }
        if ended {
            return Err(wrong("it comes after the end"));
        }
        match format {
            Format::Subjects(_) if line.first() == Some(&b'#') => {}
            Format::Subjects(issuer) => listed.push(subject(line, issuer, number).map_err(wrong)?),
            Format::Json => match entry(line, number).map_err(wrong)? {
                Line::Entry(entry) => listed.push(*entry),
                Line::End(count) if count == listed.len() as u64 => ended = true,
                Line::End(_) => return Err(wrong("it counts other lines than there are before it")),
            },
        }
    }
    Ok(listed)
}

/// A line of JSON.
pub(crate) enum Line {
    Entry(Box<Listed>),
    /// After so many.
    End(u64),
}

fn subject(line: &[u8], issuer: &str, number: usize) -> Result<Listed, &'static str> {
    let sub = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    if sub.trim() != sub || sub.chars().any(char::is_control) {
        return Err("a subject neither begins nor ends with white space, and holds no control character");
    }
    Ok(Listed::Revoke {
        number,
        digest: Sha256::digest(line).into(),
        id: None,
        scope: Scope::subject(issuer, sub),
        cutoff: Cutoff::FOREVER,
        retain_until: u64::MAX,
        reason: None,
        revoked_by: None,
        revoked_at: 0,
    })
}

/// Reads one line of JSON.
pub(crate) fn entry(line: &[u8], number: usize) -> Result<Line, &'static str> {
    const JSON: &str = "it is no JSON object that can be read in one way only";
    let members = Members::parse(line).map_err(|_| JSON)?;
    if members.raw("end").is_some() {
        let count = members.get::<u64>("end").ok().flatten().filter(|_| members.are_only(&["end"]));
        return count.map(Line::End).ok_or("its end is no number, or not all that it says");
    }
    let digest = Sha256::digest(line).into();
    let scope = members.raw("scope").ok_or("it has no scope")?.get();
    let scope = Members::parse(scope.as_bytes()).and_then(|scope| read_scope(&scope)).ok();
    let scope = scope.flatten().ok_or("its scope lacks a value, has one too many, or is of no known kind")?;
    if members.raw("lift").is_some() {
        if !members.are_only(&["lift", "scope"]) {
            return Err("a lift has ids and a scope, and nothing else");
        }
        let ids: Option<Vec<String>> = members.get("lift").ok().flatten();
        let ids = ids.and_then(|ids| ids.iter().map(|id| read_id(id)).collect::<Option<Vec<_>>>());
        let ids = ids.filter(|ids| !ids.is_empty()).ok_or("its lift is no list of ids")?;
        return Ok(Line::Entry(Box::new(Listed::Lift { number, digest, ids, scope })));
    }
    if !members.are_only(&["id", "scope", "cutoff", "retain_until", "reason", "revoked_by", "revoked_at"]) {
        return Err("it has a member that is not known");
    }
    let text = |name| match members.raw(name).map(|raw| raw.get()) {
        None | Some("null") => Ok(None),
        Some(_) => members.get::<String>(name).map_err(|_| "a text in it is none"),
    };
    let id = match text("id")?.filter(|id| !id.is_empty()) {
        Some(id) => Some(read_id(&id).ok_or("its id is not 16 hexadecimal digits")?),
        None => None,
    };
    let cutoff =
        match at(&members, "cutoff", FOREVER).map_err(|_| "its cutoff is neither Unix seconds nor \"forever\"")? {
            Some(At::Secs(secs)) => Cutoff::at(secs),
            Some(At::Word) => Cutoff::FOREVER,
            None if scope.kind().dies_for_ever() => Cutoff::FOREVER,
            None => return Err("it has no cutoff, which a scope of its kind needs"),
        };
    let until = at(&members, "retain_until", LIFTED);
    let retain_until = match until.map_err(|_| "its retain_until is neither Unix seconds nor \"lifted\"")? {
        Some(At::Secs(secs)) => secs,
        Some(At::Word) | None => u64::MAX,
    };
    let revoked_at = members.time("revoked_at").map_err(|_| "its revoked_at is no time")?.unwrap_or(0);
    let (reason, revoked_by) = (text("reason")?, text("revoked_by")?);
    let listed = Listed::Revoke { number, digest, id, scope, cutoff, retain_until, reason, revoked_by, revoked_at };
    Ok(Line::Entry(Box::new(listed)))
}

/// A record as a line of JSON; `None` where only the key of its scope is known.
#[cfg(all(feature = "jwt", feature = "endpoint"))]
pub(crate) fn write(record: &crate::revocation::Record) -> Option<String> {
    use serde_json::{Map, Value, json};
    let detail = record.detail();
    let mut line = Map::new();
    line.insert("scope".to_owned(), write_scope(&detail.scope?)?);
    line.insert("id".to_owned(), Value::String(record.id().to_string()));
    line.insert("cutoff".to_owned(), record.cutoff().secs().map_or_else(|| FOREVER.into(), Value::from));
    let until = record.retain_until();
    line.insert("retain_until".to_owned(), if until == u64::MAX { LIFTED.into() } else { json!(until) });
    for (name, text) in [("reason", detail.reason), ("revoked_by", detail.revoked_by)] {
        if let Some(text) = text {
            line.insert(name.to_owned(), Value::String(text));
        }
    }
    line.insert("revoked_at".to_owned(), json!(detail.revoked_at));
    Some(Value::Object(line).to_string())
}

#[cfg(all(feature = "jwt", feature = "endpoint"))]
fn write_scope(scope: &Scope) -> Option<serde_json::Value> {
    use serde_json::json;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let kind = scope.kind().as_str();
    Some(match scope {
        Scope::Token { iss, jti } => json!({ "kind": kind, "iss": iss, "jti": jti }),
        Scope::SigningInput { iss, sha256 } => json!({ "kind": kind, "iss": iss, "sha256": hex(sha256) }),
        Scope::OpaqueToken { digest } => {
            json!({ "kind": kind, "digest": format!("{}:{}", digest.key_id(), hex(digest.bytes())) })
        }
        Scope::Session { iss, sid } => json!({ "kind": kind, "iss": iss, "sid": sid }),
        Scope::ClientSession { iss, sid, client_id } => {
            json!({ "kind": kind, "iss": iss, "sid": sid, "client_id": client_id })
        }
        Scope::Subject { iss, sub } => json!({ "kind": kind, "iss": iss, "sub": sub }),
        Scope::SubjectClient { iss, sub, client_id } => {
            json!({ "kind": kind, "iss": iss, "sub": sub, "client_id": client_id })
        }
        Scope::Client { iss, client_id } => json!({ "kind": kind, "iss": iss, "client_id": client_id }),
        Scope::Issuer { iss } => json!({ "kind": kind, "iss": iss }),
    })
}

enum At {
    Secs(u64),
    Word,
}

fn at(members: &Members<'_>, name: &str, word: &str) -> Result<Option<At>, Malformed> {
    match members.raw(name).map(|raw| raw.get()) {
        None => Ok(None),
        Some(text) if text.starts_with('"') => {
            if members.string(name)?.as_deref() == Some(word) {
                Ok(Some(At::Word))
            } else {
                Err(Malformed)
            }
        }
        Some(_) => Ok(members.time(name)?.map(At::Secs)),
    }
}

fn read_id(text: &str) -> Option<RevocationId> {
    (text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.parse().ok())?
}

/// A scope as the admin API has it.
fn read_scope(scope: &Members<'_>) -> Result<Option<Scope>, Malformed> {
    const NAMES: [&str; 7] = ["iss", "jti", "sid", "sub", "client_id", "sha256", "digest"];
    let known = |name: &str| name == "kind" || NAMES.contains(&name);
    if !scope.iter().all(|(name, _)| known(name)) {
        return Err(Malformed);
    }
    let kind = scope.string("kind")?.ok_or(Malformed)?;
    let mut values = NAMES.map(|_| None);
    for (value, name) in values.iter_mut().zip(NAMES) {
        *value = if scope.raw(name).is_some_and(|raw| raw.get() == "null") { None } else { scope.string(name)? };
    }
    let values = values.each_ref().map(Option::as_deref);
    Ok(match (&*kind, values) {
        ("token", [Some(iss), Some(jti), None, None, None, None, None]) => Some(Scope::token(iss, jti)),
        ("signing_input", [Some(iss), None, None, None, None, Some(sha256), None]) => {
            unhex(sha256).map(|sha256| Scope::signing_input(iss, sha256))
        }
        ("opaque_token", [None, None, None, None, None, None, Some(digest)]) => read_digest(digest),
        ("session", [Some(iss), None, Some(sid), None, None, None, None]) => Some(Scope::session(iss, sid)),
        ("client_session", [Some(iss), None, Some(sid), None, Some(client), None, None]) => {
            Some(Scope::client_session(iss, sid, client))
        }
        ("subject", [Some(iss), None, None, Some(sub), None, None, None]) => Some(Scope::subject(iss, sub)),
        ("subject_client", [Some(iss), None, None, Some(sub), Some(client), None, None]) => {
            Some(Scope::subject_client(iss, sub, client))
        }
        ("client", [Some(iss), None, None, None, Some(client), None, None]) => Some(Scope::client(iss, client)),
        ("issuer", [Some(iss), None, None, None, None, None, None]) => Some(Scope::issuer(iss)),
        _ => None,
    })
}

/// `key id ":" hexadecimal digits`.
fn read_digest(text: &str) -> Option<Scope> {
    let (key_id, digits) = text.rsplit_once(':')?;
    let digest = serde_json::json!({ "key_id": key_id, "bytes": unhex(digits)? });
    Some(Scope::opaque_token(serde_json::from_value(digest).ok()?))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<usize, (usize, &'static str)> {
        parse(text.as_bytes(), &Format::Json).map(|listed| listed.len()).map_err(|error| (error.line, error.what))
    }

    const ALICE: &str = r#"{"scope":{"kind":"subject","iss":"https://i/","sub":"alice"},"cutoff":1700000000}"#;
    const TOKEN: &str = r#"{"scope":{"kind":"token","iss":"https://i/","jti":"a"}}"#;

    #[test]
    fn a_list_is_read_as_a_whole_or_not_at_all() {
        assert_eq!(read(""), Ok(0));
        assert_eq!(read(&format!("{ALICE}\n\n{TOKEN}\r\n")), Ok(2));
        assert_eq!(read(&format!("{ALICE}\n{TOKEN}\n{{\"end\":2}}\n")), Ok(2));
        for (text, line) in [
            (format!("{ALICE}\n{TOKEN}"), 2),
            (format!("{ALICE}\n{}", &TOKEN[..20]), 2),
            (format!("{ALICE}\n{{\"end\":2}}\n"), 2),
            (format!("{{\"end\":0}}\n{ALICE}\n"), 2),
            ("{\"end\":0,\"x\":1}\n".to_owned(), 1),
            (format!("{ALICE}\n{{}}\n"), 2),
            (format!("{}\n", ALICE.replace("1700000000", "\"soon\"")), 1),
            (format!("{}\n", ALICE.replace("1700000000", "-1")), 1),
            (format!("{}\n", ALICE.replace(",\"cutoff\":1700000000", "")), 1),
            (format!("{}\n", ALICE.replace("\"sub\":\"alice\"", "\"sub\":\"alice\",\"sub\":\"bob\"")), 1),
            (format!("{}\n", ALICE.replace("\"sub\":\"alice\"", "\"sub\":\"\"")), 1),
            (format!("{}\n", ALICE.replace("\"sub\":\"alice\"", "\"sub\":7")), 1),
            (format!("{}\n", ALICE.replace("subject", "everybody")), 1),
            (format!("{}\n", TOKEN.replace("\"jti\":\"a\"", "\"jti\":\"a\",\"sid\":\"b\"")), 1),
            (format!("{}\n", TOKEN.replace("}}", "},\"why\":1}")), 1),
            (format!("{}\n", TOKEN.replace("}}", "},\"id\":\"x\"}")), 1),
            (format!("{}\n", TOKEN.replace("}}", "},\"lift\":[]}")), 1),
            (format!("{}\n", "x".repeat(70_000)), 1),
            ("[]\n".to_owned(), 1),
            ("\u{0}\n".to_owned(), 1),
        ] {
            assert_eq!(read(&text).map_err(|(line, _)| line), Err(line), "{text}");
        }
    }

    #[test]
    fn subjects_are_taken_byte_for_byte() {
        let format = Format::Subjects("https://i/".into());
        let listed = parse(b"# who is banned\n\nalice\nb o b\r\n", &format).map(|listed| {
            let sub = |listed: &Listed| match listed {
                Listed::Revoke { scope, retain_until, .. } => (scope.clone(), *retain_until),
                Listed::Lift { .. } => (Scope::issuer(""), 0),
            };
            listed.iter().map(sub).collect::<Vec<_>>()
        });
        let ban = |sub| (Scope::subject("https://i/", sub), u64::MAX);
        assert_eq!(listed, Ok(vec![ban("alice"), ban("b o b")]));
        for bad in [&b"alice"[..], b" alice\n", b"alice\t\n", b"al\0ice\n", b"\xff\n"] {
            assert!(parse(bad, &format).is_err());
        }
    }
}
