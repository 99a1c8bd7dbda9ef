use super::{EndpointError, form::hex};

/// The path of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route(Box<str>);

/// Paths, and whose they are.
#[derive(Clone, Debug)]
pub(super) struct Routes<T>(Vec<(Route, T)>);

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// What a request's path is to [`Routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match<T> {
    /// An endpoint's, byte for byte.
    Exact(T),
    /// An endpoint's in the eyes of someone who normalises.
    Ambiguous(T),
    /// Another one.
    Other,
}

impl<T: Copy + PartialEq> Routes<T> {
    /// Adds a path, or replaces the endpoint's earlier one.
    pub(super) fn set(&mut self, endpoint: T, route: Option<Route>) {
        self.0.retain(|(_, known)| *known != endpoint);
        self.0.extend(route.map(|route| (route, endpoint)));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (T, &str)> {
        self.0.iter().map(|(route, endpoint)| (*endpoint, &*route.0))
    }

    /// Costs a comparison for each endpoint and one pass over the path, unless something in it could be normalised.
    #[inline]
    pub(super) fn find(&self, path: &str) -> Match<T> {
        let trimmed = path.trim_end_matches('/');
        for (route, endpoint) in &self.0 {
            if *trimmed == *route.0 {
                return if trimmed.len() == path.len() { Match::Exact(*endpoint) } else { Match::Ambiguous(*endpoint) };
            }
        }
        // Some servers fold case, and some take an extension for a format.
        for (route, endpoint) in &self.0 {
            if route.looks_like(trimmed) {
                return Match::Ambiguous(*endpoint);
            }
        }
        if is_suspicious(trimmed.as_bytes()) { self.find_normalised(trimmed) } else { Match::Other }
    }

    #[cold]
    fn find_normalised(&self, path: &str) -> Match<T> {
        let decoded = decode(path);
        let found = self.0.iter().find(|(route, _)| route.matches_normalised(&decoded));
        found.map_or(Match::Other, |(_, endpoint)| Match::Ambiguous(*endpoint))
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

    /// As the most eager reader would: escapes undone (by [`decode`]), backslashes turned, path parameters and
    /// whatever follows a stray end of the path cut off, empty and dot segments resolved.
    fn matches_normalised(&self, decoded: &[u8]) -> bool {
        let path = decoded.split(|byte| matches!(byte, 0 | b'?' | b'#')).next().unwrap_or_default();
        let mut segments = Vec::new();
        for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
            match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
                b"" | b"." => {}
                b".." => drop(segments.pop()),
                segment => segments.push(segment),
            }
        }
        let mut path = Vec::new();
        for segment in segments {
            path.push(b'/');
            path.extend_from_slice(segment);
        }
        std::str::from_utf8(&path).is_ok_and(|path| self.looks_like(path.trim_end()))
    }

    /// The same path but for case and an extension (`.json`).
    #[inline]
    fn looks_like(&self, path: &str) -> bool {
        let own = self.0.as_bytes();
        match path.as_bytes().split_at_checked(own.len()) {
            Some((head, rest)) => matches!(rest.first(), None | Some(b'.')) && head.eq_ignore_ascii_case(own),
            None => false,
        }
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

/// Undoes escapes, escapes of escapes too, until there are none left, in one pass.
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
    use crate::endpoint::EndpointName;

    fn routes() -> Routes<EndpointName> {
        let mut routes = Routes::default();
        routes.set(EndpointName::Token, Some(Route::new("/oauth/revoke").unwrap()));
        routes.set(EndpointName::Session, Some(Route::new("/oauth/revoke_session").unwrap()));
        routes
    }

    /// F44: only the path itself is the endpoint; what others may take for it is neither theirs nor ours.
    #[test]
    fn f44_only_the_exact_path_is_the_endpoint() {
        let routes = routes();
        assert_eq!(routes.find("/oauth/revoke"), Match::Exact(EndpointName::Token));
        assert_eq!(routes.find("/oauth/revoke_session"), Match::Exact(EndpointName::Session));
        assert_eq!(routes.find("/oauth//revoke_session"), Match::Ambiguous(EndpointName::Session));
        for ambiguous in [
            "/OAUTH/revoke",
            "/oauth/Revoke",
            "/oauth/revoke.json",
            "/oauth/revoke%20",
            "/OAuth/%72evoke.xml",
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
            assert_eq!(routes.find(ambiguous), Match::Ambiguous(EndpointName::Token), "{ambiguous}");
        }
        for other in [
            "/",
            "",
            "*",
            "/oauth",
            "/oauth/",
            "/oauth/revoke2",
            "/oauth/revoke/x",
            "/oauth/revoke/..",
            "/oauth/revoke%2",
            "/oauth/revoke%zz",
            "/x/oauth/revoke",
            "/a%20b/",
            "/.well-known/x",
        ] {
            assert_eq!(routes.find(other), Match::Other, "{other}");
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
        assert_eq!(routes().find(&nested), Match::Ambiguous(EndpointName::Token));
    }
}
