use std::{fmt, time::Duration};

use http::request::Parts;
use http_body::Body;

use super::{
    Answer, Client,
    form::{self, FORM, Form},
    intake::{Context, Intake, Nobody, intake_settings},
    plan::{Intent, Plan, Reach, Refused},
    refusal::Refusal,
    replay,
    signal::{Fault, not_accepted},
};
use crate::{
    backend::OneTime,
    revocation::{Cutoff, Revocation, Scope},
    token::{ClaimNames, Expiry, Issuer, JwtConfigError, JwtVerifier, MAX_TOKEN, Members, Payload, Raw},
};

/// The one event of a logout token (OpenID Connect Back-Channel Logout 1.0 §2.4).
pub(crate) const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// The type of logout tokens (§2.4).
pub(crate) const TYP: &str = "logout+jwt";
/// Their namespace among messages that count once.
const NAMESPACE: &str = "logout+jwt";
/// How long a logout token is remembered once its time is over, in seconds: longer than any leeway.
const REMEMBERED: u64 = 60 * 60;

/// What becomes of tokens with the scope `offline_access` (OpenID Connect Core 1.0 §11) at a logout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OfflineAccess {
    /// They stay, as far as it is known which they are (Back-Channel Logout 1.0 §2.7): a
    /// [`Recorder`](crate::recorder::Recorder) in front of the token endpoint knows. Where a session has such grants, its
    /// other grants end one by one, with their tokens. Without a recorder, or where it knows of none, the session ends as
    /// a whole: tokens say which session they are of, and not which grant.
    #[default]
    Stays,
    /// They end too.
    Ends,
}

/// The receiver of logout tokens (OpenID Connect Back-Channel Logout 1.0): ends a session that the provider has ended.
///
/// A form with the parameter `logout_token`; the token alone is what authenticates the sender. It has to be signed by
/// one of the issuers with one of its algorithms, be for one of the audiences, have `iss`, `aud`, `iat`, `exp`, `jti`,
/// the one event, `sub` or `sid` or both, and no `nonce`, and live for no longer than
/// [`BackchannelLogoutEndpoint::max_lifetime`]. A `sid` ends that session for ever; a `sub` alone ends all tokens of the
/// subject that were issued until the logout token was (`iat`): a login after that goes on, however late the message is.
///
/// Each counts once in the whole fleet, by its `jti`. The very same request may come again where the answer was 503.
/// Answers: 200 without a body once it is durable and enforced here, also where there was nothing to end; 400 with
/// `invalid_request`; 503 with `Retry-After`.
#[must_use]
pub struct BackchannelLogoutEndpoint {
    intake: Intake,
    verifier: JwtVerifier,
    max_lifetime: Duration,
    offline: OfflineAccess,
}

impl BackchannelLogoutEndpoint {
    /// Takes tokens that these issuers sign for one of these audiences: the `client_id`s that are registered with them.
    /// Audiences and claim names of the issuers do not count here.
    ///
    /// # Errors
    ///
    /// Where an issuer has no keys or algorithms, or its keys cannot be read.
    pub fn new<A: Into<String> + Clone>(
        audience: impl IntoIterator<Item = A>,
        issuers: impl IntoIterator<Item = Issuer>,
    ) -> Result<Self, JwtConfigError> {
        let audience: Vec<String> = audience.into_iter().map(Into::into).collect();
        let verifier = issuers.into_iter().fold(JwtVerifier::builder(), |builder, issuer| {
            let issuer = issuer.claim_names(ClaimNames::default()).usual_typ(TYP);
            builder.issuer(issuer.audience(audience.iter().map(String::as_str)))
        });
        Ok(Self {
            intake: Intake::new(Nobody),
            verifier: verifier.build()?,
            max_lifetime: Duration::from_secs(5 * 60),
            offline: OfflineAccess::default(),
        })
    }

    intake_settings!();

    /// The longest time from `iat` to `exp`. Default: 5 minutes; the standard encourages two.
    pub const fn max_lifetime(mut self, most: Duration) -> Self {
        self.max_lifetime = most;
        self
    }

    /// What becomes of tokens with the scope `offline_access`. Default: [`OfflineAccess::Stays`].
    pub const fn offline_access(mut self, offline: OfflineAccess) -> Self {
        self.offline = offline;
        self
    }

    /// Whether tokens with `offline_access` stay.
    pub(super) fn spares_offline(&self) -> bool {
        self.offline == OfflineAccess::Stays
    }

    /// What a request comes to; what stands against it is answered at once.
    pub(super) async fn plan<B: Body>(&self, context: &Context<'_>, head: &Parts, body: B) -> Result<Plan, Refused> {
        Intake::check_target(head)?;
        context.check_on()?;
        form::check_head(&head.headers, FORM)?;
        let body = self.intake.read(body).await?;
        let form = Form::parse(&body)?;
        let token = form.get("logout_token").ok_or(Refusal::Signal(Fault::Missing))?;
        let now = context.revocations.denylist().exact_now().unix();
        let payload = self.verifier.verify_payload(token, MAX_TOKEN, now, Expiry::Required).map_err(not_accepted)?;
        let sender = Client::confidential(payload.iss());
        let refused = |refusal| Refused::of(sender.clone(), refusal);
        let logout = Logout::read(&payload, self.max_lifetime.as_secs()).map_err(|fault| refused(fault.into()))?;
        let message = replay::digest(head, &body);
        let claim = OneTime::new(NAMESPACE, payload.iss(), &logout.jti, message, logout.exp.saturating_add(REMEMBERED));
        match context.claimed.claim(context.revocations, claim).await {
            Ok(true) => {}
            Ok(false) => return Err(refused(Fault::Replayed.into())),
            Err(_) => return Err(refused(Refusal::NotRecorded)),
        }
        let reach = Reach { users: usize::from(logout.sid.is_none()), sessions: usize::from(logout.sid.is_some()) };
        let intent = Intent::Revoke(vec![logout.revocation(payload.iss())]);
        Ok(Plan { client: sender, intent, success: Answer::ok(), reach, body })
    }
}

impl fmt::Debug for BackchannelLogoutEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackchannelLogoutEndpoint")
            .field("intake", &self.intake)
            .field("verifier", &self.verifier)
            .field("max_lifetime", &self.max_lifetime)
            .field("offline", &self.offline)
            .finish()
    }
}

/// What a logout token says (§2.4), checked as §2.6 has it.
#[derive(Debug, PartialEq, Eq)]
struct Logout {
    jti: String,
    sub: Option<String>,
    sid: Option<String>,
    iat: u64,
    exp: u64,
}

impl Logout {
    fn read(payload: &Payload, max_lifetime: u64) -> Result<Self, Fault> {
        let claims = payload.members()?;
        if claims.raw("nonce").is_some() {
            return Err(Fault::Prohibited);
        }
        check_events(claims.raw("events").ok_or(Fault::Events)?)?;
        let text = |name| claims.string(name).map(|text| text.map(std::borrow::Cow::into_owned));
        let (iat, exp) = (claims.time("iat")?.ok_or(Fault::Claim)?, claims.time("exp")?.ok_or(Fault::Claim)?);
        // One that ends before it begins is good for nothing else either.
        if exp < iat || exp - iat > max_lifetime {
            return Err(Fault::Lifetime);
        }
        let this = Self { jti: text("jti")?.ok_or(Fault::Claim)?, sub: text("sub")?, sid: text("sid")?, iat, exp };
        if this.sub.is_none() && this.sid.is_none() {
            return Err(Fault::Claim);
        }
        Ok(this)
    }

    fn revocation(&self, iss: &str) -> Revocation {
        let revocation = match (&self.sid, &self.sub) {
            (Some(sid), _) => Revocation::new(Scope::session(iss, sid)),
            (None, sub) => {
                let sub = sub.as_deref().unwrap_or_default();
                Revocation::new(Scope::subject(iss, sub)).cutoff(Cutoff::at(self.iat))
            }
        };
        revocation.reason("backchannel_logout").revoked_by(iss)
    }
}

/// An object whose one member is the event, which is an object too.
fn check_events(events: Raw<'_>) -> Result<(), Fault> {
    let events = Members::parse(events.get().as_bytes()).map_err(|_| Fault::Events)?;
    let event = events.raw(EVENT).filter(|_| events.are_only(&[EVENT])).ok_or(Fault::Events)?;
    Members::parse(event.get().as_bytes()).map(drop).map_err(|_| Fault::Events)
}
