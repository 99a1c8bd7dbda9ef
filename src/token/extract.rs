use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

/// A place in which tokens are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
    Bearer,
    /// `Authorization: DPoP TOKEN` (RFC 9449 §7.1). The proof is for a verifier of its own.
    Dpop,
    /// A cookie of this name.
    Cookie(String),
    /// A header of this name whose whole value is the token.
    Header(HeaderName),
}

/// A token as it was presented.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a> {
    token: &'a str,
}

impl<'a> Credential<'a> {
    /// The token itself. Secret: it must not be logged.
    pub const fn token(&self) -> &'a str {
        self.token
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({} bytes)", self.token.len())
    }
}

/// Why no single token could be taken from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExtractError {
    /// More than one credential: the service behind may read another one than we.
    Several,
    /// A credential that does not follow its grammar.
    Malformed,
    /// Longer than 16 KiB.
    TooLong,
    /// An authentication scheme that is not among the places looked at.
    UnknownScheme,
    /// A token in a place that is not looked at and that the service behind may read.
    UnreadPlace,
}

impl ExtractError {
    /// The name used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Several => "several_credentials",
            Self::Malformed => "malformed_credential",
            Self::TooLong => "token_too_long",
            Self::UnknownScheme => "unknown_scheme",
            Self::UnreadPlace => "token_in_unread_place",
        }
    }
}

impl fmt::Display for ExtractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Several => "more than one credential",
            Self::Malformed => "a credential that cannot be parsed",
            Self::TooLong => "a token longer than 16 KiB",
            Self::UnknownScheme => "an authentication scheme that is not accepted",
            Self::UnreadPlace => "a token in a place that is not accepted",
        })
    }
}

impl std::error::Error for ExtractError {}

/// Up to so many headers, a walk along all of them costs less than two look-ups.
const FEW: usize = 20;

/// The longest token that is looked at.
pub(crate) const MAX_TOKEN: usize = 16 * 1024;

/// Finds the one token of a request, strictly.
///
/// Every value of every header counts; schemes are compared without case; spaces and tabs are accepted
/// before the token. More than one credential is an error, wherever the second one came from.
///
/// A token in a place that is not looked at, but that the service behind may read, is an error too: the
/// query parameter `access_token`, another authentication scheme, `Sec-WebSocket-Protocol`. Declare
/// a place unused with [`Extractor::unused_query`], [`Extractor::unused_scheme`] and
/// [`Extractor::unused_websocket_protocol`] if the service behind does not take tokens from there.
#[derive(Clone, Debug)]
#[must_use]
pub struct Extractor {
    bearer: bool,
    dpop: bool,
    /// Tokens are taken from nowhere else.
    only_bearer: bool,
    cookies: Vec<String>,
    headers: Vec<HeaderName>,
    unused_schemes: Vec<String>,
    unused_query: bool,
    unused_websocket_protocol: bool,
}

impl Default for Extractor {
    /// Bearer tokens only.
    fn default() -> Self {
        Self::new([Place::Bearer])
    }
}

impl Extractor {
    /// Looks at these places.
    pub fn new(places: impl IntoIterator<Item = Place>) -> Self {
        let mut extractor = Self {
            bearer: false,
            dpop: false,
            only_bearer: false,
            cookies: Vec::new(),
            headers: Vec::new(),
            unused_schemes: Vec::new(),
            unused_query: false,
            unused_websocket_protocol: false,
        };
        for place in places {
            match place {
                Place::Bearer => extractor.bearer = true,
                Place::Dpop => extractor.dpop = true,
                Place::Cookie(name) => extractor.cookies.push(name),
                Place::Header(name) => extractor.headers.push(name),
            }
        }
        extractor.only_bearer =
            extractor.bearer && !extractor.dpop && extractor.cookies.is_empty() && extractor.headers.is_empty();
        extractor
    }

    /// The service behind takes no token from this authentication scheme (such as `Basic`): it passes unread.
    pub fn unused_scheme(mut self, scheme: impl Into<String>) -> Self {
        self.unused_schemes.push(scheme.into());
        self
    }

    /// The service behind takes no token from the query parameter `access_token`.
    pub const fn unused_query(mut self) -> Self {
        self.unused_query = true;
        self
    }

    /// The service behind takes no token from `Sec-WebSocket-Protocol`.
    pub const fn unused_websocket_protocol(mut self) -> Self {
        self.unused_websocket_protocol = true;
        self
    }

    /// The schemes to name in a challenge.
    pub(crate) const fn challenges_dpop(&self) -> bool {
        self.dpop && !self.bearer
    }

    /// What most requests turn out to be at a glance: one `Authorization: Bearer`, or nothing at all, and nothing in any
    /// other place that would have to be looked at.
    #[inline]
    pub(crate) fn glance<'a>(&self, headers: &'a HeaderMap, uri: &Uri) -> Glance<'a> {
        if !self.only_bearer || (!self.unused_query && uri.query().is_some()) {
            return Glance::Unclear;
        }
        if headers.len() > FEW {
            return self.glance_by_name(headers);
        }
        let mut found = None;
        for (name, value) in headers {
            let is_second = *name == header::AUTHORIZATION && found.replace(value).is_some();
            if is_second || (*name == header::SEC_WEBSOCKET_PROTOCOL && !self.unused_websocket_protocol) {
                return Glance::Unclear;
            }
        }
        Glance::of(found)
    }

    fn glance_by_name<'a>(&self, headers: &'a HeaderMap) -> Glance<'a> {
        if !self.unused_websocket_protocol && headers.contains_key(&header::SEC_WEBSOCKET_PROTOCOL) {
            return Glance::Unclear;
        }
        let mut values = headers.get_all(&header::AUTHORIZATION).iter();
        let first = values.next();
        if values.next().is_some() { Glance::Unclear } else { Glance::of(first) }
    }

    /// Whether the request presents a token, without checking how well it is spelled: for who does not read it.
    ///
    /// # Errors
    ///
    /// As [`Extractor::find`].
    #[inline]
    pub(crate) fn presents(&self, headers: &HeaderMap, uri: &Uri) -> Result<bool, ExtractError> {
        match self.glance(headers, uri) {
            Glance::Nothing => Ok(false),
            Glance::Bearer(token) if memchr::memchr(b',', token).is_none() => Ok(true),
            _ => self.find(headers, uri).map(|credential| credential.is_some()),
        }
    }

    /// The same as [`Extractor::find`], with less work for what nearly all requests are.
    pub(crate) fn token<'a>(&self, headers: &'a HeaderMap, uri: &Uri) -> Result<Option<&'a [u8]>, ExtractError> {
        match self.glance(headers, uri) {
            Glance::Nothing => Ok(None),
            Glance::Bearer(token) if token.len() <= MAX_TOKEN && is_b64token(token) => Ok(Some(token)),
            _ => Ok(self.find(headers, uri)?.map(|credential| credential.token.as_bytes())),
        }
    }

    /// The one token of a request, or none.
    ///
    /// # Errors
    ///
    /// Where there is more than one credential, or one that cannot be read for certain.
    pub fn find<'a>(&self, headers: &'a HeaderMap, uri: &Uri) -> Result<Option<Credential<'a>>, ExtractError> {
        let mut found = Found::default();
        for value in headers.get_all(header::AUTHORIZATION) {
            self.authorization(value, &mut found)?;
        }
        if !self.cookies.is_empty() {
            for value in headers.get_all(header::COOKIE) {
                self.cookie(value, &mut found)?;
            }
        }
        for name in &self.headers {
            for value in headers.get_all(name) {
                found.token(trim(value.as_bytes()))?;
            }
        }
        // Some servers take `_` in names for `-` (CGI): a header that only then is ours must not slip by.
        let is_alias = |name: &HeaderName| self.headers.iter().any(|ours| ours != name && are_alike(ours, name));
        if !self.headers.is_empty() && headers.keys().any(is_alias) {
            return Err(ExtractError::UnreadPlace);
        }
        self.unread_places(headers, uri)?;
        if found.count > 1 {
            return Err(ExtractError::Several);
        }
        Ok(found.token.map(|token| Credential { token }))
    }

    /// One `Authorization` value, which a proxy may have joined from several with commas.
    fn authorization<'a>(&self, value: &'a HeaderValue, found: &mut Found<'a>) -> Result<(), ExtractError> {
        let mut rest = trim(value.as_bytes());
        loop {
            let (credential, tail) = split_credential(rest);
            self.credential(credential, found)?;
            match tail {
                Some(tail) => rest = tail,
                None => return Ok(()),
            }
        }
    }

    fn credential<'a>(&self, credential: &'a [u8], found: &mut Found<'a>) -> Result<(), ExtractError> {
        let end = credential.iter().position(|byte| is_space(*byte)).unwrap_or(credential.len());
        let (scheme, token) = (&credential[..end], trim(&credential[end..]));
        if !is_scheme(scheme) {
            return Err(ExtractError::Malformed);
        }
        let read = (self.bearer && scheme.eq_ignore_ascii_case(b"bearer"))
            || (self.dpop && scheme.eq_ignore_ascii_case(b"dpop"));
        if read {
            return found.token(token);
        }
        found.count += 1;
        if self.unused_schemes.iter().any(|unused| scheme.eq_ignore_ascii_case(unused.as_bytes())) {
            return Ok(());
        }
        Err(if found.count > 1 { ExtractError::Several } else { ExtractError::UnknownScheme })
    }

    fn cookie<'a>(&self, value: &'a HeaderValue, found: &mut Found<'a>) -> Result<(), ExtractError> {
        for pair in value.as_bytes().split(|byte| *byte == b';') {
            let pair = trim(pair);
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
            let (name, token) = (trim(&pair[..equals]), trim(&pair[equals + 1..]));
            // Some servers undo escapes in names: one that only then is ours must not slip by.
            let escaped = |cookie: &String| name.contains(&b'%') && unescaped(name).eq(cookie.bytes());
            if self.cookies.iter().any(escaped) {
                return Err(ExtractError::Malformed);
            }
            if self.cookies.iter().any(|cookie| cookie.as_bytes() == name) {
                // RFC 6265 §4.1.1 allows the value in double quotes.
                let token = token.strip_prefix(b"\"").and_then(|token| token.strip_suffix(b"\"")).unwrap_or(token);
                found.token(token)?;
            }
        }
        Ok(())
    }

    fn unread_places(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), ExtractError> {
        if !self.unused_query && uri.query().is_some_and(names_access_token) {
            return Err(ExtractError::UnreadPlace);
        }
        if !self.unused_websocket_protocol {
            let mut protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
            if protocols.any(|value| value.as_bytes().split(|byte| *byte == b',').any(|part| carries_token(trim(part))))
            {
                return Err(ExtractError::UnreadPlace);
            }
        }
        Ok(())
    }
}

/// What a glance at a request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glance<'a> {
    /// No token, in no place.
    Nothing,
    /// The bytes behind `Bearer `. They are *not* checked: use them only to compare with a token that was, or after
    /// looking for a comma.
    Bearer(&'a [u8]),
    /// Anything else: [`Extractor::find`] tells.
    Unclear,
}

impl<'a> Glance<'a> {
    /// By the only value of `Authorization`.
    #[inline]
    fn of(authorization: Option<&'a HeaderValue>) -> Self {
        let Some(value) = authorization else { return Self::Nothing };
        behind_bearer(value.as_bytes()).map_or(Self::Unclear, Self::Bearer)
    }
}

/// What follows the scheme and one space.
#[inline]
fn behind_bearer(value: &[u8]) -> Option<&[u8]> {
    // Each letter without its case bit; the space as it is.
    const CASE: [u8; 7] = [0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0];
    let (scheme, token) = value.split_first_chunk::<7>()?;
    let lower: [u8; 7] = std::array::from_fn(|n| scheme[n] | CASE[n]);
    (lower == *b"bearer ").then_some(token)
}

#[derive(Default)]
struct Found<'a> {
    token: Option<&'a str>,
    count: usize,
}

impl<'a> Found<'a> {
    fn token(&mut self, token: &'a [u8]) -> Result<(), ExtractError> {
        self.count += 1;
        if self.count > 1 {
            return Err(ExtractError::Several);
        }
        if token.len() > MAX_TOKEN {
            return Err(ExtractError::TooLong);
        }
        if !is_b64token(token) {
            return Err(ExtractError::Malformed);
        }
        self.token = Some(std::str::from_utf8(token).map_err(|_| ExtractError::Malformed)?);
        Ok(())
    }
}

/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="` (RFC 6750 §2.1).
fn is_b64token(bytes: &[u8]) -> bool {
    is_compact_jws(bytes) || {
        let end = bytes.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
        end != 0 && bytes[..end].iter().fold(true, |ok, byte| ok & is_token68(*byte))
    }
}

/// What nearly all tokens are, in a quarter of the time: three parts of base64url.
fn is_compact_jws(bytes: &[u8]) -> bool {
    let mut parts = 0;
    let mut rest = bytes;
    loop {
        let (part, tail) = match memchr::memchr(b'.', rest) {
            Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
            None => (rest, None),
        };
        parts += 1;
        if parts > 3 || base64_simd::URL_SAFE_NO_PAD.check(part).is_err() {
            return false;
        }
        match tail {
            Some(tail) => rest = tail,
            None => return parts == 3,
        }
    }
}

/// Without a branch, so that many bytes are looked at together.
const fn is_token68(byte: u8) -> bool {
    let letter = byte | 0x20;
    (letter >= b'a') & (letter <= b'z')
        | (byte >= b'0') & (byte <= b'9')
        | (byte == b'-')
        | (byte == b'.')
        | (byte == b'_')
        | (byte == b'~')
        | (byte == b'+')
        | (byte == b'/')
}

/// Cuts at the first comma behind which another credential starts: a scheme and white space (RFC 9110 §11.4).
/// Any other comma belongs to the parameters of the credential before it.
fn split_credential(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut from = 0;
    while let Some(comma) = memchr::memchr(b',', &value[from..]) {
        let comma = from + comma;
        let tail = trim(&value[comma + 1..]);
        let scheme = tail.iter().position(|byte| is_space(*byte) || *byte == b',').unwrap_or(tail.len());
        if tail.get(scheme).is_some_and(|byte| is_space(*byte)) && is_scheme(&tail[..scheme]) {
            return (trim(&value[..comma]), Some(tail));
        }
        from = comma + 1;
    }
    (value, None)
}

/// An authentication scheme is an HTTP token (RFC 9110 §5.6.2).
fn is_scheme(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

const fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_space(*byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_space(*byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// Whether two names are one to a server that takes `_` for `-`.
fn are_alike(one: &HeaderName, other: &HeaderName) -> bool {
    let bytes = |name: &HeaderName| {
        name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte }).collect::<Vec<_>>()
    };
    one.as_str().len() == other.as_str().len() && bytes(one) == bytes(other)
}

/// Whether a query names the parameter `access_token`, however its letters are escaped.
fn names_access_token(query: &str) -> bool {
    // A semicolon separates parameters for some servers.
    query.split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        unescaped(name.as_bytes()).map(|byte| byte.to_ascii_lowercase()).eq(b"access_token".iter().copied())
    })
}

fn unescaped(mut bytes: &[u8]) -> impl Iterator<Item = u8> {
    let hex = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    std::iter::from_fn(move || match bytes {
        [b'%', high, low, rest @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
            bytes = rest;
            Some(hex(*high)? << 4 | hex(*low)?)
        }
        [byte, rest @ ..] => {
            bytes = rest;
            Some(*byte)
        }
        [] => None,
    })
}

/// Whether a WebSocket subprotocol is how browsers smuggle a token: a marker for one, or a JWT itself.
fn carries_token(protocol: &[u8]) -> bool {
    let marker = |name: &[u8]| protocol.len() >= name.len() && protocol[..name.len()].eq_ignore_ascii_case(name);
    marker(b"bearer")
        || marker(b"access_token")
        || marker(b"base64url.bearer.")
        || (protocol.starts_with(b"eyJ") && protocol.iter().filter(|byte| **byte == b'.').count() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(values: &[&str]) -> Result<Option<String>, ExtractError> {
        find_with(&Extractor::default(), values.iter().map(|value| ("authorization", *value)), "/")
    }

    fn find_with<'a>(
        extractor: &Extractor,
        values: impl IntoIterator<Item = (&'static str, &'a str)>,
        uri: &str,
    ) -> Result<Option<String>, ExtractError> {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let credential = extractor.find(&headers, &uri.parse().unwrap())?;
        Ok(credential.map(|credential| credential.token().to_owned()))
    }

    /// F42, F43: one credential, found however its scheme is spelled and spaced.
    #[test]
    #[expect(clippy::type_complexity, reason = "a table")]
    fn f42_f43_authorization() {
        let ok = |token: &str| Ok(Some(token.to_owned()));
        let table: &[(&[&str], Result<Option<String>, ExtractError>)] = &[
            (&[], Ok(None)),
            (&["Bearer abc"], ok("abc")),
            (&["bearer abc"], ok("abc")),
            (&["BEARER abc"], ok("abc")),
            (&["Bearer  abc"], ok("abc")),
            (&["Bearer\tabc"], ok("abc")),
            (&["  Bearer \t abc \t"], ok("abc")),
            (&["Bearer a.b_c-~+/d=="], ok("a.b_c-~+/d==")),
            (&["Bearer abc", "Bearer def"], Err(ExtractError::Several)),
            (&["Bearer abc", "Bearer abc"], Err(ExtractError::Several)),
            (&["Bearer abc,Bearer def"], Err(ExtractError::Several)),
            (&["Bearer abc , bearer\tdef"], Err(ExtractError::Several)),
            (&["Basic eDp5", "Bearer abc"], Err(ExtractError::UnknownScheme)),
            (&["Bearer abc", "Basic eDp5"], Err(ExtractError::Several)),
            (&["Bearer abc, Basic eDp5"], Err(ExtractError::Several)),
            (&["Bearer abc,def"], Err(ExtractError::Malformed)),
            (&["Bearer abc,"], Err(ExtractError::Malformed)),
            (&["Bearer ,Bearer abc"], Err(ExtractError::Malformed)),
            (&[", Bearer abc"], Err(ExtractError::Malformed)),
            (&["Bearer abc def"], Err(ExtractError::Malformed)),
            (&["Bearer"], Err(ExtractError::Malformed)),
            (&["Bearer "], Err(ExtractError::Malformed)),
            (&["Bearer ="], Err(ExtractError::Malformed)),
            (&["Bearer a=b"], Err(ExtractError::Malformed)),
            (&["Bearer\u{a0}abc"], Err(ExtractError::Malformed)),
            (&["Bearer abc\u{e9}"], Err(ExtractError::Malformed)),
            (&[""], Err(ExtractError::Malformed)),
            (&["Bearer:abc"], Err(ExtractError::Malformed)),
            (&["Token abc"], Err(ExtractError::UnknownScheme)),
            (&["Digest a=\"b\", c=d"], Err(ExtractError::UnknownScheme)),
        ];
        for (values, expected) in table {
            assert_eq!(&find(values), expected, "{values:?}");
        }
        assert_eq!(find(&[&format!("Bearer {}", "a".repeat(MAX_TOKEN))]), ok(&"a".repeat(MAX_TOKEN)));
        assert_eq!(find(&[&format!("Bearer {}", "a".repeat(MAX_TOKEN + 1))]), Err(ExtractError::TooLong));
    }

    #[test]
    fn unused_schemes_pass_but_still_count() {
        let extractor = Extractor::default().unused_scheme("basic");
        let find =
            |values: &[&'static str]| find_with(&extractor, values.iter().map(|value| ("authorization", *value)), "/");
        assert_eq!(find(&["Basic eDp5"]), Ok(None));
        assert_eq!(find(&["Basic eDp5", "Bearer abc"]), Err(ExtractError::Several));
        assert_eq!(find(&["Basic eDp5, Bearer abc"]), Err(ExtractError::Several));
        assert_eq!(find(&["Digest a=\"b\", c=d"]), Err(ExtractError::UnknownScheme));
    }

    #[test]
    fn cookies_headers_and_dpop() {
        let extractor = Extractor::new([
            Place::Dpop,
            Place::Cookie("session".to_owned()),
            Place::Header(HeaderName::from_static("x-token")),
        ]);
        let one = |name: &'static str, value: &'static str| find_with(&extractor, [(name, value)], "/");
        assert_eq!(one("authorization", "dpop abc"), Ok(Some("abc".to_owned())));
        assert_eq!(one("authorization", "Bearer abc"), Err(ExtractError::UnknownScheme));
        assert_eq!(one("cookie", "a=b; session=abc; c=d"), Ok(Some("abc".to_owned())));
        assert_eq!(one("cookie", "session=\"abc\""), Ok(Some("abc".to_owned())));
        assert_eq!(one("cookie", "Session=abc"), Ok(None));
        assert_eq!(one("cookie", "session=abc; session=def"), Err(ExtractError::Several));
        assert_eq!(one("cookie", "session="), Err(ExtractError::Malformed));
        assert_eq!(one("cookie", "%73ession=abc"), Err(ExtractError::Malformed));
        assert_eq!(one("cookie", "%53ession=abc"), Ok(None));
        assert_eq!(one("x-token", " abc "), Ok(Some("abc".to_owned())));
        assert_eq!(one("x-token", "abc,def"), Err(ExtractError::Malformed));
        assert_eq!(one("x_token", "abc"), Err(ExtractError::UnreadPlace), "a server may take it for x-token");
        assert_eq!(one("x_tokens", "abc"), Ok(None));
        let two = [("cookie", "session=abc"), ("x-token", "abc")];
        assert_eq!(find_with(&extractor, two, "/"), Err(ExtractError::Several));
    }

    /// Design §9 rule 21.
    #[test]
    fn tokens_in_places_that_are_not_read() {
        let strict = Extractor::default();
        let lax = Extractor::default().unused_query().unused_websocket_protocol();
        for uri in ["/?access_token=abc", "/?a=b&ACCESS_token=abc", "/?a;access%5ftoken=abc", "/?access_token"] {
            assert_eq!(find_with(&strict, [], uri), Err(ExtractError::UnreadPlace), "{uri}");
            assert_eq!(find_with(&lax, [], uri), Ok(None), "{uri}");
        }
        assert_eq!(find_with(&strict, [], "/?access_tokens=abc&q=access_token"), Ok(None));
        for protocol in ["bearer, abc", "chat,Bearer", "base64url.bearer.authorization.k8s.io.YWJj", "eyJh.eyJi.c"] {
            let headers = [("sec-websocket-protocol", protocol)];
            assert_eq!(find_with(&strict, headers, "/"), Err(ExtractError::UnreadPlace), "{protocol}");
            assert_eq!(find_with(&lax, headers, "/"), Ok(None), "{protocol}");
        }
        assert_eq!(find_with(&strict, [("sec-websocket-protocol", "chat, graphql-ws")], "/"), Ok(None));
    }
}
