//! An endpoint that the service behind takes part in.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body::Body;
use tower_service::Service;

use super::{
    Answer, Client, EndpointName, Mode, Plan, Target,
    form::Form,
    front::{Front, Observed},
    refusal::Refusal,
    replay::Claimed,
};
use crate::{recorder::Grant, sync::Intended};

/// Answers a request to an endpoint by its mode.
pub(super) async fn run<S, ReqBody, ResBody>(
    front: Arc<Front>,
    target: Target,
    request: Request<ReqBody>,
    mut inner: S,
) -> Result<Response<ResBody>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    ReqBody: Body + From<Bytes> + Send + 'static,
    ReqBody::Data: Send,
    ResBody: From<Bytes> + Send + 'static,
{
    let (head, body) = request.into_parts();
    let mut planned = match front.plan(target, &head, body).await {
        Ok(planned) => planned,
        Err(refused) => return Ok(refused.into_response()),
    };
    let body = planned.plan.take_body();
    match front.mode(target) {
        Mode::Terminate => Ok(finished_alone(front, target, planned).await.into_response()),
        Mode::RecordThenForward => {
            finish(Arc::clone(&front), async move {
                let (client, claimed) = match front.record(target, planned).await {
                    Ok((_, client, claimed)) => (client, claimed),
                    Err(refused) => return Ok(refused.into_response()),
                };
                let answer = inner.call(Request::from_parts(head, body.into())).await?;
                // The request is done once it is answered behind: where it is to come again, it must be let in.
                let finished = front.endpoints.finish(target, Some(&client), claimed, answer.status()).await;
                Ok(finished.map_or_else(Answer::into_response, |()| answer))
            })
            .await
        }
        Mode::ForwardThenRecord => {
            finish(Arc::clone(&front), async move {
                if let Err(refused) = front.announce(target, &mut planned).await {
                    return Ok(refused.into_response());
                }
                let call = inner.call(Request::from_parts(head, body.into()));
                // Nobody knows what a server did that is cut off: what was announced stands, and is recorded later.
                let Ok(answer) = tokio::time::timeout(LONGEST_FORWARD, call).await else {
                    return Ok(front
                        .endpoints
                        .refuse(target, Some(&planned.plan.client), Refusal::NoAnswer)
                        .into_response());
                };
                let status = answer.as_ref().map_or(StatusCode::BAD_GATEWAY, Response::status);
                let finished = match status.is_success() {
                    true => front.record_all(target, planned).await.map(drop),
                    false => front.abandon(target, planned, status).await,
                };
                // The body of an answer that is not released is dropped unread.
                finished.map_or_else(|refused| Ok(refused.into_response()), |()| answer)
            })
            .await
        }
    }
}

/// How long the service behind may take where something is recorded after its answer. Half of the time after which
/// other nodes believe that this one went down.
const LONGEST_FORWARD: Duration = Duration::from_secs(30);

/// What a request comes to, what of it counts once, and the grants that the recorder knows its tokens by.
struct Planned {
    plan: Plan,
    claimed: Claimed,
    /// Where it was made durable already that this is about to be recorded.
    announced: Option<Intended>,
    grants: Vec<Grant>,
}

/// Runs a sequence to its end, also where nobody waits for it any more.
pub(super) async fn finish<B, E>(
    front: Arc<Front>,
    sequence: impl Future<Output = Result<Response<B>, E>> + Send + 'static,
) -> Result<Response<B>, E>
where
    B: From<Bytes> + Send + 'static,
    E: Send + 'static,
{
    // It fails where the service behind panicked, or the runtime shuts down: nothing is known then.
    let lost = |_| Ok(front.endpoints.turn_away(Refusal::NotRecorded).into_response());
    tokio::spawn(sequence).await.unwrap_or_else(lost)
}

/// Records to the end, also where nobody waits for it any more; the answer is this layer's own.
async fn finished_alone(front: Arc<Front>, target: Target, planned: Planned) -> Answer {
    let lost = front.endpoints.turn_away(Refusal::NotRecorded);
    let recorded =
        tokio::spawn(async move { front.record_all(target, planned).await.unwrap_or_else(|refused| refused) });
    recorded.await.unwrap_or(lost)
}

impl Front {
    /// What a request comes to. Where the recorder knows whose a token is, only that client may go on: also with one
    /// that says nothing, or that the verifier does not accept, such as a refresh token.
    async fn plan<B: Body>(&self, target: Target, head: &Parts, body: B) -> Result<Planned, Answer> {
        let (plan, claimed) = self.endpoints.plan(target, head, body).await?;
        let token = target == Target::Endpoint(EndpointName::Token);
        let Some(observed) = self.recorder.as_ref().filter(|_| token) else {
            return Ok(Planned { plan, claimed, announced: None, grants: Vec::new() });
        };
        match Self::grants(observed, &plan).await {
            Ok(grants) => Ok(Planned { plan, claimed, announced: None, grants }),
            Err(refusal) => {
                let answer = self.endpoints.refuse(target, Some(&plan.client), refusal);
                self.endpoints.finish(target, Some(&plan.client), claimed, answer.status()).await?;
                Err(answer)
            }
        }
    }

    /// The grants of the tokens of a request, all of them the client's own.
    async fn grants(observed: &Observed, plan: &Plan) -> Result<Vec<Grant>, Refusal> {
        let form = Form::parse(&plan.body)?;
        let mut grants = Vec::new();
        // A space separates tokens where a profile takes several; no token holds one.
        for token in form.get("token").unwrap_or_default().split(' ').filter(|token| !token.is_empty()) {
            let grant = observed.recorder.family_of(token).await.map_err(|_| Refusal::NotRecorded)?;
            let Some(grant) = grant else { continue };
            let owns = match &grant.client_id {
                Some(owner) => owner == plan.client.id(),
                None => plan.client.is_confidential(),
            };
            if !owns || !plan.client.has_issuer(&grant.iss) {
                return Err(Refusal::Foreign);
            }
            grants.push(grant);
        }
        Ok(grants)
    }

    /// Makes it durable that this is about to be recorded.
    async fn announce(&self, target: Target, planned: &mut Planned) -> Result<(), Answer> {
        let announced = planned.plan.intent.announce(&self.endpoints.revocations).await;
        let refused = |refusal| self.endpoints.refuse(target, Some(&planned.plan.client), refusal);
        planned.announced = Some(announced.map_err(refused)?);
        Ok(())
    }

    /// Records nothing of it, since the service behind refused with this status.
    async fn abandon(&self, target: Target, planned: Planned, status: StatusCode) -> Result<(), Answer> {
        let Planned { plan, claimed, announced, .. } = planned;
        if let Some(announced) = announced {
            self.endpoints.revocations.drop_intended(announced).await;
        }
        self.endpoints.finish(target, Some(&plan.client), claimed, status).await
    }

    /// Records what was planned, and finishes the request.
    async fn record_all(&self, target: Target, planned: Planned) -> Result<Answer, Answer> {
        let (answer, client, claimed) = self.record(target, planned).await?;
        self.endpoints.finish(target, Some(&client), claimed, answer.status()).await?;
        Ok(answer)
    }

    /// Records what was planned and, where the recorder knows more tokens that it is about, those too. The answer is
    /// this layer's own, `Err` where nothing may be pretended; with it whose the request is, and what is to be finished.
    async fn record(&self, target: Target, planned: Planned) -> Result<(Answer, Client, Claimed), Answer> {
        let Planned { plan, claimed, announced, grants } = planned;
        let (scopes, client) = (plan.intent.scopes(), plan.client.clone());
        let answer = self.endpoints.commit(target, plan, announced).await;
        if !answer.is_success() {
            return Err(answer);
        }
        if let Some(Observed { recorder, .. }) = &self.recorder {
            let failed = |_| self.endpoints.refuse(target, Some(&client), Refusal::NotRecorded);
            for grant in &grants {
                recorder.end_grant(grant, client.id()).await.map_err(failed)?;
            }
            for scope in &scopes {
                recorder.end(scope, client.id()).await.map_err(failed)?;
            }
        }
        Ok((answer, client, claimed))
    }
}
