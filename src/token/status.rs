//! Where a token says that its status is told (draft-ietf-oauth-status-list §6).

use std::fmt;

use super::{
    json::Raw,
    strict::{Malformed, Members},
};

/// A place in a Token Status List.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusRef<'a> {
    /// Where the list is, as the token has it: the list has to name itself so.
    pub uri: &'a str,
    /// The token's index in it.
    pub idx: u64,
}

/// The status of one token (draft-ietf-oauth-status-list §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(pub u8);

impl Status {
    /// It is good.
    pub const VALID: Self = Self(0);
    /// It is revoked, for good.
    pub const INVALID: Self = Self(1);
    /// It does not count for now.
    pub const SUSPENDED: Self = Self(2);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::VALID => f.write_str("valid"),
            Self::INVALID => f.write_str("invalid"),
            Self::SUSPENDED => f.write_str("suspended"),
            Self(other) => write!(f, "{other:#04x}"),
        }
    }
}

/// What a token says of its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatusClaim<'a> {
    /// Nothing, or not by a status list.
    #[default]
    Missing,
    /// Where it is.
    List(StatusRef<'a>),
    /// Something that cannot be read as one. It is refused where status lists count.
    Malformed,
}

/// Where an issuer puts the reference to a status list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatusPlace {
    /// `status.status_list`, as the draft has it.
    #[default]
    Standard,
    /// There, or `status_list` beside the other claims, as Janssen's Logout Status JWT has it. In both places it has to
    /// be the same.
    TopLevel,
}

/// The same, kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum StatusKept {
    #[default]
    Missing,
    List(Box<str>, u64),
    Malformed,
}

impl StatusKept {
    pub(crate) fn as_claim(&self) -> StatusClaim<'_> {
        match self {
            Self::Missing => StatusClaim::Missing,
            Self::List(uri, idx) => StatusClaim::List(StatusRef { uri, idx: *idx }),
            Self::Malformed => StatusClaim::Malformed,
        }
    }

    /// Reads it from a token's claims. What is malformed is told and not refused: other issuers may mean something else
    /// by `status`.
    pub(super) fn read(claims: &Members<'_>, place: StatusPlace) -> Self {
        Self::in_claims(claims, place).unwrap_or(Self::Malformed)
    }

    fn in_claims(claims: &Members<'_>, place: StatusPlace) -> Result<Self, Malformed> {
        let nested = match claims.raw("status") {
            None => Self::Missing,
            Some(status) => match Members::parse(status.get().as_bytes())?.raw("status_list") {
                Some(list) => Self::reference(list)?,
                // Another mechanism (§6.1 leaves room for them).
                None => Self::Missing,
            },
        };
        let beside = match claims.raw("status_list") {
            Some(list) if place == StatusPlace::TopLevel => Self::reference(list)?,
            _ => Self::Missing,
        };
        match (nested, beside) {
            (one, Self::Missing) | (Self::Missing, one) => Ok(one),
            (one, other) if one == other => Ok(one),
            _ => Err(Malformed),
        }
    }

    fn reference(list: Raw<'_>) -> Result<Self, Malformed> {
        let list = Members::parse(list.get().as_bytes())?;
        let uri = list.string("uri")?.ok_or(Malformed)?;
        let idx = list.get::<u64>("idx")?.ok_or(Malformed)?;
        Ok(Self::List((*uri).into(), idx))
    }
}

impl From<StatusClaim<'_>> for StatusKept {
    fn from(claim: StatusClaim<'_>) -> Self {
        match claim {
            StatusClaim::Missing => Self::Missing,
            StatusClaim::List(StatusRef { uri, idx }) => Self::List(uri.into(), idx),
            StatusClaim::Malformed => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(json: &str, place: StatusPlace) -> StatusKept {
        StatusKept::read(&Members::parse(json.as_bytes()).unwrap_or_else(|_| unreachable!()), place)
    }

    #[test]
    fn l6_malformed_is_not_missing() {
        let list = |uri: &str, idx| StatusKept::List(uri.into(), idx);
        let standard = |json: &str| read(json, StatusPlace::Standard);
        assert_eq!(standard(r#"{"status":{"status_list":{"idx":0,"uri":"https://l/1"}}}"#), list("https://l/1", 0));
        assert_eq!(standard(r#"{"status":{"status_list":{"idx":7,"uri":"u","x":1},"y":2}}"#), list("u", 7));
        for missing in ["{}", r#"{"status":{}}"#, r#"{"status":{"other":1}}"#, r#"{"status_list":5}"#] {
            assert_eq!(standard(missing), StatusKept::Missing, "{missing}");
        }
        for bad in [
            r#"{"status":"active"}"#,
            r#"{"status":null}"#,
            r#"{"status":[]}"#,
            r#"{"status":{"status_list":null}}"#,
            r#"{"status":{"status_list":"u"}}"#,
            r#"{"status":{"status_list":{"idx":1}}}"#,
            r#"{"status":{"status_list":{"uri":"u"}}}"#,
            r#"{"status":{"status_list":{"idx":-1,"uri":"u"}}}"#,
            r#"{"status":{"status_list":{"idx":1.5,"uri":"u"}}}"#,
            r#"{"status":{"status_list":{"idx":1.0,"uri":"u"}}}"#,
            r#"{"status":{"status_list":{"idx":"1","uri":"u"}}}"#,
            r#"{"status":{"status_list":{"idx":18446744073709551616,"uri":"u"}}}"#,
            r#"{"status":{"status_list":{"idx":1,"uri":""}}}"#,
            r#"{"status":{"status_list":{"idx":1,"uri":5}}}"#,
            r#"{"status":{"status_list":{"idx":1,"idx":2,"uri":"u"}}}"#,
            r#"{"status":{"status_list":{"idx":1,"uri":"u"},"status_list":{"idx":2,"uri":"u"}}}"#,
        ] {
            assert_eq!(standard(bad), StatusKept::Malformed, "{bad}");
        }
    }

    #[test]
    fn janssen_puts_it_beside_the_other_claims() {
        let beside = |json: &str| read(json, StatusPlace::TopLevel);
        let list = StatusKept::List("u".into(), 1);
        assert_eq!(beside(r#"{"status_list":{"idx":1,"uri":"u"}}"#), list);
        assert_eq!(beside(r#"{"status":{"status_list":{"idx":1,"uri":"u"}}}"#), list);
        let both = r#"{"status_list":{"idx":1,"uri":"u"},"status":{"status_list":{"idx":1,"uri":"u"}}}"#;
        assert_eq!(beside(both), list);
        assert_eq!(beside(&both.replacen("\"idx\":1", "\"idx\":2", 1)), StatusKept::Malformed);
        assert_eq!(beside(r#"{"status_list":5}"#), StatusKept::Malformed);
        assert_eq!(read(r#"{"status_list":{"idx":1,"uri":"u"}}"#, StatusPlace::Standard), StatusKept::Missing);
    }
}
