use std::{fmt, sync::Arc, time::Duration};

use http::request::Parts;
use http_body::Body;

use super::{
    Answer, AuthMethod, Client, ClientAuthenticator,
    form::Form,
    intake::{Context, Intake, intake_settings},
    plan::{Intent, Plan, Reach, Refused},
    profile::Ways,
    refusal::Refusal,
    users,
};
use crate::{
    directory::{ClaimsOnly, Directory},
    recorder::Recorder,
    revocation::{Revocation, Scope},
    token::{CompactJws, Identity, MAX_TOKEN, OpaqueKeys, VerifiedClaims as _, Verifier, VerifyError},
};

/// The scope that lets a client revoke tokens of others.
const ANY_TOKEN: &str = "revoke_any_token";
/// More tokens than any honest list has.
const MAX_TOKENS: usize = 64;

/// The token revocation endpoint (RFC 7009). It answers by itself; the service behind is not asked.
///
/// A client ends its own tokens, and no others:
///
/// - A token with a `sid` ends the session *at that client*, access and refresh tokens alike: other clients of the
///   same login go on. So does one whose session the [`Directory`] knows. Any other ends alone. Expired tokens count
///   too.
/// - A token that is unknown, malformed, badly signed or already revoked is answered like one that was revoked just
///   now (RFC 7009 §2.2), and has no effect. In the TokenAuthority [`Profile`](super::Profile), what is no token of a
///   known issuer is `unsupported_token_type`.
/// - A token of another client, or of an issuer that the client has no say over, is `invalid_request`.
/// - 200 is answered only once the revocation is durable and enforced here; else 503 with `Retry-After`.
///
/// `token_type_hint` is ignored, as RFC 7009 §2.1 allows: whatever a token is, it is found.
///
/// In the Janssen profile `token` may hold up to 64 tokens, separated by spaces. All of them are checked before the
/// first one is revoked. The hint `jti` says that it holds no tokens but their `jti`s: see [`TokenEndpoint::jtis`].
#[must_use]
pub struct TokenEndpoint {
    intake: Intake,
    verifier: Arc<dyn Verifier>,
    directory: Arc<dyn Directory>,
    /// `None`: as the profile has it.
    unowned: Option<Unowned>,
    bearer_scope: Option<String>,
    /// The keys of digests, and how long opaque tokens live.
    opaque: Option<(OpaqueKeys, Duration)>,
    other_clients: bool,
    /// The issuers at which `token=all` ends tokens.
    all: Vec<String>,
    /// What knows whose a `jti` is, and of which issuers.
    jtis: Option<(Recorder, Vec<String>)>,
}

/// A verified token that names no client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unowned {
    /// It is nobody's, so nobody revokes it here: `invalid_request`.
    #[default]
    Refuse,
    /// Any confidential client may end it, alone: such a token is in no client's part of a session.
    AllowConfidential,
    /// Any client may end it, alone: who holds a token does less harm by ending it than by using it (RFC 7009 §5).
    Allow,
}

impl TokenEndpoint {
    /// The endpoint for tokens that `verifier` vouches for and clients that `clients` knows.
    pub fn new(verifier: impl Verifier, clients: impl ClientAuthenticator) -> Self {
        Self {
            intake: Intake::new(clients),
            verifier: Arc::new(verifier),
            directory: Arc::new(ClaimsOnly),
            unowned: None,
            bearer_scope: None,
            opaque: None,
            other_clients: false,
            all: Vec::new(),
            jtis: None,
        }
    }

    intake_settings!();

    /// Tokens without a client. Default: the [`Profile`](super::Profile)'s, [`Unowned::Refuse`] as a rule.
    pub const fn unowned(mut self, unowned: Unowned) -> Self {
        self.unowned = Some(unowned);
        self
    }

    /// Asks this directory for the sessions of tokens that name none. A session that it knows ends at the client; in the
    /// TokenAuthority profile, where a session is one client's own, it ends as a whole.
    pub fn directory(mut self, directory: impl Directory) -> Self {
        self.directory = Arc::new(directory);
        self
    }

    /// Lets confidential clients that have the scope `revoke_any_token` end tokens of other clients, at the issuers that
    /// they have a say over (Janssen's `allowRevokeForOtherClients`). Default: nobody may.
    pub const fn allow_other_clients(mut self, allow: bool) -> Self {
        self.other_clients = allow;
        self
    }

    /// Lets a confidential client end all its tokens issued until now by `token=all`, in any case of letters, at those
    /// of these issuers that it has a say over (Janssen's `allowAllValueForRevokeEndpoint`). Default: no issuer, so
    /// that `all` is a token that nobody knows. Tokens of every kind end, whatever the hint.
    pub fn allow_all<S: Into<String>>(mut self, issuers: impl IntoIterator<Item = S>) -> Self {
        self.all = issuers.into_iter().map(Into::into).collect();
        self
    }

    /// Lets confidential clients end their tokens of these issuers by `jti` alone (Janssen's `token_type_hint=jti`; other
    /// profiles ignore the hint), where this recorder has seen them. Default: such a `jti` is a token that nobody knows.
    ///
    /// Who holds a `jti` holds no token, and may have it from a log: so the client must be the one that the token was
    /// issued to, and nobody learns of those of others. Those are answered as if they did not exist.
    pub fn jtis<S: Into<String>>(mut self, recorder: Recorder, issuers: impl IntoIterator<Item = S>) -> Self {
        self.jtis = Some((recorder, issuers.into_iter().map(Into::into).collect()));
        self
    }

    /// Lets clients authenticate themselves with an access token of this scope (see
    /// [`Clients::access_tokens`](super::Clients::access_tokens)). By default none will do: RFC 7009 §2.1 wants the
    /// client's own credentials, and whoever serves a client's requests holds its access tokens.
    pub fn bearer_scope(mut self, scope: impl Into<String>) -> Self {
        self.bearer_scope = Some(scope.into());
        self
    }

    /// Lets confidential clients revoke opaque tokens (whatever is not shaped like a JWT), within their quota. Give
    /// [`Verify::opaque`](crate::token::Verify::opaque) the same keys.
    ///
    /// Nothing here knows whose such a token is: who holds it may end it, as they may use it (RFC 7009 §5). Public
    /// clients, which anyone can claim to be, have no effect: they could fill the list with made-up tokens.
    ///
    /// `lifetime` is how long such a token lives at most, refreshing included: nothing in it says so, and its
    /// revocation leaves after that.
    pub fn opaque(mut self, keys: OpaqueKeys, lifetime: Duration) -> Self {
        self.opaque = Some((keys, lifetime));
        self
    }

    /// What a request comes to; what stands against it is answered at once.
    pub(super) async fn plan<B: Body>(&self, context: &Context<'_>, head: &Parts, body: B) -> Result<Plan, Refused> {
        let (client, form, body) = self.intake.form(context, head, body).await?;
        if client.method() == Some(AuthMethod::Bearer)
            && !self.bearer_scope.as_deref().is_some_and(|scope| client.has_scope(scope))
        {
            return Err(Refused::of(client, Refusal::Scope));
        }
        match self.intent(context, &client, &form).await {
            Ok(intent) => {
                let (success, reach) = (Answer::ok(), Reach::default());
                Ok(Plan { client, intent, success, reach, body })
            }
            Err(refusal) => Err(Refused::of(client, refusal)),
        }
    }

    async fn intent(&self, context: &Context<'_>, client: &Client, form: &Form) -> Result<Intent, Refusal> {
        context.check_on()?;
        let token = form.get("token").ok_or(Refusal::NoToken)?;
        if !self.all.is_empty() && token.eq_ignore_ascii_case("all") {
            return self.all_of(client);
        }
        let by_jti = context.ways.takes_jtis && form.get("token_type_hint") == Some("jti");
        if !context.ways.takes_lists {
            return self.one(context, client, token, by_jti).await;
        }
        let tokens: Vec<&str> = token.split(' ').filter(|token| !token.is_empty()).collect();
        match tokens.len() {
            0 => return Err(Refusal::NoToken),
            1..=MAX_TOKENS => {}
            _ => return Err(Refusal::TooManyTokens),
        }
        let mut each = Vec::with_capacity(tokens.len());
        let mut why = "";
        for token in tokens {
            match self.one(context, client, token, by_jti).await? {
                Intent::Told => {}
                Intent::Nothing(nothing) => why = nothing,
                Intent::Revoke(some) => each.extend(some),
                // No token is an account.
                #[cfg(feature = "signals")]
                Intent::Accounts(_, some) => each.extend(some),
            }
        }
        Ok(if each.is_empty() { Intent::Nothing(why) } else { Intent::Revoke(each) })
    }

    /// What it comes to that this client wishes to revoke all of its tokens.
    fn all_of(&self, client: &Client) -> Result<Intent, Refusal> {
        // Anyone could log everybody out of a public client.
        if !client.is_confidential() {
            return Err(Refusal::PublicClient);
        }
        let revoke = |iss: &String| {
            let revocation = Revocation::new(Scope::client(iss, client.id()));
            revocation.reason("token_revocation_all").revoked_by(client.id())
        };
        let all: Vec<_> = self.all.iter().filter(|iss| client.has_issuer(iss)).map(revoke).collect();
        if all.is_empty() { Err(Refusal::Foreign) } else { Ok(Intent::Revoke(all)) }
    }

    /// What it comes to that this client wishes to revoke this token, or the token with this `jti`.
    async fn one(&self, context: &Context<'_>, client: &Client, token: &str, by_jti: bool) -> Result<Intent, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::LongToken);
        }
        if by_jti {
            let known = self.by_jti(client, token).await?;
            if !known.is_empty() {
                return Ok(Intent::Revoke(known));
            }
        }
        let denylist = context.revocations.denylist();
        let now = denylist.exact_now().unix();
        let revocations = match &self.opaque {
            // The same fork as at the check: what is looked up as opaque is revoked as opaque.
            Some((keys, lifetime)) if !CompactJws::looks_like(token) => {
                if !client.is_confidential() {
                    return Ok(Intent::Nothing("opaque_token_of_a_public_client"));
                }
                let Some(digest) = keys.digests(token.as_bytes()).next() else { return Err(Refusal::NotRecorded) };
                let until = now.saturating_add(lifetime.as_secs());
                vec![Revocation::new(Scope::opaque_token(digest)).token_expires(until).owned_by_client(client.id())]
            }
            _ => match self.verifier.verify_expired(token, now) {
                Ok(identity) => self.revocations_of(&identity, client, context.ways).await?,
                Err(VerifyError::KeyNotAvailable) => return Err(Refusal::KeyNotAvailable),
                Err(_) if context.ways.refuses_undecodable => return Err(Refusal::Undecodable),
                Err(error) => return Ok(Intent::Nothing(error.as_str())),
            },
        };
        let why = |revocation: Revocation| revocation.reason("token_revocation").revoked_by(client.id());
        Ok(Intent::Revoke(revocations.into_iter().map(why).collect()))
    }

    /// What ends the client's own tokens with this `jti`, as far as the recorder has seen them.
    async fn by_jti(&self, client: &Client, jti: &str) -> Result<Vec<Revocation>, Refusal> {
        let mut all = Vec::new();
        let Some((recorder, issuers)) = self.jtis.as_ref().filter(|_| client.is_confidential()) else {
            return Ok(all);
        };
        for iss in issuers.iter().filter(|iss| client.has_issuer(iss)) {
            let token = Scope::token(iss, jti);
            let grant = recorder.grant_of(&token).await.map_err(|_| Refusal::NotRecorded)?;
            let Some(grant) = grant.filter(|grant| grant.client_id.as_deref() == Some(client.id())) else { continue };
            let session = grant.sid.map(|sid| Scope::client_session(iss, sid, client.id()));
            all.extend(session.into_iter().chain([token]).map(|scope| {
                let revocation = Revocation::new(scope).token_expires(grant.expires).owned_by_client(client.id());
                revocation.reason("token_revocation").revoked_by(client.id())
            }));
        }
        Ok(all)
    }

    async fn revocations_of(
        &self,
        identity: &Identity,
        client: &Client,
        ways: &Ways,
    ) -> Result<Vec<Revocation>, Refusal> {
        let owner = self.owner(identity, client, ways)?;
        let iss = identity.iss();
        let revocations = match (identity.sid(), owner) {
            // The token too: whoever checks it may not read the session or the client from it.
            (Some(sid), Some(owner)) => {
                let session = Revocation::new(Scope::client_session(iss, sid, owner));
                std::iter::once(session).chain(token_of(identity).ok()).collect()
            }
            (Some(_), None) => vec![token_of(identity)?],
            (None, owner) => {
                let session = match self.session_of(identity).await?.as_deref() {
                    Some(sid) if ways.sessions_are_of_one_client => Some(Scope::session(iss, sid)),
                    Some(sid) => owner.map(|owner| Scope::client_session(iss, sid, owner)),
                    None => None,
                };
                // The token too, since it does not say that it belongs to the session.
                session.map(Revocation::new).into_iter().chain([token_of(identity)?]).collect()
            }
        };
        let claims = identity.claims();
        let owned = |revocation: Revocation| revocation.with_times_of(&claims).owned_by(identity, client.id());
        Ok(revocations.into_iter().map(owned).collect())
    }

    /// The client that a token was issued to, where this one may revoke it; `None` for one that names nobody.
    fn owner<'a>(&self, identity: &'a Identity, client: &Client, ways: &Ways) -> Result<Option<&'a str>, Refusal> {
        if !client.has_issuer(identity.iss()) {
            return Err(Refusal::Foreign);
        }
        match identity.client_id() {
            Some(owner) if owner == client.id() || self.ends_any_token(client) => Ok(Some(owner)),
            Some(_) => Err(Refusal::Foreign),
            None => match self.unowned.unwrap_or(ways.unowned) {
                Unowned::Allow => Ok(None),
                Unowned::AllowConfidential if client.is_confidential() => Ok(None),
                _ if self.ends_any_token(client) => Ok(None),
                _ => Err(Refusal::Unowned),
            },
        }
    }

    /// Whether the client may end tokens of other clients.
    pub(super) fn ends_any_token(&self, client: &Client) -> bool {
        self.other_clients && client.is_confidential() && client.has_scope(ANY_TOKEN)
    }

    async fn session_of(&self, identity: &Identity) -> Result<Option<String>, Refusal> {
        let Some(jti) = identity.jti() else { return Ok(None) };
        self.directory.session_of_token(identity.iss(), jti).await.map_err(|error| {
            users::log(&error);
            Refusal::DirectoryUnavailable
        })
    }
}

fn token_of(identity: &Identity) -> Result<Revocation, Refusal> {
    Revocation::token_of(identity).ok_or(Refusal::Nameless)
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("intake", &self.intake)
            .field("unowned", &self.unowned)
            .field("opaque", &self.opaque)
            .field("other_clients", &self.other_clients)
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}
