use std::{collections::HashMap, net::IpAddr, slice};

use http::{HeaderName, HeaderValue, request::Parts};
use http_body::Body;
use zeroize::Zeroizing;

use super::{
    Answer, Client, ClientAuthenticator, FailureLimit, SeveralUsers, SignedRequests, caller, form,
    intake::{Context, Intake, intake_settings},
    json::{self, JSON},
    limit::{Failures, Who},
    plan::{Intent, Plan, Reach, Refused},
    refusal::Refusal,
    replay,
    signed::Sender,
    subject::SubjectId,
    users::{self, Users},
};
use crate::{
    directory::{Directory, DirectoryError, User},
    revocation::Cutoff,
};

/// The scope that a client needs.
const SCOPE: &str = "global_token_revocation";

/// Says until when (Unix seconds, inclusive) tokens are refused, whoever issued them when.
static EFFECTIVE_UNTIL: HeaderName = HeaderName::from_static("revocation-effective-until");

/// The global token revocation endpoint (draft-parecki-oauth-global-token-revocation): logs a user out everywhere.
///
/// The body is a JSON object with the one member `sub_id`, a subject identifier (RFC 9493), or `subject`, as drafts
/// before 03 called it. In the Janssen profile it may also be `{"format": <attribute>, "id": <value>}`. Members that are
/// missing, repeated, null, empty or not asked for are `invalid_request`.
///
/// The caller is a confidential client with the scope `global_token_revocation`, or the sender of a signed request
/// ([`GlobalEndpoint::signed_jwt`]). A client shows its secret (Basic), an access token, or its certificate, which has to
/// tell by itself which client it is: the body has no place for what other methods send in a form. Only users of the endpoint's issuers count, and of those only what the caller has
/// a say over; nobody without the scope makes the directory be asked.
///
/// Every token of the user issued until now is refused, refresh tokens included, and so is every token of the
/// sessions that the [`Directory`] knows, for ever. Tokens that clients got for themselves stay. Answers:
///
/// | | |
/// | --- | --- |
/// | 204 | done: durable, and enforced here |
/// | 400 | malformed, or a subject that cannot be understood; `iss_sub` of an issuer that is not mapped |
/// | 401, 403 | not authenticated, not authorized |
/// | 404 | nobody is known by this name ([`GlobalEndpoint::unknown_user`]) |
/// | 422 | the directory, or the key of a signed request, cannot be reached; nothing was done |
/// | 503 | it could not be recorded |
#[derive(Debug)]
#[must_use]
pub struct GlobalEndpoint {
    intake: Intake,
    users: Users,
    /// By foreign issuer: the local issuer, and the attribute that holds the foreign `sub`.
    federated: HashMap<String, (String, String)>,
    unknown_user: Option<UnknownUser>,
    cutoff: CutoffChoice,
    signed: Option<SignedRequests>,
    failures: Failures,
}

/// What to answer where nobody is known by the name that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnknownUser {
    /// 404, as the draft has it. Only authorized callers ever learn it.
    NotFound,
    /// 204, as for a user who is known.
    NoContent,
}

/// Up to when a user's tokens are refused. Times of issue (`iat`) are in whole seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CutoffChoice {
    /// Those issued until the present second, this second included: a login in the next one works, and one in the
    /// same second has to be repeated.
    #[default]
    Now,
    /// Those issued before the present second: a login that has just worked goes on. So does whatever else was issued in
    /// this very second, a moment before the request: only for issuers whose `iat` nobody can time.
    Lax,
    /// Those issued until the present second plus the skew of
    /// [`Lifetimes`](crate::revocation::Lifetimes): for issuers whose clocks run ahead. A login works later than
    /// that; the answer says when, in `Revocation-Effective-Until` (Unix seconds: tokens issued at or before it are
    /// refused).
    Strict,
}

impl GlobalEndpoint {
    /// The endpoint for users of these issuers that `directory` knows, and clients that `clients` knows.
    pub fn new<S: Into<String>>(
        directory: impl Directory,
        issuers: impl IntoIterator<Item = S>,
        clients: impl ClientAuthenticator,
    ) -> Self {
        Self {
            intake: Intake::new(clients),
            users: Users::new(directory, issuers),
            federated: HashMap::new(),
            unknown_user: None,
            cutoff: CutoffChoice::default(),
            signed: None,
            failures: Failures::new(FailureLimit::default()),
        }
    }

    intake_settings!();

    /// What to do where several users match. Default: [`SeveralUsers::First`].
    pub const fn several_users(mut self, several: SeveralUsers) -> Self {
        self.users.several = Some(several);
        self
    }

    /// What to answer where nobody is known by that name. Default: the [`Profile`](super::Profile)'s.
    pub const fn unknown_user(mut self, answer: UnknownUser) -> Self {
        self.unknown_user = Some(answer);
        self
    }

    /// Up to when tokens are refused. Default: [`CutoffChoice::Now`].
    pub const fn cutoff(mut self, choice: CutoffChoice) -> Self {
        self.cutoff = choice;
        self
    }

    /// Understands `iss_sub` of a federated provider: it is the user of the `local` issuer whose `attribute` holds the
    /// provider's `sub` (`"sub"` where both have the same). Without it such a subject is `invalid_request`, since
    /// nothing could be revoked.
    pub fn federated(
        mut self,
        provider: impl Into<String>,
        local: impl Into<String>,
        attribute: impl Into<String>,
    ) -> Self {
        self.federated.insert(provider.into(), (local.into(), attribute.into()));
        self
    }

    /// Takes signed requests too.
    pub fn signed_jwt(mut self, signed: SignedRequests) -> Self {
        self.signed = Some(signed);
        self
    }

    /// How many signed requests that fail are borne: for each address, whatever they say of themselves; and for each
    /// sender those that are its own, such as replays. Nobody else's failures keep a sender out. Other clients have the
    /// limit of their [`ClientAuthenticator`]. Default: [`FailureLimit::default`].
    pub fn failure_limit(mut self, limit: FailureLimit) -> Self {
        self.failures = Failures::new(limit);
        self
    }

    /// What a request comes to; what stands against it is answered at once.
    pub(super) async fn plan<B: Body>(&self, context: &Context<'_>, head: &Parts, body: B) -> Result<Plan, Refused> {
        Intake::check_target(head)?;
        let now = context.revocations.denylist().exact_now().unix();
        let (client, signed) = match self.signed(context, head, now) {
            Some(signed) => {
                let signed = signed?;
                (signed.sender.client.clone(), Some(signed))
            }
            None => (self.intake.client(context, head).await?, None),
        };
        match self.plan_of(&client, signed, context, head, body, now).await {
            Ok(plan) => Ok(plan),
            Err(refusal) => Err(Refused::of(client, refusal)),
        }
    }

    async fn plan_of<B: Body>(
        &self,
        client: &Client,
        signed: Option<Signed>,
        context: &Context<'_>,
        head: &Parts,
        body: B,
        now: u64,
    ) -> Result<Plan, Refusal> {
        let issuers = self.users.authorized(client, SCOPE, context)?;
        form::check_head(&head.headers, JSON)?;
        let body: Zeroizing<Vec<u8>> = self.intake.read(body).await?;
        let subject = json::subject(&body, context.ways.takes_attributes)?;
        // From here on it counts as used, so that a stolen one cannot ask who exists.
        if let Some(signed) = signed {
            self.claim(context, signed, replay::digest(head, &body)).await?;
        }
        let skew = context.revocations.denylist().lifetimes().skew_secs();
        let (cutoff, success) = match self.cutoff {
            CutoffChoice::Now => (None, Answer::no_content()),
            CutoffChoice::Lax => (Some(Cutoff::at(now.saturating_sub(1))), Answer::no_content()),
            CutoffChoice::Strict => {
                let until = now.saturating_add(skew);
                let header = HeaderValue::from(until);
                (Some(Cutoff::at(until)), Answer::no_content().with(EFFECTIVE_UNTIL.clone(), header))
            }
        };
        let (intent, reach) = self.intent(client, &subject, &issuers, cutoff, context).await?;
        Ok(Plan { client: client.clone(), intent, success, reach, body })
    }

    /// The signed request and its sender; `None` where it is none.
    fn signed(&self, context: &Context<'_>, head: &Parts, now: u64) -> Option<Result<Signed, Refusal>> {
        let requests = self.signed.as_ref()?;
        let token = SignedRequests::carried_by(&head.headers)?;
        Some(self.sender(requests, token, context, head, now))
    }

    fn sender(
        &self,
        requests: &SignedRequests,
        token: &str,
        context: &Context<'_>,
        head: &Parts,
        now: u64,
    ) -> Result<Signed, Refusal> {
        let peer = caller::peer(&*self.intake.clients, head);
        // Nobody has vouched yet for what it says of its sender.
        let someone = Who { id: None, known: true, peer };
        self.bear(context, someone)?;
        let sender = requests.authenticate(token, now, SCOPE);
        let sender = sender.inspect_err(|refusal| self.note(context, someone, *refusal))?;
        self.bear(context, Who { id: Some(&sender.name()), ..someone })?;
        Ok(Signed { sender, peer })
    }

    /// Takes a signed request with this digest, which counts once.
    async fn claim(&self, context: &Context<'_>, signed: Signed, message: [u8; 32]) -> Result<(), Refusal> {
        let Signed { sender, peer } = signed;
        let name = sender.name();
        let who = Who { id: Some(&name), known: true, peer };
        let claimed = SignedRequests::claim(context, &sender, message).await;
        match claimed {
            Ok(()) => self.failures.succeeded(who),
            Err(refusal) => self.note(context, who, refusal),
        }
        claimed
    }

    /// Refuses those who failed too often.
    fn bear(&self, context: &Context<'_>, who: Who<'_>) -> Result<(), Refusal> {
        let wait = self.failures.wait(who, context.revocations.denylist().now().monotonic);
        wait.map_or(Ok(()), |wait| Err(Refusal::too_many_failures(wait)))
    }

    fn note(&self, context: &Context<'_>, who: Who<'_>, refusal: Refusal) {
        if refusal == Refusal::Assertion {
            self.failures.failed(who, context.revocations.denylist().now().monotonic);
        }
    }

    async fn intent(
        &self,
        client: &Client,
        subject: &SubjectId,
        issuers: &[String],
        cutoff: Option<Cutoff>,
        context: &Context<'_>,
    ) -> Result<(Intent, Reach), Refusal> {
        let found = self.find(subject, issuers).await?;
        let chosen = Users::choose(found, self.users.several.unwrap_or(context.ways.several_users_global))?;
        if chosen.is_empty() {
            return match self.unknown_user.unwrap_or(context.ways.unknown_user) {
                UnknownUser::NotFound => Err(Refusal::UnknownUser),
                UnknownUser::NoContent => Ok((Intent::Nothing("unknown_user"), Reach::default())),
            };
        }
        let revocations = self.users.revocations(&chosen, cutoff, "global_token_revocation", client).await;
        let (revocations, reach) = revocations.map_err(not_logged_out)?;
        Ok((Intent::Revoke(revocations), reach))
    }

    /// The users that a subject identifier means, of these issuers.
    async fn find(&self, subject: &SubjectId, issuers: &[String]) -> Result<Vec<User>, Refusal> {
        let names = match subject {
            SubjectId::Aliases(names) => names.as_slice(),
            one => slice::from_ref(one),
        };
        let mut found = Vec::new();
        // What an empty answer would hide: it is no user of ours, whatever the directory says.
        let mut why_not = None;
        for name in names {
            let (attribute, value, issuers) = match name {
                SubjectId::Attribute { name, value } => (name.as_str(), value, issuers),
                SubjectId::IssSub { iss, sub } => match self.local(iss) {
                    None => {
                        why_not = Some(Refusal::UnmappedIssuer);
                        continue;
                    }
                    Some((local, attribute)) => match issuers.iter().find(|iss| **iss == *local) {
                        None => {
                            why_not.get_or_insert(Refusal::UnknownUser);
                            continue;
                        }
                        Some(local) => (attribute, sub, slice::from_ref(local)),
                    },
                },
                SubjectId::Aliases(_) => return Err(Refusal::Subject),
            };
            self.users.find(attribute, value, issuers, &mut found).await.map_err(not_logged_out)?;
        }
        match why_not.filter(|_| found.is_empty()) {
            Some(refusal) => Err(refusal),
            None => Ok(found),
        }
    }

    /// The issuer here and the attribute by which a `sub` of `iss` is looked up.
    fn local<'a>(&'a self, iss: &'a str) -> Option<(&'a str, &'a str)> {
        match self.federated.get(iss) {
            Some((local, attribute)) => Some((local, attribute)),
            None => self.users.issuers.iter().any(|known| known == iss).then_some((iss, "sub")),
        }
    }
}

/// A signed request, not yet taken.
struct Signed {
    sender: Sender,
    peer: Option<IpAddr>,
}

#[expect(clippy::needless_pass_by_value, reason = "maps an error")]
fn not_logged_out(error: DirectoryError) -> Refusal {
    users::log(&error);
    Refusal::NotLoggedOut
}
