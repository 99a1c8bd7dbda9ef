//! An endpoint that the service behind takes part in.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body::Body;
use tower_service::Service;

#[cfg(feature = "signals")]
use super::plan::Intent;
use super::{
    Answer, Client, EndpointName, Mode, Plan, Target,
    form::Form,
    front::{Front, Observed},
    refusal::Refusal,
    replay::Claimed,
};
use crate::{
    recorder::{Ending, Grant, Recorder},
    spans,
    sync::Intended,
};

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
                // Nobody knows what a server did that failed or is cut off: what was announced stands, and is recorded
                // later.
                let Ok(answer) = tokio::time::timeout(LONGEST_FORWARD, call).await else {
                    let client = Some(&planned.plan.client);
                    return Ok(front.endpoints.refuse(target, client, Refusal::NoAnswer).into_response());
                };
                let answer = answer?;
                let finished = match answer.status() {
                    status if status.is_success() => front.record_all(target, planned).await.map(drop),
                    status => front.abandon(target, planned, status).await,
                };
                // The body of an answer that is not released is dropped unread.
                Ok(finished.map_or_else(Answer::into_response, |()| answer))
            })
            .await
        }
    }
}

/// Answers a request that needs nobody behind.
#[cfg(feature = "signals")]
pub(super) async fn take<B: Body>(front: Arc<Front>, target: Target, request: Request<B>) -> Answer {
    let (head, body) = request.into_parts();
    match front.plan(target, &head, body).await {
        Ok(planned) => finished_alone(front, target, planned).await,
        Err(refused) => refused,
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
    tokio::spawn(spans::same(sequence)).await.unwrap_or_else(lost)
}

/// Records to the end, also where nobody waits for it any more; the answer is this layer's own.
async fn finished_alone(front: Arc<Front>, target: Target, planned: Planned) -> Answer {
    let lost = front.endpoints.turn_away(Refusal::NotRecorded);
    let record = async move { front.record_all(target, planned).await.unwrap_or_else(|refused| refused) };
    tokio::spawn(spans::same(record)).await.unwrap_or(lost)
}

impl Front {
    /// What a request comes to. Where the recorder knows whose a token is, only that client may go on: also with one
    /// that says nothing, or that the verifier does not accept, such as a refresh token.
    async fn plan<B: Body>(&self, target: Target, head: &Parts, body: B) -> Result<Planned, Answer> {
        let (plan, claimed) = self.endpoints.plan(target, head, body).await?;
        #[cfg(feature = "signals")]
        if target == Target::Endpoint(EndpointName::BackchannelLogout) {
            return self.plan_logout(target, plan, claimed).await;
        }
        let token = target == Target::Endpoint(EndpointName::Token);
        let Some(observed) = self.recorder.as_ref().filter(|_| token) else {
            return Ok(Planned { plan, claimed, announced: None, grants: Vec::new() });
        };
        match self.grants(observed, &plan).await {
            Ok(grants) => Ok(Planned { plan, claimed, announced: None, grants }),
            Err(refusal) => {
                let answer = self.endpoints.refuse(target, Some(&plan.client), refusal);
                self.endpoints.finish(target, Some(&plan.client), claimed, answer.status()).await?;
                Err(answer)
            }
        }
    }

    /// Where a session has grants with `offline_access`, which stay, its others end one by one: no scope tells them apart.
    #[cfg(feature = "signals")]
    async fn plan_logout(&self, target: Target, mut plan: Plan, claimed: Claimed) -> Result<Planned, Answer> {
        let mut grants = Vec::new();
        let spares = self.endpoints.logout.as_ref().is_some_and(|endpoint| endpoint.spares_offline());
        if let Some(Observed { recorder, .. }) = self.recorder.as_ref().filter(|_| spares) {
            let mut known = Vec::new();
            for revocation in plan.intent.revocations() {
                let Ok(grants) = recorder.grants_of(revocation.scope()).await else {
                    return Err(self.endpoints.refuse(target, Some(&plan.client), Refusal::NotRecorded));
                };
                known.extend(grants);
            }
            if known.iter().any(|grant| grant.offline && !grant.ended) {
                grants.extend(known.into_iter().filter(|grant| !grant.offline));
                plan.intent = Intent::Nothing("offline_access");
            }
        }
        Ok(Planned { plan, claimed, announced: None, grants })
    }

    /// The grants of the tokens of a request, all of them ones that the client may end.
    async fn grants(&self, observed: &Observed, plan: &Plan) -> Result<Vec<Grant>, Refusal> {
        let form = Form::parse(&plan.body)?;
        let ends_any = self.endpoints.token.as_ref().is_some_and(|endpoint| endpoint.ends_any_token(&plan.client));
        let mut grants = Vec::new();
        let named = form.get("token").unwrap_or_default();
        // As the endpoint reads it: elsewhere, what holds spaces is one token that nobody knows.
        let separator = |sign| sign == ' ' && self.endpoints.profile.ways().takes_lists;
        for token in named.split(separator).filter(|token| !token.is_empty()) {
            let grant = observed.recorder.family_of(token).await.map_err(|_| Refusal::NotRecorded)?;
            let Some(grant) = grant else { continue };
            let owns = match &grant.client_id {
                Some(owner) => owner == plan.client.id() || ends_any,
                None => plan.client.is_confidential(),
            };
            if !owns || !plan.client.has_issuer(&grant.iss) {
                return Err(Refusal::Foreign);
            }
            grants.push(grant);
        }
        Ok(grants)
    }

    /// Makes it durable that this is about to be recorded, with what the recorder knows by now that it is about.
    async fn announce(&self, target: Target, planned: &mut Planned) -> Result<(), Answer> {
        let refused = |refusal| self.endpoints.refuse(target, Some(&planned.plan.client), refusal);
        let foreseen = match self.ending(target, planned) {
            Some((recorder, ending)) => recorder.foresee(&ending).await.map_err(|_| refused(Refusal::NotRecorded))?,
            None => Vec::new(),
        };
        let announced = planned.plan.intent.announce(&self.endpoints.revocations, foreseen).await;
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

    /// Records what was planned, in one write with what the recorder knows that it is about and that it does not reach by
    /// itself. The answer is this layer's own, `Err` where nothing may be pretended; with it whose the request is, and
    /// what is to be finished.
    async fn record(&self, target: Target, planned: Planned) -> Result<(Answer, Client, Claimed), Answer> {
        let ending = self.ending(target, &planned);
        let besides = match &ending {
            Some((recorder, ending)) => recorder.mark(ending).await,
            None => Ok(Vec::new()),
        };
        let Planned { plan, claimed, announced, .. } = planned;
        let client = plan.client.clone();
        // Where the recorder's store failed, what was planned counts all the same.
        let (besides, marked) = besides.map_or_else(|error| (Vec::new(), Err(error)), |besides| (besides, Ok(())));
        let answer = self.endpoints.commit(target, plan, announced, besides).await;
        if !answer.is_success() {
            return Err(answer);
        }
        let not_recorded = || self.endpoints.refuse(target, Some(&client), Refusal::NotRecorded);
        marked.map_err(|_| not_recorded())?;
        if let Some((recorder, ending)) = &ending {
            recorder.end_late(ending).await.map_err(|_| not_recorded())?;
        }
        match self.endpoints.confirm(target, &client).await {
            Ok(()) => Ok((answer, client, claimed)),
            Err(incomplete) if incomplete.is_success() => Ok((incomplete, client, claimed)),
            Err(incomplete) => Err(incomplete),
        }
    }

    /// What the recorder has to end with it.
    fn ending(&self, target: Target, planned: &Planned) -> Option<(&Recorder, Ending)> {
        // Nothing ends where something is asked.
        let ends = target.endpoint() != EndpointName::Introspection;
        let Observed { recorder, .. } = self.recorder.as_ref().filter(|_| ends)?;
        let client = planned.plan.client.id();
        let ending = recorder.ending(reason(target), client).decisions(planned.plan.intent.revocations());
        let ending = planned.grants.iter().fold(ending, Ending::grant);
        // Who answers for its own tokens only has quotas.
        Some((recorder, if target.endpoint() == EndpointName::Token { ending.of_client() } else { ending }))
    }
}

/// Why grants end, for the audit trail.
const fn reason(target: Target) -> &'static str {
    match target.endpoint() {
        EndpointName::Token => "token_revocation",
        EndpointName::Session => "session_revocation",
        EndpointName::Global => "global_token_revocation",
        EndpointName::BackchannelLogout => "backchannel_logout",
        EndpointName::Events => "security_event",
        EndpointName::Introspection => "introspection",
    }
}
