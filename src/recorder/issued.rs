use zeroize::Zeroizing;

use super::{Denied, Grant, Member, MemberKind, Recorder, Said};
use crate::{
    revocation::Scope,
    token::{CompactJws, Identity, Members, VerifiedClaims, VerifyError},
};

/// What one answer of the token endpoint issued (RFC 6749 §5.1).
pub(super) struct Issued {
    access: Option<Token>,
    refresh: Option<Token>,
    /// Who is logged in, by the ID token.
    id_token: Option<Identity>,
    issuer: Box<str>,
    offline: bool,
}

/// A token, by its digest and what it says of itself.
struct Token {
    digest: Scope,
    identity: Option<Identity>,
    kind: MemberKind,
    expires: u64,
}

impl Issued {
    /// Reads an answer; `None` where it issues nothing.
    pub(super) fn read(body: &[u8], recorder: &Recorder, now: u64) -> Result<Option<Self>, Denied> {
        let answer = Members::parse(body).map_err(|_| Denied::Unreadable)?;
        let text = |name| -> Result<Option<Zeroizing<String>>, Denied> {
            let value = answer.string(name).map_err(|_| Denied::Unreadable)?;
            Ok(value.map(|value| Zeroizing::new(value.into_owned())))
        };
        let Some(access) = text("access_token")? else { return Ok(None) };
        // Some servers write numbers as strings, and 0 for "does not expire".
        let lives = |name| match answer.time(name) {
            Ok(seconds) => seconds.filter(|seconds| *seconds > 0),
            Err(_) => text(name).ok().flatten().and_then(|seconds| seconds.parse().ok()),
        };
        let longest = recorder.revocations.denylist().lifetimes().max_lifetime_secs();
        let access = Token::access(&access, lives("expires_in").unwrap_or(longest), recorder, now)?;
        let refresh = match text("refresh_token")? {
            Some(token) => {
                let lives = lives("refresh_expires_in").or_else(|| lives("refresh_token_expires_in"));
                Some(Token::refresh(&token, lives.unwrap_or(recorder.refresh_lives()), recorder, now)?)
            }
            None => None,
        };
        let id_token = text("id_token")?.and_then(|token| peek(&token, recorder));
        let scope = text("scope").ok().flatten().unwrap_or_default();
        let offline = scope.split(' ').any(|scope| scope == "offline_access");
        Ok(Some(Self { access, refresh, id_token, issuer: (*recorder.issuer).into(), offline }))
    }

    /// What the access token says, where it says anything.
    #[cfg(feature = "status-list")]
    pub(super) fn access_token(&self) -> Option<&Identity> {
        self.access.as_ref()?.identity.as_ref()
    }

    /// The refresh token first: it is what the grant lives by.
    pub(super) fn members(&self) -> Vec<Member> {
        self.tokens().map(Token::member).collect()
    }

    fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.refresh.iter().chain(&self.access)
    }

    /// The grant that this answer begins, if none is known: at `since` or before.
    pub(super) fn grant(&self, client: Option<&str>, since: u64) -> Grant {
        // The access token's word goes before that of the others.
        let said = || {
            let tokens = self.access.iter().chain(&self.refresh);
            tokens.filter_map(|token| token.identity.as_ref()).chain(&self.id_token)
        };
        let first = |claim: fn(&Identity) -> Option<&str>| said().find_map(claim).map(str::to_owned);
        let times = said().flat_map(|identity| [identity.iat(), identity.auth_time()]).flatten();
        let access = self.access.as_ref().and_then(|token| token.identity.as_ref());
        Grant {
            id: format!("grant:{:032x}", u128::from_ne_bytes(crate::random::bytes())),
            iss: access.map_or(&*self.issuer, Identity::iss).to_owned(),
            sid: first(Identity::sid),
            sub: first(Identity::sub),
            client_id: access.and_then(Identity::client_id).or(client).map(str::to_owned),
            began: times.fold(since, u64::min),
            expires: self.tokens().fold(since, |latest, token| latest.max(token.expires)),
            offline: self.offline,
            ended: false,
        }
    }
}

impl Token {
    /// `None` where the verifier does not accept it: nothing is learnt of it then.
    fn access(token: &str, lives: u64, recorder: &Recorder, now: u64) -> Result<Option<Self>, Denied> {
        let identity = match &recorder.verifier {
            Some(verifier) if CompactJws::looks_like(token) => match verifier.verify(token, now) {
                Ok(identity) => Some(identity),
                Err(VerifyError::KeyNotAvailable) => return Err(Denied::NotRecorded),
                #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "logs nothing"))]
                Err(error) => {
                    #[cfg(feature = "tracing")]
                    tracing::warn!(why = error.as_str(), "an access token was issued that is not accepted here");
                    return Ok(None);
                }
            },
            _ => peek(token, recorder),
        };
        Self::new(token, identity, MemberKind::Access, lives, recorder, now).map(Some)
    }

    fn refresh(token: &str, lives: u64, recorder: &Recorder, now: u64) -> Result<Self, Denied> {
        Self::new(token, peek(token, recorder), MemberKind::Refresh, lives, recorder, now)
    }

    fn new(
        token: &str,
        identity: Option<Identity>,
        kind: MemberKind,
        lives: u64,
        recorder: &Recorder,
        now: u64,
    ) -> Result<Self, Denied> {
        let digest = recorder.keys.digests(token.as_bytes()).next().ok_or(Denied::NotRecorded)?;
        let expires = identity.as_ref().and_then(Identity::exp).unwrap_or(now.saturating_add(lives));
        let expires = match kind {
            // What ended its grant is kept for no longer.
            MemberKind::Refresh => expires.min(now.saturating_add(recorder.refresh_bound())),
            MemberKind::Access => expires,
        };
        Ok(Self { digest: Scope::opaque_token(digest), identity, kind, expires })
    }

    fn member(&self) -> Member {
        let named = self.identity.as_ref().and_then(|identity| identity.claims().token_scope());
        let (token, alias) = match named {
            Some(named) => (named, Some(self.digest.clone())),
            None => (self.digest.clone(), None),
        };
        let says = self.identity.as_ref().map_or_else(Said::default, |identity| Said {
            sid: identity.sid().map(str::to_owned),
            sub: identity.sub().map(str::to_owned),
            client_id: identity.client_id().map(str::to_owned),
            iat: identity.iat(),
        });
        Member { token, alias, kind: self.kind, expires: self.expires, spent: false, says }
    }
}

/// The claims of a JWT that the authorization server itself has just handed out; `None` for an opaque token.
fn peek(token: &str, recorder: &Recorder) -> Option<Identity> {
    let jws = CompactJws::parse(token).ok()?;
    let members = Members::parse(&jws.payload).ok()?;
    let iss = members.string("iss").ok()?;
    let claims = members.claims(&recorder.names).ok()?;
    let iss = iss.as_deref().unwrap_or(&recorder.issuer);
    Some(Identity::from_verified(&claims.as_claims(iss, jws.signing_input)))
}
