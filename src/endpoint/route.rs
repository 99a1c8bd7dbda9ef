use super::{EndpointError, form::hex};

/// The path of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route(Box<str>);

/// What a request's path is to a [`Route`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The endpoint's, byte for byte.
    Exact,
    /// The endpoint's in the eyes of someone who normalises.
    Ambiguous,
    /// Another one.
    Other,
}

impl Default for Route {
    fn default() -> Self {
        Self("/oauth/revoke".into())
    }
}

impl Route {
    /// A path in the one form that nobody reads differently.
    pub(super) fn new(path: &str) -> Result<Self, EndpointError> {
        let segments = path.strip_prefix('/').unwrap_or_default().split('/');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte);
        let canonical = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
        if segments.clone().all(canonical) {
            Ok(Self(path.into()))
        } else {
            Err(EndpointError::Path { path: path.to_owned() })
        }
    }

    /// Costs a comparison and one pass over the path, unless something in it could be normalised.
    #[inline]
    pub(super) fn matches(&self, path: &str) -> Match {
        if *path == *self.0 {
            return Match::Exact;
        }
        let trimmed = path.trim_end_matches('/');
        if *trimmed == *self.0 || (is_suspicious(trimmed.as_bytes()) && self.matches_normalised(trimmed)) {
            Match::Ambiguous
        } else {
            Match::Other
        }
    }

    /// As the most eager reader would: escapes undone however often, backslashes turned, path parameters and
    /// whatever follows a stray end of the path cut off, empty and dot segments resolved.
    #[cold]
    fn matches_normalised(&self, path: &str) -> bool {
        let decoded = decode(path);
        let path = decoded.split(|byte| matches!(byte, 0 | b'?' | b'#')).next().unwrap_or_default();
        let mut segments = Vec::new();
        for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
            match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
                b"" | b"." => {}
                b".." => drop(segments.pop()),
                segment => segments.push(segment),
            }
        }
        segments.into_iter().eq(self.0.split('/').skip(1).map(str::as_bytes))
    }
}

/// Without a branch for each byte, so that the compiler can look at many at once.
#[inline]
fn is_suspicious(path: &[u8]) -> bool {
    let special = |byte: u8| (byte == b'%') | (byte == b'\\') | (byte == b';');
    let pairs = path.iter().zip(path.iter().skip(1));
    let doubled = pairs.fold(false, |found, (a, b)| found | ((*a == b'/') & ((*b == b'/') | (*b == b'.'))));
    doubled | path.iter().fold(false, |found, byte| found | special(*byte))
}

/// Undoes escapes until there are none left, in one pass.
fn decode(path: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        decoded.push(byte);
        while let [.., b'%', high, low] = decoded[..]
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            decoded.truncate(decoded.len() - 3);
            decoded.push(high << 4 | low);
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// F44: only the path itself is the endpoint; what others may take for it is neither theirs nor ours.
    #[test]
    fn f44_only_the_exact_path_is_the_endpoint() {
        let route = Route::new("/oauth/revoke").unwrap();
        assert_eq!(route.matches("/oauth/revoke"), Match::Exact);
        for ambiguous in [
            "/oauth/%72evoke",
            "/oauth/%2572evoke",
            "/oauth/%25%37%32evoke",
            "/oauth%2Frevoke",
            "/oauth%2frevoke",
            "/oauth\\revoke",
            "/oauth%5crevoke",
            "/oauth//revoke",
            "//oauth/revoke",
            "/oauth/revoke/",
            "/oauth/revoke///",
            "/oauth/revoke/.",
            "/oauth/./revoke",
            "/oauth/%2e/revoke",
            "/oauth/x/../revoke",
            "/oauth/x/%2E%2e/revoke",
            "/../oauth/revoke",
            "/oauth/revoke;x",
            "/oauth/revoke;x=1/",
            "/oauth;a/revoke",
            "/oauth/x/..;/revoke",
            "/oauth/revoke%3Fx",
            "/oauth/revoke%00",
            "/oauth/revoke%23",
        ] {
            assert_eq!(route.matches(ambiguous), Match::Ambiguous, "{ambiguous}");
        }
        for other in [
            "/",
            "",
            "*",
            "/oauth",
            "/oauth/",
            "/OAUTH/revoke",
            "/oauth/revoke2",
            "/oauth/revoke/x",
            "/oauth/revoke/..",
            "/oauth/revoke%2",
            "/oauth/revoke%zz",
            "/x/oauth/revoke",
            "/a%20b/",
            "/.well-known/x",
        ] {
            assert_eq!(route.matches(other), Match::Other, "{other}");
        }
    }

    #[test]
    fn a_route_has_one_form_only() {
        for path in ["/revoke", "/oauth/revoke", "/jans-auth/restv1/revoke_session", "/a.b/.c/~d"] {
            assert!(Route::new(path).is_ok(), "{path}");
        }
        for path in
            ["", "/", "revoke", "/a/", "//a", "/a//b", "/a/../b", "/.", "/%61", "/a;b", "/a?b", "/a#b", "/\u{e9}"]
        {
            assert!(Route::new(path).is_err(), "{path}");
        }
    }

    /// A path of nested escapes costs no more than its length.
    #[test]
    fn nested_escapes_are_undone_in_one_pass() {
        let nested = format!("/oauth/%{}72evoke", "25".repeat(32_000));
        assert_eq!(Route::new("/oauth/revoke").unwrap().matches(&nested), Match::Ambiguous);
    }
}
