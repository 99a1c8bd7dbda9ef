use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use zeroize::Zeroizing;

/// How this node says who it is when it asks (RFC 7662 §2.1). Not printed, and wiped when dropped.
#[derive(Clone)]
pub struct IntrospectionCredentials(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    /// The whole value of the header.
    Header(Zeroizing<String>),
    Post {
        id: String,
        secret: Zeroizing<String>,
    },
}

impl IntrospectionCredentials {
    /// `client_secret_basic`: in the `Authorization` header (RFC 6749 §2.3.1).
    pub fn basic(id: &str, secret: &str) -> Self {
        let pair = Zeroizing::new(format!("{}:{}", &*encoded(id), &*encoded(secret)));
        Self(Kind::Header(Zeroizing::new(format!("Basic {}", &*Zeroizing::new(STANDARD.encode(pair.as_bytes()))))))
    }

    /// `client_secret_post`: in the form (RFC 6749 §2.3.1).
    pub fn post(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self(Kind::Post { id: id.into(), secret: Zeroizing::new(secret.into()) })
    }

    /// An access token in the `Authorization` header (RFC 6750 §2.1).
    pub fn bearer(token: &str) -> Self {
        Self(Kind::Header(Zeroizing::new(format!("Bearer {token}"))))
    }

    /// The header, where they go there.
    pub(super) fn header(&self) -> Option<Result<HeaderValue, http::header::InvalidHeaderValue>> {
        let Kind::Header(value) = &self.0 else { return None };
        Some(HeaderValue::from_str(value).map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }

    /// The form that asks about a token.
    pub(super) fn form(&self, token: &str) -> Zeroizing<String> {
        let mut form = Zeroizing::new(String::with_capacity(token.len() * 3 + 512));
        form.push_str("token=");
        form.push_str(&encoded(token));
        form.push_str("&token_type_hint=access_token");
        if let Kind::Post { id, secret } = &self.0 {
            form.push_str("&client_id=");
            form.push_str(&encoded(id));
            form.push_str("&client_secret=");
            form.push_str(&encoded(secret));
        }
        form
    }
}

/// As a form has it (RFC 6749 appendix B).
fn encoded(text: &str) -> Zeroizing<String> {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    let mut encoded = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        match byte {
            b' ' => encoded.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-._*".contains(&byte) => encoded.push(char::from(byte)),
            byte => {
                encoded.push('%');
                encoded.push(char::from(HEX[usize::from(byte >> 4)]));
                encoded.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    encoded
}

impl fmt::Debug for IntrospectionCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntrospectionCredentials(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_encoded_and_not_printed() {
        let basic = IntrospectionCredentials::basic("a b", "s:é%");
        assert!(
            matches!(&basic.0, Kind::Header(value) if **value == format!("Basic {}", STANDARD.encode("a+b:s%3A%C3%A9%25")))
        );
        let post = IntrospectionCredentials::post("api", "h&sh");
        assert_eq!(&*post.form("t=1"), "token=t%3D1&token_type_hint=access_token&client_id=api&client_secret=h%26sh");
        assert_eq!(&*basic.form("t"), "token=t&token_type_hint=access_token");
        for credentials in [basic, post] {
            assert_eq!(format!("{credentials:?}"), "IntrospectionCredentials(..)");
        }
    }
}
