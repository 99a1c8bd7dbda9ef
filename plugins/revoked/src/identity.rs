//! The headers that tell a gateway, and what is behind it, who sent a request.

use http::{HeaderMap, HeaderName, HeaderValue};
use tower_revocation::token::Identity;

use crate::config::Fault;

/// Headers and the claims that they carry. Each is set on every request that passes, also empty: what a client wrote there
/// must never reach the service behind.
#[derive(Clone, Debug, Default)]
pub struct IdentityHeaders(Vec<(HeaderName, Claim)>);

#[derive(Clone, Copy, Debug)]
enum Claim {
    Iss,
    Sub,
    Sid,
    Jti,
    ClientId,
    Scope,
}

impl IdentityHeaders {
    /// From their names. The claim is told by the last words of the name, such as `x-auth-subject`, or behind a `=`.
    ///
    /// # Errors
    ///
    /// Where a name is none, or tells no claim.
    pub fn new(names: &[String], key: &str) -> Result<Self, Fault> {
        let header = |text: &String| {
            let (name, claim) = text.split_once('=').unwrap_or((text, text));
            let name = name.parse().map_err(|_| Fault::new(key, format!("{name:?} is no header name")))?;
            let claim = Claim::named(claim).ok_or_else(|| {
                let what = format!(
                    "{text:?} does not tell which claim it carries; end it in subject, session, client, issuer, scope or \
                     jti, or write \"{text}=sub\" (iss, sub, sid, jti, client_id, scope)"
                );
                Fault::new(key, what)
            })?;
            Ok((name, claim))
        };
        names.iter().map(header).collect::<Result<_, _>>().map(Self)
    }

    /// Each header with its value for the sender of a request; empty where nothing is known.
    pub fn of<'a>(&'a self, identity: Option<&'a Identity>) -> impl Iterator<Item = (&'a HeaderName, HeaderValue)> {
        self.0.iter().map(move |(name, claim)| (name, in_header(identity.and_then(|identity| claim.of(identity)))))
    }

    /// Puts them into `headers`, in place of what is there.
    pub fn write(&self, identity: Option<&Identity>, headers: &mut HeaderMap) {
        for (name, value) in self.of(identity) {
            headers.insert(name, value);
        }
    }
}

/// A claim as a header carries it. What none can carry is as good as unknown: also white space at an end, without which
/// whoever reads the header would see another user.
pub(crate) fn in_header(claim: Option<&str>) -> HeaderValue {
    let claim = claim.filter(|claim| claim.trim_matches([' ', '\t']) == *claim).unwrap_or_default();
    HeaderValue::from_bytes(claim.as_bytes()).unwrap_or(HeaderValue::from_static(""))
}

impl Claim {
    fn named(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase().replace('_', "-");
        let ends = |words: &[&str]| words.iter().any(|word| text == *word || text.ends_with(&format!("-{word}")));
        [
            (Self::ClientId, ["client", "client-id", "azp"].as_slice()),
            (Self::Iss, &["issuer", "iss"]),
            (Self::Sub, &["subject", "sub", "user", "user-id"]),
            (Self::Sid, &["session", "session-id", "sid"]),
            (Self::Jti, &["jti", "token-id"]),
            (Self::Scope, &["scope", "scopes"]),
        ]
        .into_iter()
        .find_map(|(claim, words)| ends(words).then_some(claim))
    }

    fn of(self, identity: &Identity) -> Option<&str> {
        match self {
            Self::Iss => Some(identity.iss()),
            Self::Sub => identity.sub(),
            Self::Sid => identity.sid(),
            Self::Jti => identity.jti(),
            Self::ClientId => identity.client_id(),
            Self::Scope => identity.scope(),
        }
    }
}
