//! The token endpoint of the service behind, with the recorder listening.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode,
    header::{self, HeaderMap},
    request::Parts,
};
use http_body::Body;
use tower_service::Service;
use zeroize::Zeroizing;

use super::{
    Answer, body, coding,
    form::{self, FORM, Form},
    forward::finish,
    front::{Front, Observed},
    metadata::is_json,
    refusal::{RETRY_AFTER, Refusal},
};
use crate::{
    recorder::{Denied, Grant, Member},
    token::{CompactJws, Members},
};

const MAX_REQUEST: usize = 64 << 10;
const MAX_ANSWER: usize = 1 << 20;
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of a token request before the service behind sees it.
struct Asked {
    client: Option<String>,
    presented: Option<(Grant, Member)>,
    body: Zeroizing<Vec<u8>>,
}

/// Passes a token request on unless it presents what was revoked; releases the answer once it is recorded.
pub(super) async fn run<S, ReqBody, ResBody>(
    front: Arc<Front>,
    request: Request<ReqBody>,
    mut inner: S,
) -> Result<Response<ResBody>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    ReqBody: Body + From<Bytes> + Send + 'static,
    ReqBody::Data: Send,
    ResBody: Body + From<Bytes> + Send + 'static,
    ResBody::Data: Send,
{
    let Some(observed) = front.recorder.clone() else { return inner.call(request).await };
    // A browser's preflight carries nothing.
    if request.method() == Method::OPTIONS {
        return inner.call(request).await;
    }
    let (mut head, body) = request.into_parts();
    let asked = match observed.ask(&front, &head, body).await {
        Ok(asked) => asked,
        Err(answer) => return Ok(answer.into_response()),
    };
    coding::accept_readable(&mut head.headers);
    finish(front, async move {
        let Asked { client, presented, body } = asked;
        let since = observed.recorder.now();
        let response = inner.call(Request::from_parts(head, Bytes::from_owner(body).into())).await?;
        Ok(observed.hear(response, client, presented, since).await)
    })
    .await
}

impl Observed {
    async fn ask<B: Body>(&self, front: &Front, head: &Parts, body: B) -> Result<Asked, Answer> {
        let refused = |refusal: Refusal| {
            #[cfg(feature = "tracing")]
            tracing::info!(outcome = refusal.as_str(), "token request");
            front.endpoints.turn_away(refusal)
        };
        if head.method != Method::POST {
            return Err(refused(Refusal::Method));
        }
        if head.uri.query().is_some_and(|query| !query.is_empty()) {
            return Err(refused(Refusal::Query));
        }
        form::check_head(&head.headers, FORM).map_err(refused)?;
        let body = body::read(body, MAX_REQUEST, READ_TIMEOUT).await.map_err(refused)?;
        let form = Form::parse(&body).map_err(refused)?;
        let client = client_of(&head.headers, &form).map_err(refused)?;
        // Other grants that present a token (RFC 8693, RFC 7521): a revoked one buys nothing.
        for name in ["subject_token", "actor_token", "assertion"] {
            if let Some(token) = form.get(name) {
                self.recorder.refuse_dead(token).await.map_err(denied)?;
            }
        }
        let refresh_token = form.get("refresh_token").filter(|_| form.get("grant_type") == Some("refresh_token"));
        let presented = match refresh_token {
            Some(token) => self.recorder.admit(token, client.as_deref()).await.map_err(denied)?,
            None => None,
        };
        Ok(Asked { client, presented, body })
    }

    async fn hear<B>(
        &self,
        response: Response<B>,
        client: Option<String>,
        presented: Option<(Grant, Member)>,
        since: u64,
    ) -> Response<B>
    where
        B: Body + From<Bytes>,
    {
        if !response.status().is_success() {
            return response;
        }
        if !is_json(response.headers()) {
            #[cfg(feature = "tracing")]
            tracing::error!("the token endpoint behind answered with something else than application/json");
            return denied(Denied::Unreadable).into_response();
        }
        let (mut head, body) = response.into_parts();
        let Ok(body) = body::read(body, MAX_ANSWER, READ_TIMEOUT).await else {
            return denied(Denied::Unreadable).into_response();
        };
        let Ok(plain) = coding::decode(&head.headers, &body, MAX_ANSWER) else {
            #[cfg(feature = "tracing")]
            tracing::error!("the token endpoint behind answered in a coding that cannot be read");
            return denied(Denied::Unreadable).into_response();
        };
        if let Err(why) = self.recorder.learn(presented, client.as_deref(), &plain, since).await {
            return denied(why).into_response();
        }
        drop(plain);
        // The body has a length now.
        head.headers.remove(header::TRANSFER_ENCODING);
        Response::from_parts(head, Bytes::from_owner(body).into())
    }
}

/// Whether the one `Authorization` there is authenticates a client by its secret.
pub(super) fn is_basic(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (values.next(), values.next()) else { return false };
    let value = one.as_bytes().trim_ascii_start();
    let scheme = value.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"));
    scheme && value.get(5).is_some_and(u8::is_ascii_whitespace) && !value.contains(&b',')
}

/// Who the client says it is. The service behind decides whether that is so.
fn client_of(headers: &HeaderMap, form: &Form) -> Result<Option<String>, Refusal> {
    let basic = || {
        let (scheme, credentials) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let credentials = credentials.trim().as_bytes();
        let pair = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(credentials).ok())??;
        let pair = Zeroizing::new(pair);
        let id = pair.split(|byte| *byte == b':').next()?;
        form::decode(id).map(|id| id.as_str().to_owned())
    };
    let assertion = || {
        let jws = CompactJws::parse(form.get("client_assertion")?).ok()?;
        Members::parse(&jws.payload).ok()?.string("sub").ok()?.map(|sub| sub.into_owned())
    };
    // Whoever is named twice must be one: the service behind may believe the other one.
    let mut named = [form.get("client_id").map(str::to_owned), basic(), assertion()].into_iter().flatten();
    let client = named.next();
    if named.any(|other| Some(&other) != client.as_ref()) { Err(Refusal::SeveralClients) } else { Ok(client) }
}

/// The answer in place of the service's own (RFC 6749 §5.2).
fn denied(why: Denied) -> Answer {
    #[cfg(feature = "tracing")]
    tracing::info!(outcome = ?why, "token request");
    match why {
        Denied::InvalidGrant | Denied::Replayed => {
            Answer::error(StatusCode::BAD_REQUEST, "invalid_grant", "The refresh token is invalid, expired or revoked")
        }
        Denied::ReplayedInvalidRequest => {
            Answer::error(StatusCode::BAD_REQUEST, "invalid_request", "The refresh token was used before")
        }
        Denied::Unreadable => {
            Answer::error(StatusCode::BAD_GATEWAY, "server_error", "The answer of the server cannot be read")
        }
        Denied::NotRecorded => {
            let text = "The tokens were not recorded; try again";
            Answer::error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text)
                .with(header::RETRY_AFTER, RETRY_AFTER)
        }
    }
}
