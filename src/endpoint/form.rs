use std::fmt;

use http::header::{self, HeaderMap};
use zeroize::Zeroizing;

use super::refusal::Refusal;

/// The parameters of a form, read strictly: what two parsers could read differently is refused.
pub(super) struct Form(Vec<(String, Zeroizing<String>)>);

/// More parameters than any honest request has.
const MAX_PARAMETERS: usize = 64;

impl Form {
    /// Parses `application/x-www-form-urlencoded`: no repeated name, known or not, and no stray byte.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        // Some parsers take a semicolon for an ampersand; those who encode properly never send one.
        if body.contains(&b';') {
            return Err(Refusal::Form);
        }
        let mut fields: Vec<(String, Zeroizing<String>)> = Vec::new();
        for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let name = decode(&pair[..equals]).ok_or(Refusal::Form)?;
            let value = decode(pair.get(equals + 1..).unwrap_or_default()).ok_or(Refusal::Form)?;
            // RFC 6749 §8.2. Other names are read as these by some parsers: in brackets, with a blank in front.
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
                return Err(Refusal::Form);
            }
            if fields.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                return Err(Refusal::Duplicate);
            }
            if fields.len() == MAX_PARAMETERS {
                return Err(Refusal::Form);
            }
            fields.push((name.as_str().to_owned(), value));
        }
        Ok(Self(fields))
    }

    /// No parameters, as a body that is no form has.
    pub(super) const fn empty() -> Self {
        Self(Vec::new())
    }

    /// A parameter; one without a value counts as left out (RFC 6749 §3.2).
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Form({} parameters)", self.0.len())
    }
}

/// Undoes form encoding (RFC 6749 appendix B); `None` for a broken escape, NUL, what is not UTF-8, and bytes that
/// must not stand there unescaped.
pub(super) fn decode(encoded: &[u8]) -> Option<Zeroizing<String>> {
    // Never grows, so that no copy stays behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(encoded.len()));
    let mut rest = encoded.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex(*rest.next()?)? << 4 | hex(*rest.next()?)?,
            0x21..=0x7E => *byte,
            _ => return None,
        });
    }
    if bytes.contains(&0) {
        return None;
    }
    String::from_utf8(std::mem::take(&mut *bytes)).ok().map(Zeroizing::new)
}

pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// What a body may be announced as.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// Whether the head announces a plain body of this media type, in UTF-8.
pub(super) fn check_head(headers: &HeaderMap, media: &'static str) -> Result<(), Refusal> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(one), None) if is_utf8(one.as_bytes(), media) => {}
        _ => return Err(Refusal::MediaType { json: media != FORM }),
    }
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        Ok(())
    } else {
        Err(Refusal::Encoding)
    }
}

fn is_utf8(content_type: &[u8], media: &str) -> bool {
    let mut parts = content_type.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let right = parts.next().is_some_and(|named| named.eq_ignore_ascii_case(media.as_bytes()));
    right
        && parts.all(|parameter| {
            let utf8: [&[u8]; 3] = [b"", b"charset=utf-8", b"charset=\"utf-8\""];
            utf8.iter().any(|accepted| parameter.eq_ignore_ascii_case(accepted))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;

    use super::*;

    #[test]
    fn reads_what_can_be_read_in_one_way_only() {
        let form = Form::parse(b"&token=a%2Bb+c%C3%A9&hint&empty=&x=1=2&").unwrap();
        assert_eq!(form.get("token"), Some("a+b c\u{e9}"));
        assert_eq!((form.get("hint"), form.get("empty"), form.get("absent")), (None, None, None));
        assert_eq!(form.get("x"), Some("1=2"));
        for (body, refusal) in [
            (&b"token=a&token=b"[..], Refusal::Duplicate),
            (b"token=&token=b", Refusal::Duplicate),
            (b"t%6Fken=a&token=b", Refusal::Duplicate),
            (b"unknown=a&unknown=a", Refusal::Duplicate),
            (b"token=%", Refusal::Form),
            (b"token=%4", Refusal::Form),
            (b"token=%+4", Refusal::Form),
            (b"token=%FF", Refusal::Form),
            (b"token=\xC3\xA9", Refusal::Form),
            (b"token=a%00", Refusal::Form),
            (b"token=a\0", Refusal::Form),
            (b"token=a\n", Refusal::Form),
            (b"a=1;token=b", Refusal::Form),
            (b"%FF=a", Refusal::Form),
            (b"[token]=a", Refusal::Form),
            (b"+token=a", Refusal::Form),
            (b"token[]=a", Refusal::Form),
            (b"Token=a&token=b", Refusal::Duplicate),
        ] {
            assert_eq!(Form::parse(body).unwrap_err(), refusal, "{}", body.escape_ascii());
        }
        let many = (0..=MAX_PARAMETERS).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
        assert_eq!(Form::parse(many.as_bytes()).unwrap_err(), Refusal::Form);
    }

    #[test]
    fn takes_plain_forms_in_utf8_only() {
        let of = |name: header::HeaderName, values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            headers.remove(&name);
            for value in values {
                headers.append(&name, HeaderValue::from_static(value));
            }
            check_head(&headers, FORM)
        };
        let form = "application/x-www-form-urlencoded";
        for accepted in
            [form, "Application/X-WWW-Form-Urlencoded ; charset=UTF-8", "application/x-www-form-urlencoded;"]
        {
            assert_eq!(of(header::CONTENT_TYPE, &[accepted]), Ok(()), "{accepted}");
        }
        let refused = ["application/json", "application/x-www-form-urlencoded2", "multipart/form-data", ""];
        for refused in refused.into_iter().chain([
            "application/x-www-form-urlencoded; charset=utf-7",
            "application/x-www-form-urlencoded; boundary=x",
        ]) {
            assert_eq!(of(header::CONTENT_TYPE, &[refused]), Err(Refusal::MediaType { json: false }), "{refused}");
        }
        assert_eq!(of(header::CONTENT_TYPE, &[]), Err(Refusal::MediaType { json: false }));
        assert_eq!(of(header::CONTENT_TYPE, &[form, form]), Err(Refusal::MediaType { json: false }));
        assert_eq!(of(header::CONTENT_ENCODING, &["identity"]), Ok(()));
        assert_eq!(of(header::CONTENT_ENCODING, &["identity", "gzip"]), Err(Refusal::Encoding));
        assert_eq!(of(header::CONTENT_ENCODING, &["identity, gzip"]), Err(Refusal::Encoding));
    }
}
