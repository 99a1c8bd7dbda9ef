//! An endpoint that the service behind takes part in.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use tower_service::Service;

use super::{
    Answer, EndpointName, Mode, Plan, Target,
    form::Form,
    front::{Front, Observed},
    refusal::Refusal,
};
use crate::recorder::Grant;

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
                match front.record(target, planned).await {
                    Ok(_) => inner.call(Request::from_parts(head, body.into())).await,
                    Err(refused) => Ok(refused.into_response()),
                }
            })
            .await
        }
        Mode::ForwardThenRecord => {
            finish(Arc::clone(&front), async move {
                let answer = inner.call(Request::from_parts(head, body.into())).await?;
                if !answer.status().is_success() {
                    // Nothing was done, so a one-time message may come again.
                    return Ok(answer);
                }
                // The body of an answer that is not released is dropped unread.
                Ok(front.record(target, planned).await.map_or_else(Answer::into_response, |_| answer))
            })
            .await
        }
    }
}

/// What a request comes to, and the grants that the recorder knows its tokens by.
struct Planned {
    plan: Plan,
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
    let recorded = tokio::spawn(async move { front.record(target, planned).await.unwrap_or_else(|refused| refused) });
    recorded.await.unwrap_or(lost)
}

impl Front {
    /// What a request comes to. Where the recorder knows whose a token is, only that client may go on: also with one
    /// that says nothing, or that the verifier does not accept, such as a refresh token.
    async fn plan<B: Body>(&self, target: Target, head: &Parts, body: B) -> Result<Planned, Answer> {
        let plan = self.endpoints.plan(target, head, body).await?;
        let token = target == Target::Endpoint(EndpointName::Token);
        let Some(observed) = self.recorder.as_ref().filter(|_| token) else {
            return Ok(Planned { plan, grants: Vec::new() });
        };
        match Self::grants(observed, &plan).await {
            Ok(grants) => Ok(Planned { plan, grants }),
            Err(refusal) => Err(self.endpoints.refuse(target, Some(&plan.client), refusal)),
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

    /// Records what was planned and, where the recorder knows more tokens that it is about, those too. The answer is
    /// this layer's own, `Err` where nothing may be pretended.
    async fn record(&self, target: Target, planned: Planned) -> Result<Answer, Answer> {
        let Planned { mut plan, grants } = planned;
        let (scopes, client) = (plan.intent.scopes(), plan.client.clone());
        // A one-time message has not had its effect before the recorder has done its part.
        let claimed = plan.claimed.take();
        let answer = self.endpoints.commit(target, plan).await;
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
        if let Some(claimed) = claimed {
            claimed.spend();
        }
        Ok(answer)
    }
}
