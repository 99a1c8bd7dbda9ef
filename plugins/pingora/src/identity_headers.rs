//! Headers in which the upstream is told who calls.

use http::{HeaderName, HeaderValue};
use pingora::{Result, http::RequestHeader};
use tower_revocation::token::Identity;

/// What a header tells.
type Told = fn(&Identity) -> Option<&str>;

#[derive(Clone, Default)]
pub(crate) struct IdentityHeaders(Vec<(HeaderName, Told)>);

impl IdentityHeaders {
    pub(crate) fn add(&mut self, name: HeaderName, value: Told) {
        self.0.push((name, value));
    }

    /// Takes away what the client says of itself, and says what is known instead.
    pub(crate) fn overwrite(&self, head: &mut RequestHeader, identity: Option<&Identity>) -> Result<()> {
        for (known, _) in &self.0 {
            while let Some(name) = head.headers.keys().find(|name| is_read_as(name, known)).cloned() {
                head.remove_header(&name);
            }
        }
        for (name, value) in &self.0 {
            if let Some(value) = identity.and_then(value).and_then(as_it_is) {
                head.insert_header(name.clone(), value)?;
            }
        }
        Ok(())
    }
}

/// A value that arrives as what it was: who reads a header trims it.
fn as_it_is(value: &str) -> Option<HeaderValue> {
    let arrives = !value.is_empty() && value.trim_ascii() == value && value.is_ascii();
    arrives.then(|| HeaderValue::from_str(value).ok()).flatten()
}

/// Whether a service could take one for the other: gateways in the manner of CGI make `-` and `_` the same.
fn is_read_as(name: &HeaderName, known: &HeaderName) -> bool {
    let dash = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.as_str().bytes().map(dash).eq(known.as_str().bytes().map(dash))
}
