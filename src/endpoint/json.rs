//! What the global endpoint is asked, from JSON.

use super::{refusal::Refusal, subject::SubjectId};
use crate::token::Members;

pub(super) const JSON: &str = "application/json";

/// The subject of `{"sub_id": {...}}` (draft-parecki-oauth-global-token-revocation §3), or of `subject`, as it was
/// called until the draft's version 02. Nothing else may stand there; where both do, they must agree.
pub(super) fn subject(body: &[u8], attributes: bool) -> Result<SubjectId, Refusal> {
    let members = Members::parse(body).map_err(|_| Refusal::Json)?;
    if !members.are_only(&["sub_id", "subject"]) {
        return Err(Refusal::Json);
    }
    let parse = |name| members.get(name)?.map(|raw| SubjectId::parse(raw, attributes)).transpose();
    match (parse("sub_id")?, parse("subject")?) {
        (Some(one), Some(other)) if one != other => Err(Refusal::TwoSubjects),
        (Some(subject), _) | (None, Some(subject)) => Ok(subject),
        (None, None) => Err(Refusal::NoSubject),
    }
}
