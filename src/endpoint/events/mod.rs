//! The receiver of security events: what identity providers tell of sessions and accounts that ended.

mod count;
mod poll;
mod receiver;
mod set;
mod subject;
mod transmitter;

use std::{collections::HashMap, fmt, sync::Arc};

use http::{HeaderMap, header, request::Parts};
use http_body::Body;
use sha2::{Digest as _, Sha256};

use self::{
    count::Counters,
    receiver::Polled,
    set::{Event, Set},
    subject::{Named, Subject},
    transmitter::Known,
};
pub use self::{
    count::EventCounts,
    poll::{Poll, Polling},
    receiver::EventReceiver,
    transmitter::Transmitter,
};
use super::{
    Answer, Client, form,
    intake::{Context, Intake, Nobody, intake_settings},
    plan::{Intent, Plan, Reach, Refused},
    refusal::Refusal,
    signal::{Fault, not_accepted},
    subject::SubjectId,
    users,
};
use crate::{
    backend::digest,
    directory::{Directory, User},
    revocation::{Cutoff, Revocation, RevocationId, Scope},
    sync::{Account, Word},
    token::{Expiry, JwtConfigError, JwtVerifier},
};

/// The media type of a pushed SET (RFC 8935 §2.1).
const MEDIA: &str = "application/secevent+jwt";
/// The type of SETs (RFC 8417 §2.3, SSF 1.0 §4.1).
const TYP: &str = "secevent+jwt";

/// The receiver of security events (RFC 8935 push; RFC 8936 poll through [`EventReceiver`]), profiled by OpenID Shared
/// Signals 1.0.
///
/// A SET has to be of the type `secevent+jwt`, signed by one of the transmitters, for one of the audiences, with `iss`,
/// `jti`, `iat`, and exactly one event, and has neither `sub` nor `exp`. Its subject is in `sub_id`, or in the event as
/// drafts had it. Up to when tokens end is when the event happened: `event_timestamp`, else `toe`, else `iat`, capped at
/// now and the skew.
///
/// | event | what ends |
/// | --- | --- |
/// | CAEP `session-revoked` | the session for ever; without one, all of the user's tokens until then |
/// | CAEP `credential-change`, `token-claims-change`; RISC `credential-compromise`, `sessions-revoked` | the same |
/// | RISC `account-disabled`, `account-purged` | all of the user's tokens, also later ones, until `account-enabled` |
/// | RISC `account-enabled` | that; tokens issued until then stay dead. Bans of others and of operators stand |
/// | SSF `verification`, `stream-updated`, all others | nothing; they are counted |
///
/// Events may come in any order and any number of times: the same event again changes nothing, so that none has to be
/// remembered, and of `account-disabled` and `account-enabled` the later event counts, whichever came first.
///
/// Subjects: every format of RFC 9493, `jwt_id`, and `complex` with `user`, `session` and `application`. What narrows those
/// in ways that no token tells (device, tenant, group …) is left out: rather more ends than less. Users that are not given
/// as `iss_sub` are looked up in the [`Directory`]. A transmitter speaks for subjects of its own issuers only.
///
/// Answers: 202 once it is durable and enforced here; 400 with `err` (RFC 8935 §2.4); 429 and 503 with `Retry-After`.
#[must_use]
pub struct EventsEndpoint {
    intake: Intake,
    verifier: JwtVerifier,
    transmitters: HashMap<String, Known>,
    directory: Arc<dyn Directory>,
    counters: Counters,
}

impl EventsEndpoint {
    /// Takes events of these transmitters for one of these audiences; `directory` knows the users that are named by
    /// something else than issuer and subject.
    ///
    /// # Errors
    ///
    /// Where a transmitter has no keys or algorithms, or its keys cannot be read, or two have one `iss`.
    pub fn new<A: Into<String>>(
        audience: impl IntoIterator<Item = A>,
        transmitters: impl IntoIterator<Item = Transmitter>,
        directory: impl Directory,
    ) -> Result<Self, JwtConfigError> {
        let audience: Vec<String> = audience.into_iter().map(Into::into).collect();
        let (mut verifier, mut known) = (JwtVerifier::builder(), HashMap::new());
        for transmitter in transmitters {
            let (issuer, iss, transmitter) = transmitter.known();
            verifier = verifier.issuer(issuer.audience(audience.iter().map(String::as_str)).require_typ(TYP));
            known.insert(iss, transmitter);
        }
        Ok(Self {
            intake: Intake::new(Nobody),
            verifier: verifier.build()?,
            transmitters: known,
            directory: Arc::new(directory),
            counters: Counters::default(),
        })
    }

    intake_settings!();

    /// What has come in since it was made.
    pub fn counts(&self) -> EventCounts {
        self.counters.get()
    }

    /// What a request comes to; what stands against it is answered at once.
    pub(super) async fn plan<B: Body>(&self, context: &Context<'_>, head: &Parts, body: B) -> Result<Plan, Refused> {
        let planned = self.planned(context, head, body).await;
        match &planned {
            Err(Refused { refusal: Refusal::TooFast, .. }) => self.counters.too_fast(),
            Err(Refused { refusal, .. }) if !refusal.is_passing() => self.counters.refused(),
            _ => {}
        }
        planned
    }

    async fn planned<B: Body>(&self, context: &Context<'_>, head: &Parts, body: B) -> Result<Plan, Refused> {
        Intake::check_target(head)?;
        context.check_on()?;
        form::check_head(&head.headers, MEDIA)?;
        // What was fetched from a transmitter needs no proof that it comes from there.
        let polled = head.extensions.get::<Polled>();
        let shown = if polled.is_some() { None } else { self.shown(&head.headers)? };
        let body = self.intake.read(body).await?;
        let set = str::from_utf8(&body).map_err(|_| Refusal::Signal(Fault::Malformed))?.trim_ascii();
        let now = context.revocations.denylist().exact_now().unix();
        let longest = self.intake.max_body;
        let payload = self.verifier.verify_payload(set, longest, now, Expiry::Optional).map_err(not_accepted)?;
        let transmitter = self.transmitters.get(payload.iss()).ok_or(Refusal::Signal(Fault::Issuer))?;
        let sender = Client::confidential(payload.iss());
        let refused = |fault: Fault| Refused::of(sender.clone(), fault.into());
        match polled {
            // A transmitter delivers its own events only.
            Some(Polled(iss)) if iss != payload.iss() => return Err(refused(Fault::Issuer)),
            Some(_) => {}
            None if !transmitter.shows(shown.as_ref()) => return Err(refused(Fault::Unauthenticated)),
            None if !transmitter.has_room() => return Err(Refused::of(sender, Refusal::TooFast)),
            None => {}
        }
        let set = Set::read(&payload).map_err(refused)?;
        self.counters.event(set.event);
        let skew = context.revocations.denylist().lifetimes().skew_secs();
        let told = Told { by: payload.iss(), transmitter, at: set.at.min(now.saturating_add(skew)), set: &set };
        match self.intent(&told).await {
            Ok((intent, reach)) => Ok(Plan { client: sender, intent, success: Answer::accepted(), reach, body }),
            Err(refusal) => Err(Refused::of(sender, refusal)),
        }
    }

    /// The digest of the one bearer secret of a request. Who shows none that anybody has is told so before the body is read.
    fn shown(&self, headers: &HeaderMap) -> Result<Option<[u8; 32]>, Refusal> {
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        let shown = match (all.next(), all.next()) {
            (None, _) => None,
            (Some(one), None) => {
                let (scheme, secret) = one
                    .to_str()
                    .ok()
                    .and_then(|value| value.trim().split_once([' ', '\t']))
                    .ok_or(Refusal::Signal(Fault::Unauthenticated))?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(Fault::Unauthenticated.into());
                }
                Some(<[u8; 32]>::from(Sha256::digest(secret.trim())))
            }
            (Some(_), Some(_)) => return Err(Fault::Unauthenticated.into()),
        };
        let anybodys = self.transmitters.values().fold(false, |known, one| known | one.shows(shown.as_ref()));
        if anybodys { Ok(shown) } else { Err(Fault::Unauthenticated.into()) }
    }

    async fn intent(&self, told: &Told<'_>) -> Result<(Intent, Reach), Refusal> {
        let event = told.set.event;
        match event {
            Event::Verification | Event::StreamUpdated | Event::Unknown => {
                log(told.by, event);
                Ok((Intent::Nothing(event.as_str()), Reach::default()))
            }
            Event::AccountDisabled | Event::AccountPurged => self.accounts(told, Word::Disabled).await,
            Event::AccountEnabled => self.accounts(told, Word::Enabled).await,
            Event::SessionRevoked
            | Event::CredentialChange
            | Event::TokenClaimsChange
            | Event::CredentialCompromise
            | Event::SessionsRevoked => self.revocations(told).await,
        }
    }

    /// What ends tokens.
    async fn revocations(&self, told: &Told<'_>) -> Result<(Intent, Reach), Refusal> {
        let subject = told.set.subject.as_ref().map_err(|fault| Refusal::from(*fault))?;
        let mut reach = Reach::default();
        let mut revocations = Vec::new();
        match subject {
            Subject::Token { iss, jti } => {
                told.check(iss)?;
                revocations.push(told.revoke(Scope::token(iss, jti)));
            }
            Subject::User(user) => {
                let users = self.users(told, user).await?;
                reach.users = users.len();
                for user in &users {
                    revocations.push(told.cut_off(Scope::subject(&user.iss, &user.sub)));
                    // Tokens that do not say when they were issued are reached by their session.
                    let sessions = self.directory.sessions_of(user).await.map_err(unavailable)?;
                    reach.sessions += sessions.len();
                    revocations.extend(sessions.into_iter().map(|sid| told.cut_off(Scope::session(&user.iss, sid))));
                }
            }
            Subject::Complex { user, session: Some(session), application } => {
                // A session says whose it is: the user beside it has to be one that the transmitter speaks for.
                if let Some(SubjectId::IssSub { iss, .. }) = user {
                    told.check(iss)?;
                }
                let iss = told.iss_of(session, user.as_ref())?;
                reach.sessions = 1;
                revocations.push(told.revoke(match application {
                    Some(application) => Scope::client_session(iss, &session.id, &application.id),
                    None => Scope::session(iss, &session.id),
                }));
            }
            Subject::Complex { user: Some(user), session: None, application } => {
                let users = self.users(told, user).await?;
                reach.users = users.len();
                revocations.extend(users.iter().map(|user| {
                    told.cut_off(match application {
                        Some(application) => Scope::subject_client(&user.iss, &user.sub, &application.id),
                        None => Scope::subject(&user.iss, &user.sub),
                    })
                }));
            }
            Subject::Complex { user: None, session: None, application: Some(application) } => {
                let iss = told.iss_of(application, None)?;
                revocations.push(told.cut_off(Scope::client(iss, &application.id)));
            }
            Subject::Complex { user: None, session: None, application: None } => {
                return Err(Fault::SubjectKind.into());
            }
        }
        if revocations.is_empty() {
            self.counters.unknown_subject();
            return Ok((Intent::Nothing("unknown_user"), reach));
        }
        Ok((Intent::Revoke(revocations), reach))
    }

    /// What disables and enables accounts, and ends the sessions of those that are disabled.
    async fn accounts(&self, told: &Told<'_>, is: Word) -> Result<(Intent, Reach), Refusal> {
        let subject = told.set.subject.as_ref().map_err(|fault| Refusal::from(*fault))?;
        let user = match subject {
            Subject::User(user) | Subject::Complex { user: Some(user), .. } => user,
            Subject::Token { .. } | Subject::Complex { .. } => return Err(Fault::SubjectKind.into()),
        };
        let users = self.users(told, user).await?;
        let mut reach = Reach { users: users.len(), sessions: 0 };
        let (mut accounts, mut revocations) = (Vec::new(), Vec::new());
        for user in &users {
            accounts.push(Account {
                scope: Scope::subject(&user.iss, &user.sub),
                by: told.by.to_owned(),
                message: told.set.jti.clone(),
                since: told.at,
                is,
                reason: told.set.event.as_str(),
            });
            if is == Word::Disabled {
                let sessions = self.directory.sessions_of(user).await.map_err(unavailable)?;
                reach.sessions += sessions.len();
                revocations.extend(sessions.into_iter().map(|sid| told.cut_off(Scope::session(&user.iss, sid))));
            }
        }
        if accounts.is_empty() {
            self.counters.unknown_subject();
            return Ok((Intent::Nothing("unknown_user"), reach));
        }
        Ok((Intent::Accounts(accounts, revocations), reach))
    }

    /// The users that an identifier means, of those whom the transmitter speaks for.
    async fn users(&self, told: &Told<'_>, id: &SubjectId) -> Result<Vec<User>, Refusal> {
        let ids = match id {
            SubjectId::Aliases(ids) => ids.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut users: Vec<User> = Vec::new();
        let mut foreign = None;
        for id in ids {
            let found = match id {
                SubjectId::IssSub { iss, sub } => match told.check(iss) {
                    Ok(()) => vec![User::new(iss, sub)],
                    Err(refusal) => {
                        foreign = Some(refusal);
                        continue;
                    }
                },
                SubjectId::Attribute { name, value } => {
                    let issuers = &told.transmitter.subject_issuers;
                    let found = self.directory.find_users(name, value, issuers).await.map_err(unavailable)?;
                    found.into_iter().filter(|user| told.transmitter.speaks_for(&user.iss)).collect()
                }
                SubjectId::Aliases(_) => return Err(Fault::Subject.into()),
            };
            for user in found {
                if !users.contains(&user) {
                    users.push(user);
                }
            }
        }
        match foreign.filter(|_| users.is_empty()) {
            Some(refusal) => Err(refusal),
            None => Ok(users),
        }
    }
}

/// An event, and who tells it.
struct Told<'a> {
    by: &'a str,
    transmitter: &'a Known,
    /// When it happened, as far as that is believed.
    at: u64,
    set: &'a Set,
}

impl Told<'_> {
    fn check(&self, iss: &str) -> Result<(), Refusal> {
        if self.transmitter.speaks_for(iss) { Ok(()) } else { Err(Fault::Foreign.into()) }
    }

    /// The issuer of a session or application: its own word, else the user's, else the transmitter's first.
    fn iss_of<'a>(&'a self, named: &'a Named, user: Option<&'a SubjectId>) -> Result<&'a str, Refusal> {
        let users = match user {
            Some(SubjectId::IssSub { iss, .. }) => Some(iss),
            _ => None,
        };
        let iss = named.iss.as_ref().or(users).or(self.transmitter.subject_issuers.first());
        let iss = iss.ok_or(Refusal::Signal(Fault::Foreign))?;
        self.check(iss)?;
        Ok(iss)
    }

    /// The same event again makes the same record.
    fn revoke(&self, scope: Scope) -> Revocation {
        let [a, b, c, d, e, f, g, h, ..] = digest([self.by, &self.set.jti].map(str::as_bytes));
        let id = RevocationId::from_u64(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        Revocation::new(scope).reason(self.set.event.as_str()).revoked_by(self.by).named(id)
    }

    fn cut_off(&self, scope: Scope) -> Revocation {
        self.revoke(scope).cutoff(Cutoff::at(self.at))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "maps an error")]
fn unavailable(error: crate::directory::DirectoryError) -> Refusal {
    users::log(&error);
    Refusal::DirectoryUnavailable
}

#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "logs nothing"))]
fn log(by: &str, event: Event) {
    #[cfg(feature = "tracing")]
    tracing::info!(transmitter = by, event = event.as_str(), "a security event that nothing is done about");
}

impl fmt::Debug for EventsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventsEndpoint")
            .field("intake", &self.intake)
            .field("verifier", &self.verifier)
            .field("transmitters", &self.transmitters)
            .finish_non_exhaustive()
    }
}
