use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header::{self, HeaderMap};
use zeroize::Zeroizing;

#[cfg(feature = "mtls")]
use super::ClientCertificate;
use super::{
    form::{Form, decode},
    profile::Ways,
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
    /// `private_key_jwt` (RFC 7523 §2.2).
    Assertion {
        /// The client's id, where the form says it: it need not.
        id: Option<String>,
        /// The assertion.
        assertion: Secret,
    },
    /// The client's id alone, over a connection with a client certificate (RFC 8705 §2). Means nothing for a client
    /// that is not registered for certificates: then it is as `None`.
    #[cfg(feature = "mtls")]
    Certificate {
        /// The client's id; a JSON body has no place for it, so that the certificate alone has to tell the client.
        id: Option<String>,
        /// The certificate.
        certificate: Box<ClientCertificate>,
    },
    /// An access token in the `Authorization` header (RFC 6750 §2.1).
    Bearer {
        /// The token.
        token: Secret,
    },
}

/// The one type of assertion that is understood (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl Presented {
    /// Who the client says it is, where it says so in plain words.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Basic { id, .. } | Self::Post { id, .. } | Self::None { id } => Some(id),
            Self::Assertion { id, .. } => id.as_deref(),
            #[cfg(feature = "mtls")]
            Self::Certificate { id, .. } => id.as_deref(),
            Self::Bearer { .. } => None,
        }
    }

    /// A certificate that has to tell the client by itself.
    #[cfg(feature = "mtls")]
    pub(super) fn of_certificate(certificate: ClientCertificate) -> Self {
        Self::Certificate { id: None, certificate: Box::new(certificate) }
    }

    /// With the certificate of the connection, where nothing else authenticates the client.
    #[cfg(feature = "mtls")]
    pub(super) fn with_certificate(self, certificate: Option<ClientCertificate>) -> Self {
        match (self, certificate) {
            (Self::None { id }, Some(certificate)) => {
                Self::Certificate { id: Some(id), certificate: Box::new(certificate) }
            }
            (other, _) => other,
        }
    }

    /// The one client authentication of a request; `None` where there is nothing at all. `challenge` says whether a
    /// refusal may ask for Basic.
    pub(super) fn find(
        headers: &HeaderMap,
        form: &Form,
        ways: &Ways,
        challenge: bool,
    ) -> Result<Option<Self>, Refusal> {
        let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
        let authorization = authorizations.next();
        let id = form.get("client_id");
        let secret = form.get("client_secret");
        let assertion = (form.get("client_assertion"), form.get("client_assertion_type"));
        let asserts = assertion != (None, None);
        let mechanisms = [authorization.is_some(), authorizations.next().is_some(), secret.is_some(), asserts];
        if mechanisms.into_iter().filter(|used| *used).count() > 1 {
            return Err(Refusal::SeveralClients);
        }
        if let Some(authorization) = authorization {
            let header = Self::header(authorization.as_bytes(), ways)?;
            let same = id.is_none() || header.id().is_none() || id == header.id();
            return if same { Ok(Some(header)) } else { Err(Refusal::SeveralClients) };
        }
        match (id, secret, assertion) {
            (None, None, (None, None)) => Ok(None),
            (Some(id), Some(secret), _) => Ok(Some(Self::Post { id: id.to_owned(), secret: Secret::new(secret) })),
            (id, _, (Some(assertion), Some(JWT_BEARER))) => {
                Ok(Some(Self::Assertion { id: id.map(ToOwned::to_owned), assertion: Secret::new(assertion) }))
            }
            (Some(id), None, (None, None)) => Ok(Some(Self::None { id: id.to_owned() })),
            _ => Err(Refusal::Client { challenge }),
        }
    }

    fn header(authorization: &[u8], ways: &Ways) -> Result<Self, Refusal> {
        // Neither Basic nor Bearer knows a comma: a proxy joined two values (RFC 9110 §5.3).
        if authorization.contains(&b',') {
            return Err(Refusal::SeveralClients);
        }
        let (scheme, credentials) = split_scheme(authorization);
        match scheme.to_ascii_lowercase().as_slice() {
            b"basic" => Self::basic(credentials).ok_or(Refusal::Client { challenge: true }),
            b"bearer" => Self::bearer(credentials).ok_or(Refusal::AccessToken),
            b"accesstoken" if ways.takes_access_token_scheme => Self::bearer(credentials).ok_or(Refusal::AccessToken),
            _ => Err(Refusal::Client { challenge: true }),
        }
    }

    /// A `b64token` (RFC 6750 §2.1).
    fn bearer(credentials: &[u8]) -> Option<Self> {
        let token = std::str::from_utf8(credentials).ok()?;
        let body = token.trim_end_matches('=');
        let plain = body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
        (plain && !body.is_empty()).then(|| Self::Bearer { token: Secret::new(token) })
    }

    /// `base64(id ":" secret)`, both form-encoded (RFC 6749 §2.3.1, RFC 7617 §2).
    fn basic(credentials: &[u8]) -> Option<Self> {
        let pair = Zeroizing::new(STANDARD.decode(credentials).ok()?);
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let (id, secret) = (decode(&pair[..colon])?, decode(&pair[colon + 1..])?);
        (!id.is_empty()).then(|| Self::Basic { id: id.as_str().to_owned(), secret: Secret(secret) })
    }
}

/// The scheme of an `Authorization` header, and what follows it.
fn split_scheme(authorization: &[u8]) -> (&[u8], &[u8]) {
    let authorization = authorization.trim_ascii();
    let end = authorization.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(authorization.len());
    let (scheme, credentials) = authorization.split_at(end);
    (scheme, credentials.trim_ascii())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::endpoint::Profile;

    fn header(authorization: &str) -> Result<Presented, Refusal> {
        Presented::header(authorization.as_bytes(), Profile::Standard.ways())
    }

    fn basic(authorization: &str) -> Option<(String, String)> {
        match header(authorization).ok()? {
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
        let presented = header(&format!("Basic {}", STANDARD.encode("id:hush"))).unwrap();
        assert!(!format!("{presented:?}").contains("hush"));
        let form = Form::parse(b"client_secret=hush").unwrap();
        assert!(!format!("{form:?}").contains("hush"));
    }
}
