//! Scopes and times as JSON that people can read.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_revocation::revocation::{Cutoff, Record, Scope};

use super::answer::Problem;

/// A scope: its kind and the values that go with it, and no others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScopeText {
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sub: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<String>,
    /// Hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
    /// Of an opaque token: the id of the key, a colon, the digest in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
}

impl From<&Scope> for ScopeText {
    fn from(scope: &Scope) -> Self {
        let mut text = Self { kind: scope.kind().as_str().to_owned(), ..Self::default() };
        text.iss = scope.iss().map(str::to_owned);
        match scope {
            Scope::Token { jti, .. } => text.jti = Some(jti.clone()),
            Scope::SigningInput { sha256, .. } => text.sha256 = Some(hex(sha256)),
            Scope::OpaqueToken { digest, .. } => {
                text.digest = Some(format!("{}:{}", digest.key_id(), hex(digest.bytes())));
            }
            Scope::Session { sid, .. } => text.sid = Some(sid.clone()),
            Scope::ClientSession { sid, client_id, .. } => {
                (text.sid, text.client_id) = (Some(sid.clone()), Some(client_id.clone()));
            }
            Scope::Subject { sub, .. } => text.sub = Some(sub.clone()),
            Scope::SubjectClient { sub, client_id, .. } => {
                (text.sub, text.client_id) = (Some(sub.clone()), Some(client_id.clone()));
            }
            Scope::Client { client_id, .. } => text.client_id = Some(client_id.clone()),
            _ => {}
        }
        text
    }
}

impl ScopeText {
    /// The scope. `issuers`: which there are; where it names none, the only one is meant.
    pub(super) fn resolve(mut self, issuers: &[String]) -> Result<Scope, Problem> {
        if self.kind != "opaque_token" {
            match (&self.iss, issuers) {
                (None, [only]) => self.iss = Some(only.clone()),
                (None, _) => return Err(Problem::unprocessable("there are several issuers: say which, in \"iss\"")),
                (Some(iss), _) if !issuers.contains(iss) => {
                    let what = "this node knows no such issuer, so nothing would be refused; give `iss` byte for byte";
                    return Err(Problem::unprocessable(what));
                }
                _ => {}
            }
        }
        self.read().ok_or_else(|| {
            let what = format!("a scope of the kind {:?} has other members, none of them empty", self.kind);
            Problem::unprocessable(what)
        })
    }

    /// The scope, whoever its issuer is; `None` where a value is missing, empty, or too many.
    pub(super) fn read(&self) -> Option<Scope> {
        let Self { kind, iss, jti, sid, sub, client_id, sha256, digest } = self;
        let all = [iss, jti, sid, sub, client_id, sha256, digest].map(Option::as_deref);
        if all.contains(&Some("")) {
            return None;
        }
        match (kind.as_str(), all) {
            ("token", [Some(iss), Some(jti), None, None, None, None, None]) => Some(Scope::token(iss, jti)),
            ("signing_input", [Some(iss), None, None, None, None, Some(sha256), None]) => {
                Some(Scope::signing_input(iss, unhex(sha256)?))
            }
            ("opaque_token", [None, None, None, None, None, None, Some(digest)]) => {
                let (key_id, digest) = digest.rsplit_once(':')?;
                let digest = json!({ "key_id": key_id, "bytes": unhex(digest)? });
                Some(Scope::opaque_token(serde_json::from_value(digest).ok()?))
            }
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
        }
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

/// A time: Unix seconds, or a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum At {
    Secs(u64),
    Word(String),
}

/// What a cutoff is called that refuses every token, whenever it was issued.
const FOREVER: &str = "forever";
/// Until when a ban is kept.
const LIFTED: &str = "lifted";

impl At {
    /// The cutoff that it names, at `now` (Unix seconds).
    pub(super) fn cutoff(&self, now: u64) -> Option<Cutoff> {
        match self {
            Self::Secs(secs) => Some(Cutoff::at(*secs)),
            Self::Word(word) if word == FOREVER => Some(Cutoff::FOREVER),
            Self::Word(word) if word == "now" => Some(Cutoff::at(now)),
            Self::Word(word) => {
                let time = humantime::parse_rfc3339_weak(word).ok()?;
                Some(Cutoff::at(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()))
            }
        }
    }

    /// The moment in Unix seconds until which something is kept; [`u64::MAX`]: until it is lifted.
    pub(super) fn until(&self) -> Option<u64> {
        match self {
            Self::Secs(secs) => Some(*secs),
            Self::Word(word) => (word == LIFTED).then_some(u64::MAX),
        }
    }
}

impl From<Cutoff> for At {
    fn from(cutoff: Cutoff) -> Self {
        cutoff.secs().map_or_else(|| Self::Word(FOREVER.to_owned()), Self::Secs)
    }
}

/// A live revocation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    #[serde(default)]
    pub(super) id: String,
    /// `None`: only the key of the scope is known.
    pub(super) scope: Option<ScopeText>,
    pub(super) cutoff: At,
    pub(super) retain_until: At,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) revoked_by: Option<String>,
    #[serde(default)]
    pub(super) revoked_at: u64,
}

impl From<&Record> for Listed {
    fn from(record: &Record) -> Self {
        let detail = record.detail();
        let retain_until = record.retain_until();
        Self {
            id: record.id().to_string(),
            scope: detail.scope.as_ref().map(ScopeText::from),
            cutoff: record.cutoff().into(),
            retain_until: if retain_until == u64::MAX { At::Word(LIFTED.to_owned()) } else { At::Secs(retain_until) },
            reason: detail.reason,
            revoked_by: detail.revoked_by,
            revoked_at: detail.revoked_at,
        }
    }
}
