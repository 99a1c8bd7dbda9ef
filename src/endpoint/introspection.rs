use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{self, HeaderMap},
    request::Parts,
};
use http_body::Body;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    Answer, AuthMethod, Client, ClientAuthenticator,
    form::Form,
    intake::{Context, Intake, intake_settings},
    plan::{Intent, Plan, Reach, Refused},
    refusal::Refusal,
};
#[cfg(feature = "jwt")]
use crate::token::SigningKey;
use crate::{
    denylist::Verdict,
    recorder::Recorder,
    token::{Claims, CompactJws, Identity, MAX_TOKEN, Members, VerifiedClaims as _, Verifier, VerifyError},
};

/// The introspection endpoint (RFC 7662). It answers by itself; the service behind is not asked.
///
/// - Callers are confidential clients. A caller that authenticates itself with an access token needs
///   [`IntrospectionEndpoint::scope`] to be set, and that scope.
/// - A token that is revoked, expired, unknown, malformed, or of an issuer that the caller has no say over is answered
///   with exactly `{"active":false}`.
/// - One that would pass is answered with `active` and what it says: all claims of a JWT; of an opaque token, what the
///   [`Recorder`] knows.
/// - Where this node cannot tell whether a token is revoked, the answer is 503 with `Retry-After`.
/// - No cache may keep an answer.
///
/// `token_type_hint` is ignored, as RFC 7662 §2.1 allows: whatever a token is, it is found.
#[must_use]
pub struct IntrospectionEndpoint {
    intake: Intake,
    verifier: Arc<dyn Verifier>,
    scope: Option<String>,
    recorder: Option<Recorder>,
    /// Who signs, and with what.
    #[cfg(feature = "jwt")]
    signed: Option<(String, Arc<SigningKey>)>,
}

/// The type of signed answers, as `typ` and as media type (RFC 9701 §5).
#[cfg(feature = "jwt")]
const SIGNED: &str = "token-introspection+jwt";
pub(super) const SIGNED_MEDIA: &str = "application/token-introspection+jwt";

impl IntrospectionEndpoint {
    /// The endpoint for tokens that `verifier` vouches for and clients that `clients` knows.
    pub fn new(verifier: impl Verifier, clients: impl ClientAuthenticator) -> Self {
        Self {
            intake: Intake::new(clients),
            verifier: Arc::new(verifier),
            scope: None,
            recorder: None,
            #[cfg(feature = "jwt")]
            signed: None,
        }
    }

    intake_settings!();

    /// The scope that callers need: by their registration, or by the access token that authenticates them. Default: none,
    /// and no access token will do.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Answers for the opaque access tokens that this recorder has seen issued too.
    pub fn recorder(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Signs answers in the name of `issuer` for those who ask for `application/token-introspection+jwt` (RFC 9701);
    /// `aud` is the caller.
    #[cfg(feature = "jwt")]
    pub fn signed(mut self, issuer: impl Into<String>, key: SigningKey) -> Self {
        self.signed = Some((issuer.into(), Arc::new(key)));
        self
    }

    /// The algorithms of signed answers, for metadata.
    pub(super) fn signing_algs(&self) -> Vec<String> {
        #[cfg(feature = "jwt")]
        return self.signed.iter().map(|(_, key)| key.alg().as_str().to_owned()).collect();
        #[cfg(not(feature = "jwt"))]
        Vec::new()
    }

    pub(super) async fn plan<B: Body>(&self, context: &Context<'_>, head: &Parts, body: B) -> Result<Plan, Refused> {
        let (client, form, body) = self.intake.form(context, head, body).await?;
        match self.answer(context, &client, &form, &head.headers).await {
            Ok(success) => Ok(Plan { client, intent: Intent::Told, success, reach: Reach::default(), body }),
            Err(refusal) => Err(Refused::of(client, refusal)),
        }
    }

    async fn answer(
        &self,
        context: &Context<'_>,
        client: &Client,
        form: &Form,
        headers: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        let bearer = client.method() == Some(AuthMethod::Bearer);
        match &self.scope {
            Some(scope) if !client.has_scope(scope) => return Err(Refusal::NoScope { bearer }),
            None if bearer => return Err(Refusal::Scope),
            _ => {}
        }
        if !client.is_confidential() {
            return Err(Refusal::PublicClient);
        }
        context.check_on()?;
        let token = form.get("token").ok_or(Refusal::NoToken)?;
        let json = match self.active(context, client, token).await? {
            Some(json) => json,
            None => INACTIVE.to_vec(),
        };
        #[cfg(feature = "jwt")]
        if let Some((issuer, key)) = self.signed.as_ref().filter(|_| asks_for_signed(headers)) {
            return sign(issuer, key, client.id(), context.revocations.denylist().now().unix(), &json);
        }
        #[cfg(not(feature = "jwt"))]
        let _ = headers;
        Ok(json_answer(json))
    }

    /// What there is to tell of a token that would pass; `None` of all others.
    async fn active(&self, context: &Context<'_>, client: &Client, token: &str) -> Result<Option<Vec<u8>>, Refusal> {
        if token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let denylist = context.revocations.denylist();
        let (identity, json) = match self.verifier.verify(token, denylist.now().unix()) {
            Ok(identity) => {
                let json = tell(&identity, Some(token));
                (identity, json)
            }
            Err(VerifyError::KeyNotAvailable) => return Err(Refusal::CannotTell),
            Err(_) => match self.recorded(token).await? {
                Some(identity) => {
                    let json = tell(&identity, None);
                    (identity, json)
                }
                None => return Ok(None),
            },
        };
        // Asked of foreign ones too, so that it takes as long.
        match denylist.check_or_ask(&identity).await {
            _ if !client.has_issuer(identity.iss()) => Ok(None),
            Verdict::Allow => Ok(json),
            Verdict::Deny(_) => Ok(None),
            Verdict::Unknown(_) => Err(Refusal::CannotTell),
        }
    }

    /// An access token that was seen issued. One that is no JWT of a known issuer, since that would have been verified.
    async fn recorded(&self, token: &str) -> Result<Option<Identity>, Refusal> {
        let Some(recorder) = self.recorder.as_ref().filter(|_| !CompactJws::looks_like(token)) else { return Ok(None) };
        let usable = recorder.usable(token).await.map_err(|_| Refusal::CannotTell)?;
        Ok(usable.map(|(grant, member)| {
            let says = member.says;
            let (sub, sid) = (says.sub.or(grant.sub), says.sid.or(grant.sid));
            let client_id = says.client_id.or(grant.client_id);
            let claims = Claims {
                sub: sub.as_deref(),
                sid: sid.as_deref(),
                client_id: client_id.as_deref(),
                // Of a grant that was refreshed, an earlier moment than that of the token: cutoffs reach further.
                iat: Some(says.iat.unwrap_or(grant.began)),
                exp: Some(member.expires),
                ..Claims::new(&grant.iss)
            };
            Identity::from_verified(&claims)
        }))
    }
}

/// What a token that is not active is answered with.
pub(super) const INACTIVE: &[u8] = br#"{"active":false}"#;

pub(super) fn json_answer(json: impl Into<Bytes>) -> Answer {
    Answer::new(StatusCode::OK, json.into()).with(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
}

/// The answer about an active token (RFC 7662 §2.2): all that a JWT says, and under the standard's names what its issuer
/// says under others.
fn tell(identity: &Identity, jwt: Option<&str>) -> Option<Vec<u8>> {
    let jws = jwt.and_then(|token| CompactJws::parse(token).ok());
    let members = match &jws {
        Some(jws) => Members::parse(&jws.payload).ok()?,
        None => Members::default(),
    };
    serde_json::to_vec(&Active { members: &members, claims: identity.claims() }).ok()
}

struct Active<'a, 'm> {
    members: &'a Members<'m>,
    claims: Claims<'a>,
}

impl Serialize for Active<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { members, claims } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("active", &true)?;
        for (name, value) in members.iter().filter(|(name, _)| *name != "active") {
            map.serialize_entry(name, &value)?;
        }
        let texts = [
            ("iss", Some(claims.iss).filter(|iss| !iss.is_empty())),
            ("sub", claims.sub),
            ("client_id", claims.client_id),
            ("scope", claims.scope),
            ("jti", claims.jti),
            ("sid", claims.sid),
        ];
        for (name, value) in texts.into_iter().filter(|(name, _)| members.raw(name).is_none()) {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        for (name, value) in [("iat", claims.iat), ("exp", claims.exp)] {
            if let Some(value) = value.filter(|_| members.raw(name).is_none()) {
                map.serialize_entry(name, &value)?;
            }
        }
        map.end()
    }
}

/// Whether the caller names the signed form among what it accepts.
#[cfg(feature = "jwt")]
fn asks_for_signed(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = values.flat_map(|value| value.split(','));
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(SIGNED_MEDIA));
        // `q=0`: it is what the caller does not want (RFC 9110 §12.4.2).
        media
            && !parts.any(|part| {
                part.strip_prefix(['q', 'Q']).is_some_and(|q| q.trim_matches(['=', '0', '.', ' ']).is_empty())
            })
    })
}

#[cfg(feature = "jwt")]
fn sign(issuer: &str, key: &SigningKey, caller: &str, now: u64, json: &[u8]) -> Result<Answer, Refusal> {
    #[derive(Serialize)]
    struct Signed<'a> {
        iss: &'a str,
        aud: &'a str,
        iat: u64,
        token_introspection: &'a serde_json::value::RawValue,
    }
    let told = serde_json::from_slice(json).map_err(|_| Refusal::CannotTell)?;
    let claims = Signed { iss: issuer, aud: caller, iat: now, token_introspection: told };
    let claims = serde_json::to_vec(&claims).map_err(|_| Refusal::CannotTell)?;
    let jwt = key.sign(SIGNED, &claims).map_err(|_| Refusal::CannotTell)?;
    Ok(Answer::new(StatusCode::OK, jwt.into()).with(header::CONTENT_TYPE, HeaderValue::from_static(SIGNED_MEDIA)))
}

impl fmt::Debug for IntrospectionEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntrospectionEndpoint")
            .field("intake", &self.intake)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
