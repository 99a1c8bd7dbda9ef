use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header::{self, HeaderMap};
use zeroize::Zeroizing;

use super::{
    form::{Form, decode},
    refusal::Refusal,
};

/// A client secret: not printed, and wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// The secret itself. It must not be logged.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How a client says who it is. Nothing of it is checked yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Presented {
    /// `client_secret_basic`: the `Authorization` header (RFC 6749 §2.3.1).
    Basic {
        /// The client's id.
        id: String,
        /// Its secret.
        secret: Secret,
    },
    /// `client_secret_post`: parameters of the form (RFC 6749 §2.3.1).
    Post {
        /// The client's id.
        id: String,
        /// Its secret.
        secret: Secret,
    },
    /// `none`: the client's id alone, as public clients do (RFC 7591 §2).
    None {
        /// The client's id.
        id: String,
    },
}

impl Presented {
    /// Who the client says it is.
    pub fn id(&self) -> &str {
        match self {
            Self::Basic { id, .. } | Self::Post { id, .. } | Self::None { id } => id,
        }
    }

    /// The one client authentication of a request; `challenge` says whether a refusal may ask for Basic.
    pub(super) fn find(headers: &HeaderMap, form: &Form, challenge: bool) -> Result<Self, Refusal> {
        let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
        let authorization = authorizations.next();
        let id = form.get("client_id");
        let secret = form.get("client_secret");
        let assertion = form.get("client_assertion");
        let mechanisms =
            [authorization.is_some(), authorizations.next().is_some(), secret.is_some(), assertion.is_some()];
        if mechanisms.into_iter().filter(|used| *used).count() > 1 {
            return Err(Refusal::SeveralClients);
        }
        if let Some(authorization) = authorization {
            let basic = Self::basic(authorization.as_bytes())?;
            return if id.is_none_or(|id| id == basic.id()) { Ok(basic) } else { Err(Refusal::SeveralClients) };
        }
        match (id, secret) {
            (Some(id), Some(secret)) => Ok(Self::Post { id: id.to_owned(), secret: Secret::new(secret) }),
            (Some(id), None) if assertion.is_none() => Ok(Self::None { id: id.to_owned() }),
            _ => Err(Refusal::Client { challenge }),
        }
    }

    /// `Basic base64(id ":" secret)`, both form-encoded (RFC 6749 §2.3.1, RFC 7617 §2).
    fn basic(authorization: &[u8]) -> Result<Self, Refusal> {
        // Base64 knows no comma: a proxy joined two values (RFC 9110 §5.3).
        if authorization.contains(&b',') {
            return Err(Refusal::SeveralClients);
        }
        Self::parse_basic(authorization).ok_or(Refusal::Client { challenge: true })
    }

    fn parse_basic(authorization: &[u8]) -> Option<Self> {
        let authorization = authorization.trim_ascii();
        let end = authorization.iter().position(|byte| matches!(byte, b' ' | b'\t'))?;
        let (scheme, credentials) = authorization.split_at(end);
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return None;
        }
        let pair = Zeroizing::new(STANDARD.decode(credentials.trim_ascii()).ok()?);
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let (id, secret) = (decode(&pair[..colon])?, decode(&pair[colon + 1..])?);
        (!id.is_empty()).then(|| Self::Basic { id: id.as_str().to_owned(), secret: Secret(secret) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn basic(authorization: &str) -> Option<(String, String)> {
        match Presented::parse_basic(authorization.as_bytes())? {
            Presented::Basic { id, secret } => Some((id, secret.expose().to_owned())),
            _ => None,
        }
    }

    #[test]
    fn basic_credentials_are_read_strictly() {
        let pair = |id: &str, secret: &str| Some((id.to_owned(), secret.to_owned()));
        let encode = |text: &str| STANDARD.encode(text);
        assert_eq!(basic(&format!("Basic {}", encode("id:secret"))), pair("id", "secret"));
        assert_eq!(basic(&format!("bASIC \t {} ", encode("id:secret"))), pair("id", "secret"));
        assert_eq!(basic(&format!("Basic {}", encode("a%3Ab+c:%C3%A9:%25"))), pair("a:b c", "\u{e9}:%"));
        assert_eq!(basic(&format!("Basic {}", encode("id:"))), pair("id", ""));
        for refused in [
            "Basic".to_owned(),
            "Basic ".to_owned(),
            format!("Basic{}", encode("id:secret")),
            format!("Basic {}", encode("id:secrets").trim_end_matches('=')),
            format!("Basic {}=", encode("id:secret")),
            format!("Basic {} x", encode("id:secret")),
            format!("Bearer {}", encode("id:secret")),
            format!("Basic {}", encode("no colon")),
            format!("Basic {}", encode(":secret")),
            format!("Basic {}", encode("id:%zz")),
            format!("Basic {}", encode("id:%00")),
            format!("Basic {}", STANDARD.encode(b"id:\xFF")),
        ] {
            assert_eq!(basic(&refused), None, "{refused}");
        }
    }

    #[test]
    fn l9_secrets_are_not_printed() {
        let presented = Presented::parse_basic(format!("Basic {}", STANDARD.encode("id:hush")).as_bytes()).unwrap();
        assert!(!format!("{presented:?}").contains("hush"));
        let form = Form::parse(b"client_secret=hush").unwrap();
        assert!(!format!("{form:?}").contains("hush"));
    }
}
