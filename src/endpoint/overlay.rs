//! The introspection endpoint of the service behind, with the denylist heard.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use tower_service::Service;
use zeroize::Zeroizing;

use super::{
    Answer, EndpointError, body, coding,
    form::{self, FORM, Form},
    front::Front,
    introspection::{INACTIVE, SIGNED_MEDIA, json_answer},
    metadata::is_json,
    refusal::Refusal,
    route::{Route, Routes},
};
use crate::{
    Revocations,
    denylist::{Reason, Verdict},
    token::{ClaimNames, Claims, CompactJws, Identity, Members, OpaqueKeys},
};

const MAX_REQUEST: usize = 64 << 10;
const MAX_ANSWER: usize = 1 << 20;
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Turns an active answer of the introspection endpoint behind (RFC 7662) into `{"active":false}` where the token is
/// revoked here: see [`FrontLayer::introspection`](super::FrontLayer::introspection).
///
/// The token counts by what the answer says of it, by what it says itself where it is a JWT, and by its digest.
///
/// - The server behind authenticates the caller. All its answers but active ones pass as they are.
/// - An active answer about a token that the doors here would refuse for its times is inactive too.
/// - An answer with 200 that is neither JSON nor a signed one, or cannot be read in one way only, is answered with 502.
/// - A signed answer (RFC 9701) about a revoked token is answered with the plain `{"active":false}`: this layer has no
///   key of the server's. Who insists on a signature takes it for no answer, and refuses the token too.
/// - Where this node cannot tell, the answer is 503.
#[derive(Clone)]
#[must_use]
pub struct IntrospectionOverlay {
    pub(super) routes: Routes<()>,
    issuer: String,
    digests: Option<OpaqueKeys>,
    names: ClaimNames,
}

impl IntrospectionOverlay {
    /// For the endpoint at this path; answers without `iss` are about tokens of `issuer`.
    ///
    /// # Errors
    ///
    /// Where the path could be written in another way.
    pub fn new(path: &str, issuer: impl Into<String>) -> Result<Self, EndpointError> {
        let mut routes = Routes::default();
        routes.set((), Some(Route::new(path)?));
        Ok(Self { routes, issuer: issuer.into(), digests: None, names: ClaimNames::default() })
    }

    /// Finds opaque tokens by what token revocation keeps them by: give it the same keys.
    pub fn opaque(mut self, keys: OpaqueKeys) -> Self {
        self.digests = Some(keys);
        self
    }

    /// Under which names answers and tokens have what revocation needs. Default: those of the standards.
    pub fn claim_names(mut self, names: ClaimNames) -> Self {
        self.names = names;
        self
    }

    /// Whether an answer is an active one about a token that is to be refused here.
    async fn judge(
        &self,
        revocations: &Revocations,
        headers: &header::HeaderMap,
        body: &[u8],
        token: &str,
    ) -> Result<bool, Unreadable> {
        let plain = coding::decode(headers, body, MAX_ANSWER).map_err(|_| Unreadable::Answer)?;
        let signed = if is_json(headers) {
            None
        } else {
            let jwt = is_signed(headers).then(|| str::from_utf8(&plain).ok()).flatten().ok_or(Unreadable::Answer)?;
            Some(CompactJws::parse(jwt.trim()).map_err(|_| Unreadable::Answer)?)
        };
        let outer = signed.as_ref().map(|jws| Members::parse(&jws.payload)).transpose();
        let outer = outer.map_err(|_| Unreadable::Answer)?;
        let answer = match &outer {
            None => &*plain,
            Some(outer) => outer.raw("token_introspection").ok_or(Unreadable::Answer)?.get().as_bytes(),
        };
        let answer = Members::parse(answer).map_err(|_| Unreadable::Answer)?;
        match answer.raw("active").map(|active| active.get()) {
            Some("false") => Ok(false),
            Some("true") => self.refuses(revocations, &answer, token).await,
            _ => Err(Unreadable::Answer),
        }
    }

    /// Whether the token of an active answer is to be refused here; `Err` where nobody can tell.
    async fn refuses(&self, revocations: &Revocations, answer: &Members<'_>, token: &str) -> Result<bool, Unreadable> {
        let told = answer.claims(&self.names).map_err(|_| Unreadable::Answer)?;
        let iss = answer.string("iss").map_err(|_| Unreadable::Answer)?;
        let digests: Vec<_> = self.digests.iter().flat_map(|keys| keys.digests(token.as_bytes())).collect();
        let jws = CompactJws::parse(token).ok();
        let claims = told.as_claims(iss.as_deref().unwrap_or(&self.issuer), b"");
        let claims = Claims {
            signing_input: None,
            // Without a time of its own it is as an opaque one.
            opaque: if jws.is_none() { digests.first() } else { None },
            ..claims
        };
        let mut identities = vec![Identity::from_verified(&claims)];
        identities.extend(digests.iter().map(|digest| Identity::from_verified(&Claims::default().opaque(digest))));
        if let Some(jws) = &jws {
            // The server behind vouches for it. What it says in a way that cannot be read, nothing goes by.
            let payload = Members::parse(&jws.payload).map_err(|_| Unreadable::Answer)?;
            let own = payload.claims(&self.names).map_err(|_| Unreadable::Answer)?;
            let iss = payload.string("iss").map_err(|_| Unreadable::Answer)?;
            let iss = iss.as_deref().unwrap_or(&self.issuer);
            identities.push(Identity::from_verified(&own.as_claims(iss, jws.signing_input)));
        }
        for identity in &identities {
            match revocations.denylist().check_or_ask(identity).await {
                Verdict::Allow => {}
                // What the answer leaves out, the token itself may say.
                Verdict::Deny(Reason::OutOfBounds(_)) if jws.is_some() && identity.exp().is_none() => {}
                Verdict::Deny(_) => return Ok(true),
                Verdict::Unknown(_) => return Err(Unreadable::Unknown),
            }
        }
        Ok(false)
    }
}

enum Unreadable {
    Answer,
    Unknown,
}

/// Passes a question on, and its answer back unless the token is revoked here.
pub(super) async fn run<S, ReqBody, ResBody>(
    front: Arc<Front>,
    request: Request<ReqBody>,
    mut inner: S,
) -> Result<Response<ResBody>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ReqBody: Body + From<Bytes>,
    ResBody: Body + From<Bytes>,
{
    let Some(overlay) = &front.overlay else { return inner.call(request).await };
    if request.method() == Method::OPTIONS {
        return inner.call(request).await;
    }
    let (mut head, body) = request.into_parts();
    let (token, body) = match asked(&head, body).await {
        Ok(asked) => asked,
        Err(refusal) => return Ok(front.endpoints.turn_away(refusal).into_response()),
    };
    coding::accept_readable(&mut head.headers);
    let response = inner.call(Request::from_parts(head, Bytes::from_owner(body).into())).await?;
    if !response.status().is_success() {
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let Ok(theirs) = body::read(body, MAX_ANSWER, READ_TIMEOUT).await else { return Ok(unreadable().into_response()) };
    match overlay.judge(&front.endpoints.revocations, &head.headers, &theirs, &token).await {
        Ok(false) => {}
        Ok(true) => return Ok(json_answer(INACTIVE).into_response()),
        Err(Unreadable::Answer) => return Ok(unreadable().into_response()),
        Err(Unreadable::Unknown) => return Ok(front.endpoints.turn_away(Refusal::CannotTell).into_response()),
    }
    // The body has a length now.
    head.headers.remove(header::TRANSFER_ENCODING);
    Ok(Response::from_parts(head, Bytes::from_owner(theirs).into()))
}

/// The token that is asked about, and the body as it came.
async fn asked<B: Body>(head: &Parts, body: B) -> Result<(Zeroizing<String>, Zeroizing<Vec<u8>>), Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::Method);
    }
    if head.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(Refusal::Query);
    }
    form::check_head(&head.headers, FORM)?;
    let body = body::read(body, MAX_REQUEST, READ_TIMEOUT).await?;
    let form = Form::parse(&body)?;
    let token = Zeroizing::new(form.get("token").ok_or(Refusal::NoToken)?.to_owned());
    Ok((token, body))
}

fn is_signed(headers: &header::HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(one), None) = (types.next(), types.next()) else { return false };
    let media = one.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    media.eq_ignore_ascii_case(SIGNED_MEDIA.as_bytes())
}

fn unreadable() -> Answer {
    #[cfg(feature = "tracing")]
    tracing::error!("the introspection endpoint behind answered in a way that cannot be read");
    Answer::error(StatusCode::BAD_GATEWAY, "server_error", "The answer of the server cannot be read")
}

impl fmt::Debug for IntrospectionOverlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntrospectionOverlay")
            .field("routes", &self.routes)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}
