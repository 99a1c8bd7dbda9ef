//! What an introspection endpoint answers (RFC 7662 §2.2), read strictly.

use crate::token::{
    ClaimNames, VerifyError,
    strict::{Malformed, Members, StrictClaims},
};

/// The longest answer that is read.
pub(super) const MAX_ANSWER: usize = 64 << 10;

/// How answers are read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) issuer: Box<str>,
    /// None: not looked at.
    pub(super) audience: Box<[String]>,
    pub(super) names: ClaimNames,
}

/// An answer that can be read.
pub(super) enum Answer<'a> {
    /// The token is not acceptable.
    Inactive(VerifyError),
    Active(StrictClaims<'a>),
}

impl Reading {
    pub(super) fn new(issuer: String) -> Self {
        Self { issuer: issuer.into(), audience: Box::default(), names: ClaimNames::default() }
    }

    /// Reads an answer; `latest`: `nbf` may not be later (Unix seconds).
    pub(super) fn read<'a>(&self, json: &'a [u8], latest: u64) -> Result<Answer<'a>, Malformed> {
        let answer = Members::parse(json)?;
        // A Boolean, and nothing that some would take for one.
        match answer.raw("active").map(|active| active.get()) {
            Some("false") => return Ok(Answer::Inactive(VerifyError::Inactive)),
            Some("true") => {}
            _ => return Err(Malformed),
        }
        let claims = answer.claims(&self.names)?;
        if answer.string("iss")?.is_some_and(|iss| *iss != *self.issuer) {
            return Ok(Answer::Inactive(VerifyError::UnknownIssuer));
        }
        if !self.audience.is_empty() && !self.is_for_us(&answer)? {
            return Ok(Answer::Inactive(VerifyError::Audience));
        }
        if answer.time("nbf")?.is_some_and(|nbf| nbf > latest) {
            return Ok(Answer::Inactive(VerifyError::NotYetValid));
        }
        Ok(Answer::Active(claims))
    }

    fn is_for_us(&self, answer: &Members<'_>) -> Result<bool, Malformed> {
        let aud = match answer.raw("aud") {
            None => Vec::new(),
            Some(list) if list.get().starts_with('[') => answer.get::<Vec<String>>("aud")?.unwrap_or_default(),
            Some(_) => answer.string("aud")?.map(Into::into).into_iter().collect(),
        };
        Ok(aud.iter().any(|aud| self.audience.contains(aud)))
    }
}

/// Reads bytes as an answer: whether the token is active. For fuzzing.
#[doc(hidden)]
pub fn read_introspection_answer(json: &[u8]) -> Option<bool> {
    let reading = Reading::new("https://issuer.example/".to_owned());
    Some(matches!(reading.read(json, 1_700_000_000).ok()?, Answer::Active(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l6_answers_are_read_in_one_way_only() {
        let mut reading = Reading::new("https://issuer.example/".to_owned());
        let read = |reading: &Reading, json: &str| match reading.read(json.as_bytes(), 100) {
            Ok(Answer::Active(claims)) => Ok(Ok(claims.as_claims("", b"").sub.map(str::to_owned))),
            Ok(Answer::Inactive(error)) => Ok(Err(error)),
            Err(malformed) => Err(malformed),
        };
        assert_eq!(read(&reading, r#"{"active":true,"sub":"alice"}"#), Ok(Ok(Some("alice".to_owned()))));
        assert_eq!(read(&reading, r#"{"active":false,"sub":7}"#), Ok(Err(VerifyError::Inactive)));
        assert_eq!(
            read(&reading, r#"{"active":true,"iss":"https://issuer.example"}"#),
            Ok(Err(VerifyError::UnknownIssuer)),
            "byte for byte"
        );
        assert_eq!(read(&reading, r#"{"active":true,"nbf":101}"#), Ok(Err(VerifyError::NotYetValid)));
        for bad in [
            r#"{"active":"true"}"#,
            r#"{"active":1}"#,
            r#"{"active":null}"#,
            r#"{"active":true,"active":true}"#,
            r#"{"active":false,"active":true}"#,
            r#"{"active":true,"sub":7}"#,
            r#"{"active":true,"sub":""}"#,
            r#"{"active":true,"exp":"soon"}"#,
            r#"{"active":true,"iss":["a"]}"#,
            r#"{"sub":"alice"}"#,
            r#"[true]"#,
            r#"{"active":true} {}"#,
            "<html>true</html>",
            "true",
            "",
        ] {
            assert_eq!(read(&reading, bad), Err(Malformed), "{bad}");
        }
        reading.audience = Box::new(["us".to_owned()]);
        assert!(matches!(read(&reading, r#"{"active":true,"aud":["them","us"]}"#), Ok(Ok(_))));
        for other in [r#"{"active":true,"aud":"them"}"#, r#"{"active":true}"#] {
            assert_eq!(read(&reading, other), Ok(Err(VerifyError::Audience)));
        }
        assert_eq!(read(&reading, r#"{"active":true,"aud":7}"#), Err(Malformed));
    }
}
