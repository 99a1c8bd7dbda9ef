//! Security event tokens (RFC 8417), as OpenID Shared Signals profiles them.

use super::subject::Subject;
use crate::{
    endpoint::signal::Fault,
    token::{Members, Payload, Raw},
};

/// The one event of a SET.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) jti: String,
    pub(super) event: Event,
    /// When it happened, as the sender has it (Unix seconds).
    pub(super) at: u64,
    /// Whom it is about. Events that nothing is done about may have subjects of any kind.
    pub(super) subject: Result<Subject, Fault>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// CAEP.
    SessionRevoked,
    /// CAEP.
    CredentialChange,
    /// CAEP.
    TokenClaimsChange,
    /// RISC.
    AccountDisabled,
    /// RISC.
    AccountEnabled,
    /// RISC.
    AccountPurged,
    /// RISC.
    CredentialCompromise,
    /// RISC, deprecated.
    SessionsRevoked,
    /// SSF: whether anybody listens.
    Verification,
    /// SSF: the stream was paused, disabled or enabled.
    StreamUpdated,
    /// None of these.
    Unknown,
}

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

impl Event {
    /// All that are known, and what they are counted as.
    pub(super) const NAMES: [(Self, &'static str); 11] = [
        (Self::SessionRevoked, "session-revoked"),
        (Self::CredentialChange, "credential-change"),
        (Self::TokenClaimsChange, "token-claims-change"),
        (Self::AccountDisabled, "account-disabled"),
        (Self::AccountEnabled, "account-enabled"),
        (Self::AccountPurged, "account-purged"),
        (Self::CredentialCompromise, "credential-compromise"),
        (Self::SessionsRevoked, "sessions-revoked"),
        (Self::Verification, "verification"),
        (Self::StreamUpdated, "stream-updated"),
        (Self::Unknown, "unknown"),
    ];

    fn of(uri: &str) -> Self {
        let (family, name) = [CAEP, RISC, SSF]
            .into_iter()
            .find_map(|family| Some((family, uri.strip_prefix(family)?)))
            .unwrap_or(("", ""));
        match (family, name) {
            (CAEP, "session-revoked") => Self::SessionRevoked,
            (CAEP, "credential-change") => Self::CredentialChange,
            (CAEP, "token-claims-change") => Self::TokenClaimsChange,
            (RISC, "account-disabled") => Self::AccountDisabled,
            (RISC, "account-enabled") => Self::AccountEnabled,
            (RISC, "account-purged") => Self::AccountPurged,
            (RISC, "credential-compromise") => Self::CredentialCompromise,
            (RISC, "sessions-revoked") => Self::SessionsRevoked,
            // Drafts before SSF 1.0 had it among the RISC events.
            (SSF | RISC, "verification") => Self::Verification,
            (SSF, "stream-updated") => Self::StreamUpdated,
            _ => Self::Unknown,
        }
    }

    /// Its name in counts, logs and reasons.
    pub(super) fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(event, _)| *event == self).map_or("unknown", |(_, name)| name)
    }

    /// Whether something is done about it.
    const fn acts(self) -> bool {
        !matches!(self, Self::Verification | Self::StreamUpdated | Self::Unknown)
    }
}

impl Set {
    /// Reads the claims of a SET that has been verified.
    pub(super) fn read(payload: &Payload) -> Result<Self, Fault> {
        let claims = payload.members()?;
        // SSF 1.0 §4.1: a SET cannot be taken for another kind of token, nor the other way round.
        if claims.raw("sub").is_some() || claims.raw("exp").is_some() {
            return Err(Fault::Prohibited);
        }
        let jti = claims.string("jti")?.ok_or(Fault::Claim)?.into_owned();
        let iat = claims.time("iat")?.ok_or(Fault::Claim)?;
        let toe = claims.time("toe")?;
        let events = claims.raw("events").ok_or(Fault::Events)?;
        let events = Members::parse(events.get().as_bytes()).map_err(|_| Fault::Events)?;
        // Two could be about two subjects or times; in SSF there is one.
        let mut all = events.iter();
        let (Some((uri, event_json)), None) = (all.next(), all.next()) else { return Err(Fault::Events) };
        let inner = Members::parse(event_json.get().as_bytes()).map_err(|_| Fault::Events)?;
        let event = Event::of(uri);
        let at = inner.time("event_timestamp").map_err(|_| Fault::Events)?.or(toe).unwrap_or(iat);
        let subject = subject(claims.raw("sub_id"), inner.raw("subject"));
        if event.acts() {
            subject.as_ref().map_err(|fault| *fault)?;
        }
        Ok(Self { jti, event, at, subject })
    }
}

/// The subject, which drafts of CAEP and RISC had inside the event.
fn subject(sub_id: Option<Raw<'_>>, inside: Option<Raw<'_>>) -> Result<Subject, Fault> {
    match (sub_id.map(Subject::parse).transpose()?, inside.map(Subject::parse).transpose()?) {
        (Some(one), Some(other)) if one != other => Err(Fault::Subject),
        (Some(subject), _) | (None, Some(subject)) => Ok(subject),
        (None, None) => Err(Fault::Subject),
    }
}
