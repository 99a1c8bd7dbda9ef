//! Whom an event is about: RFC 9493 identifiers, and what OpenID Shared Signals adds to them.

use std::borrow::Cow;

use crate::{
    endpoint::{signal::Fault, subject::SubjectId},
    token::{Members, Raw},
};

/// Whom an event is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// A user, by any simple identifier or by aliases (RFC 9493 §3.2).
    User(SubjectId),
    /// One JWT (SSF 1.0 §3.5.1, `jwt_id`).
    Token {
        /// `iss`
        iss: String,
        /// `jti`
        jti: String,
    },
    /// What all of these have in common (SSF 1.0 §3.3, `complex`); at least one is there.
    Complex {
        /// `user`
        user: Option<SubjectId>,
        /// `session`
        session: Option<Named>,
        /// `application`
        application: Option<Named>,
    },
}

/// A name, and whose it is where that is said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) iss: Option<String>,
    pub(super) id: String,
}

impl Subject {
    /// Reads a subject. What narrows it in ways that no scope stands for (device, tenant, group …) is left out, so that
    /// more ends rather than less; a subject of nothing else is not supported.
    pub(super) fn parse(json: Raw<'_>) -> Result<Self, Fault> {
        let members = Members::parse(json.get().as_bytes()).map_err(|_| Fault::Subject)?;
        let format = members.string("format").map_err(|_| Fault::Subject)?;
        match format.as_deref() {
            Some("complex") => Self::complex(&members),
            Some("jwt_id") => {
                if !members.are_only(&["format", "iss", "jti"]) {
                    return Err(Fault::Subject);
                }
                Ok(Self::Token { iss: text(&members, "iss")?, jti: text(&members, "jti")? })
            }
            Some("saml_assertion_id" | "ip-addresses") => Err(Fault::SubjectKind),
            Some(_) => user(json).map(Self::User),
            None => legacy(&members),
        }
    }

    fn complex(members: &Members<'_>) -> Result<Self, Fault> {
        // Members whose names are not known yet are subjects too.
        for (name, value) in members.iter().filter(|(name, _)| *name != "format") {
            let inner = Members::parse(value.get().as_bytes()).map_err(|_| Fault::Subject)?;
            let format = inner.string("format").map_err(|_| Fault::Subject)?.ok_or(Fault::Subject)?;
            if name == "format" || matches!(&*format, "complex") {
                return Err(Fault::Subject);
            }
        }
        let user = members.raw("user").map(user).transpose()?;
        let session = members.raw("session").map(named).transpose()?;
        let application = match members.raw("application").map(named).transpose() {
            // It only narrows what there is.
            Err(Fault::SubjectKind) if user.is_some() || session.is_some() => None,
            application => application?,
        };
        if user.is_none() && session.is_none() && application.is_none() {
            return Err(Fault::SubjectKind);
        }
        Ok(Self::Complex { user, session, application })
    }
}

fn user(json: Raw<'_>) -> Result<SubjectId, Fault> {
    let members = Members::parse(json.get().as_bytes()).map_err(|_| Fault::Subject)?;
    const KNOWN: [&str; 8] = ["account", "email", "iss_sub", "opaque", "phone_number", "did", "uri", "aliases"];
    match members.string("format").map_err(|_| Fault::Subject)? {
        Some(format) if KNOWN.contains(&&*format) => {
            SubjectId::parse(serde_json::from_str(json.get()).map_err(|_| Fault::Subject)?, false)
                .map_err(|_| Fault::Subject)
        }
        Some(_) => Err(Fault::SubjectKind),
        None => Err(Fault::Subject),
    }
}

/// A session or an application by its own name.
fn named(json: Raw<'_>) -> Result<Named, Fault> {
    match user(json)? {
        SubjectId::IssSub { iss, sub } => Ok(Named { iss: Some(iss), id: sub }),
        SubjectId::Attribute { name, value } if name == "opaque" => Ok(Named { iss: None, id: value }),
        SubjectId::Attribute { .. } | SubjectId::Aliases(_) => Err(Fault::SubjectKind),
    }
}

/// As drafts before RFC 9493 had it, and Google still does: `subject_type`, with hyphens in its values.
fn legacy(members: &Members<'_>) -> Result<Subject, Fault> {
    let kind = members.string("subject_type").map_err(|_| Fault::Subject)?.ok_or(Fault::Subject)?;
    let only = |names: &[&str]| if members.are_only(names) { Ok(()) } else { Err(Fault::Subject) };
    match &*kind {
        "iss-sub" | "iss_sub" | "id_token_claims" | "id-token-claims" => {
            // Google may tell the address too; `sub` decides.
            only(&["subject_type", "iss", "sub", "email"])?;
            Ok(Subject::User(SubjectId::IssSub { iss: text(members, "iss")?, sub: text(members, "sub")? }))
        }
        "email" => {
            only(&["subject_type", "email"])?;
            Ok(Subject::User(SubjectId::Attribute { name: "email".to_owned(), value: text(members, "email")? }))
        }
        _ => Err(Fault::SubjectKind),
    }
}

fn text(members: &Members<'_>, name: &str) -> Result<String, Fault> {
    let text = members.string(name).map_err(|_| Fault::Subject)?.ok_or(Fault::Subject)?;
    if text.chars().any(char::is_control) { Err(Fault::Subject) } else { Ok(Cow::into_owned(text)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(json: &str) -> Result<Subject, Fault> {
        let object = format!("{{\"s\":{json}}}");
        Subject::parse(Members::parse(object.as_bytes()).unwrap().raw("s").unwrap())
    }

    #[test]
    fn subjects_of_shared_signals() {
        let sid = || Some(Named { iss: None, id: "s".to_owned() });
        let user = || Some(SubjectId::IssSub { iss: "i".to_owned(), sub: "u".to_owned() });
        let iss_sub = r#"{"format":"iss_sub","iss":"i","sub":"u"}"#;
        assert_eq!(parse(iss_sub), Ok(Subject::User(user().unwrap())));
        assert_eq!(
            parse(r#"{"format":"jwt_id","iss":"i","jti":"j"}"#),
            Ok(Subject::Token { iss: "i".to_owned(), jti: "j".to_owned() })
        );
        assert_eq!(
            parse(&format!(
                r#"{{"format":"complex","user":{iss_sub},"session":{{"format":"opaque","id":"s"}},"tenant":{{"format":"opaque","id":"t"}}}}"#
            )),
            Ok(Subject::Complex { user: user(), session: sid(), application: None })
        );
        assert_eq!(parse(r#"{"subject_type":"iss-sub","iss":"i","sub":"u"}"#), Ok(Subject::User(user().unwrap())));
        for (bad, fault) in [
            (r#"{"format":"complex"}"#, Fault::SubjectKind),
            (r#"{"format":"complex","tenant":{"format":"opaque","id":"t"}}"#, Fault::SubjectKind),
            (r#"{"format":"complex","user":"u"}"#, Fault::Subject),
            (r#"{"format":"complex","user":{"format":"opaque"}}"#, Fault::Subject),
            (
                r#"{"format":"complex","device":{"format":"complex"},"user":{"format":"opaque","id":"u"}}"#,
                Fault::Subject,
            ),
            (r#"{"format":"complex","session":{"format":"email","email":"a@b"}}"#, Fault::SubjectKind),
            (r#"{"format":"jwt_id","iss":"i"}"#, Fault::Subject),
            (r#"{"format":"jwt_id","iss":"i","jti":"j","x":1}"#, Fault::Subject),
            (r#"{"format":"jwt_id","iss":"i","jti":""}"#, Fault::Subject),
            (r#"{"format":"saml_assertion_id","issuer":"i","assertion_id":"a"}"#, Fault::SubjectKind),
            (r#"{"format":"ip-addresses","ip-addresses":["192.0.2.1"]}"#, Fault::SubjectKind),
            (r#"{"format":"new","id":"1"}"#, Fault::SubjectKind),
            (r#"{"format":"opaque","id":"1","id":"2"}"#, Fault::Subject),
            (r#"{"format":7}"#, Fault::Subject),
            ("[]", Fault::Subject),
            ("{}", Fault::Subject),
        ] {
            assert_eq!(parse(bad), Err(fault), "{bad}");
        }
    }
}
