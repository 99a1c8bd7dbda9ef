//! JSON objects read strictly: no duplicate member, no claim of a wrong type.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    Claims, StatusKept, StatusPlace,
    json::{self, Raw},
};

/// The names under which an issuer puts the claims that revocation needs.
///
/// The defaults are the standards' own. Entra ID has `uti` for `jti` and `azp` for `client_id`, Okta `cid`,
/// Auth0 `azp`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ClaimNames {
    pub(crate) jti: Cow<'static, str>,
    pub(crate) sid: Cow<'static, str>,
    pub(crate) sub: Cow<'static, str>,
    pub(crate) client_id: Cow<'static, str>,
    pub(crate) status: StatusPlace,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self::STANDARD
    }
}

impl ClaimNames {
    const STANDARD: Self = Self {
        jti: Cow::Borrowed("jti"),
        sid: Cow::Borrowed("sid"),
        sub: Cow::Borrowed("sub"),
        client_id: Cow::Borrowed("client_id"),
        status: StatusPlace::Standard,
    };

    /// The claim that identifies the token.
    pub fn jti(mut self, name: impl Into<String>) -> Self {
        self.jti = Cow::Owned(name.into());
        self
    }

    /// The claim that identifies the session.
    pub fn sid(mut self, name: impl Into<String>) -> Self {
        self.sid = Cow::Owned(name.into());
        self
    }

    /// The claim that identifies the user.
    #[expect(clippy::should_implement_trait, reason = "it is named after the claim")]
    pub fn sub(mut self, name: impl Into<String>) -> Self {
        self.sub = Cow::Owned(name.into());
        self
    }

    /// The claim that identifies the client.
    pub fn client_id(mut self, name: impl Into<String>) -> Self {
        self.client_id = Cow::Owned(name.into());
        self
    }

    /// Where the reference to a status list is.
    pub const fn status_list(mut self, place: StatusPlace) -> Self {
        self.status = place;
        self
    }
}

/// The bytes are not an object that can be read in only one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The members of one JSON object.
#[derive(Default)]
pub(crate) struct Members<'a>(json::List<'a>);

/// Times beyond this cannot be told apart by readers that use doubles.
const MAX_TIME: f64 = 9_007_199_254_740_992.0;

impl<'a> Members<'a> {
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self, Malformed> {
        let mut members = Self::default();
        members.read(json).map(|()| members)
    }

    /// The same, into what is empty: it is large, and each move of it a copy.
    #[inline]
    pub(super) fn read(&mut self, json: &'a [u8]) -> Result<(), Malformed> {
        // Checked once for all the strings in it.
        let json = std::str::from_utf8(json).map_err(|_| Malformed)?;
        json::read(json, &mut self.0)
    }

    /// Every member, in order.
    #[cfg(feature = "sync")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Raw<'a>)> {
        self.0.iter().map(|member| (&*member.name, member.value))
    }

    pub(crate) fn raw(&self, name: &str) -> Option<Raw<'a>> {
        json::find(&self.0, name)
    }

    /// Whether there are no members but these.
    #[cfg(feature = "sync")]
    pub(crate) fn are_only(&self, known: &[&str]) -> bool {
        self.0.iter().all(|member| known.contains(&&*member.name))
    }

    pub(crate) fn get<T: serde::Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Malformed> {
        self.raw(name).map(|raw| serde_json::from_str(raw.get()).map_err(|_| Malformed)).transpose()
    }

    /// A string that is not empty.
    #[inline]
    pub(crate) fn string(&self, name: &str) -> Result<Option<Cow<'a, str>>, Malformed> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let text = raw.string().ok_or(Malformed)??;
        if text.is_empty() { Err(Malformed) } else { Ok(Some(text)) }
    }

    /// A NumericDate in whole seconds, rounded down, within [0, 2^53).
    pub(crate) fn time(&self, name: &str) -> Result<Option<u64>, Malformed> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        // Fifteen digits stay below 2^53.
        let next = |number: u64, digit: &u8| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'));
        let digits = Some(raw.get().as_bytes()).filter(|digits| digits.len() <= 15);
        if let Some(seconds) = digits.and_then(|digits| digits.iter().try_fold(0, next)) {
            return Ok(Some(seconds));
        }
        if let Ok(seconds) = raw.get().parse::<u64>() {
            return if (seconds as f64) < MAX_TIME { Ok(Some(seconds)) } else { Err(Malformed) };
        }
        match serde_json::from_str::<f64>(raw.get()) {
            Ok(seconds) if (0.0..MAX_TIME).contains(&seconds) => Ok(Some(seconds as u64)),
            _ => Err(Malformed),
        }
    }

    /// What was granted: `scope`, a string (RFC 8693 §4.2), or `scp`, a string (Entra ID) or a list (Okta). It grants
    /// and never identifies, so that what cannot be read, or stands in both places, is nothing.
    fn scope(&self) -> Option<Cow<'a, str>> {
        match (self.raw("scope"), self.raw("scp")) {
            (Some(_), None) => self.string("scope").ok().flatten(),
            (None, Some(list)) if list.get().starts_with('[') => {
                let list: Vec<Text<'a>> = self.get("scp").ok().flatten()?;
                let list: Vec<&str> = list.iter().map(|Text(scope)| &**scope).collect();
                Some(Cow::Owned(list.join(" ")))
            }
            (None, Some(_)) => self.string("scp").ok().flatten(),
            _ => None,
        }
    }

    pub(crate) fn claims(&self, names: &ClaimNames) -> Result<StrictClaims<'a>, Malformed> {
        Ok(StrictClaims {
            jti: self.string(&names.jti)?,
            sid: self.string(&names.sid)?,
            sub: self.string(&names.sub)?,
            client_id: self.string(&names.client_id)?,
            scope: self.scope(),
            iat: self.time("iat")?,
            auth_time: self.time("auth_time")?,
            exp: self.time("exp")?,
            status: StatusKept::read(self, names.status),
        })
    }
}

/// A string, borrowed where it holds no escape. serde does not borrow into a plain `Cow`.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The claims that revocation needs, checked for type but not against anything else.
pub(crate) struct StrictClaims<'a> {
    jti: Option<Cow<'a, str>>,
    sid: Option<Cow<'a, str>>,
    sub: Option<Cow<'a, str>>,
    client_id: Option<Cow<'a, str>>,
    scope: Option<Cow<'a, str>>,
    pub(crate) iat: Option<u64>,
    auth_time: Option<u64>,
    pub(crate) exp: Option<u64>,
    status: StatusKept,
}

impl StrictClaims<'_> {
    /// The claims for a token of `iss`; `signing_input` is hashed where no `jti` names the token.
    pub(crate) fn as_claims<'b>(&'b self, iss: &'b str, signing_input: &[u8]) -> Claims<'b> {
        Claims {
            iss,
            jti: self.jti.as_deref(),
            signing_input: self.jti.is_none().then(|| signing_input_sha256(signing_input)),
            opaque: None,
            sid: self.sid.as_deref(),
            sub: self.sub.as_deref(),
            client_id: self.client_id.as_deref(),
            scope: self.scope.as_deref(),
            iat: self.iat,
            auth_time: self.auth_time,
            exp: self.exp,
            status: self.status.as_claim(),
        }
    }
}

fn signing_input_sha256(signing_input: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(signing_input).into()
}

/// Bytes decoded from base64url. As many as nearly all tokens have cost no allocation.
pub(super) type Part<const N: usize> = SmallVec<[u8; N]>;

/// base64url without padding (RFC 7515 §2), canonical.
fn decode<const N: usize>(part: &[u8], bytes: &mut Part<N>) -> Result<(), Malformed>
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    use base64_simd::{AsOut as _, URL_SAFE_NO_PAD};
    let most = part.len() / 4 * 3 + 3;
    // One copy, where `resize` adds byte for byte.
    match [0; 1024].get(..most) {
        Some(zeroes) => bytes.extend_from_slice(zeroes),
        None => bytes.resize(most, 0),
    }
    let length = URL_SAFE_NO_PAD.decode(part, bytes.as_mut_slice().as_out()).map_err(|_| Malformed)?.len();
    bytes.truncate(length);
    Ok(())
}

/// The parts of a compact JWS (RFC 7515 §7.1), as they stand in it.
#[allow(dead_code, reason = "which features are on decides what is read")]
pub(crate) struct EncodedJws<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    pub(crate) signing_input: &'a [u8],
    signature: &'a [u8],
}

impl<'a> EncodedJws<'a> {
    /// Splits a token whose header can be decoded. A fourth part is found where the payload is decoded,
    /// since a dot is not base64url.
    pub(crate) fn split(token: &'a [u8]) -> Result<Self, Malformed> {
        let end = memchr::memrchr(b'.', token).ok_or(Malformed)?;
        let (signing_input, signature) = (&token[..end], &token[end + 1..]);
        let middle = memchr::memchr(b'.', signing_input).ok_or(Malformed)?;
        let (header, payload) = (&signing_input[..middle], &signing_input[middle + 1..]);
        base64_simd::URL_SAFE_NO_PAD.check(header).map_err(|_| Malformed)?;
        Ok(Self { header, payload, signing_input, signature })
    }

    /// Decodes the payload into what is empty.
    pub(super) fn payload(&self, bytes: &mut Part<1024>) -> Result<(), Malformed> {
        decode(self.payload, bytes)
    }
}

/// The parts of a compact JWS, decoded; the signature stays encoded.
#[allow(dead_code, reason = "which features are on decides what is read")]
pub(crate) struct CompactJws<'a> {
    pub(crate) header: Part<128>,
    pub(crate) payload: Part<1024>,
    pub(crate) signing_input: &'a [u8],
    pub(crate) signature: &'a [u8],
}

impl<'a> CompactJws<'a> {
    /// Splits and decodes; base64url without padding, canonical, exactly three parts.
    #[allow(dead_code, reason = "a look needs only the payload")]
    pub(crate) fn parse(token: &'a str) -> Result<Self, Malformed> {
        let jws = EncodedJws::split(token.as_bytes())?;
        let EncodedJws { signing_input, signature, .. } = jws;
        let mut decoded = Self { header: Part::new(), payload: Part::new(), signing_input, signature };
        decode(jws.header, &mut decoded.header)?;
        jws.payload(&mut decoded.payload)?;
        Ok(decoded)
    }

    /// Whether a string is shaped like a JWS at all; anything else is an opaque token.
    pub(crate) fn looks_like(token: &str) -> bool {
        token.bytes().filter(|byte| *byte == b'.').count() == 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l6_malformed_is_not_missing() {
        let parse = |json: &str| {
            let members = Members::parse(json.as_bytes())?;
            members.claims(&ClaimNames::default()).map(|claims| (claims.exp, claims.jti.map(Cow::into_owned)))
        };
        assert_eq!(parse(r#"{"exp":5,"jti":"a"}"#), Ok((Some(5), Some("a".to_owned()))));
        assert_eq!(parse(r#"{"exp":5.9}"#), Ok((Some(5), None)));
        assert_eq!(parse(r#"{"j\u0074i":"\u0061"}"#), Ok((None, Some("a".to_owned()))));
        for bad in [
            r#"{"exp":"soon"}"#,
            r#"{"exp":-1}"#,
            r#"{"exp":null}"#,
            r#"{"exp":9007199254740992}"#,
            r#"{"exp":1e300}"#,
            r#"{"iat":true}"#,
            r#"{"jti":7}"#,
            r#"{"jti":""}"#,
            r#"{"jti":null}"#,
            r#"{"sid":["a"]}"#,
            r#"{"jti":"a","jti":"b"}"#,
            r#"{"jti":"a","j\u0074i":"b"}"#,
            r#"{"other":1,"other":1}"#,
            r#"{"jti":"a"} x"#,
            r#"["jti"]"#,
            r#"{"jti":"a""#,
            "",
        ] {
            assert_eq!(parse(bad), Err(Malformed), "{bad}");
        }
        let many: Vec<_> = (0..300).map(|n| format!("\"m{n}\":0")).collect();
        assert_eq!(parse(&format!("{{{}}}", many.join(","))), Err(Malformed));
    }

    #[test]
    fn compact_jws() {
        assert!(CompactJws::parse("e30.e30.").is_ok());
        let peek = |token: &str| EncodedJws::split(token.as_bytes())?.payload(&mut Part::new());
        assert!(peek("e30.e30.").is_ok());
        for bad in
            ["", "e30", "e30.e30", "e30.e30.a.b", "e3=.e30.a", "e31.e30.a", "e 0.e30.a", "e30.e31.a", "e30.e3=.a"]
        {
            assert!(CompactJws::parse(bad).is_err(), "{bad}");
            assert!(peek(bad).is_err(), "{bad}");
        }
    }
}
