//! Whom a request is about, and what ends their logins.

use std::{fmt, sync::Arc};

use http::StatusCode;

use super::{AuthMethod, Client, intake::Context, plan::Reach, refusal::Refusal};
use crate::{
    directory::{Directory, DirectoryError, User},
    revocation::{Cutoff, Revocation, Scope},
};

/// What to do where several users match. Users of issuers that the client has no say over never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SeveralUsers {
    /// Log all of them out.
    All,
    /// Log the first one out, in the directory's order.
    First,
    /// Log nobody out: 400 `invalid_request`. The caller learns that there are several.
    Refuse,
}

/// The users that an endpoint can reach.
pub(super) struct Users {
    directory: Arc<dyn Directory>,
    pub(super) issuers: Vec<String>,
    /// `None`: as the profile has it.
    pub(super) several: Option<SeveralUsers>,
}

impl Users {
    pub(super) fn new<S: Into<String>>(directory: impl Directory, issuers: impl IntoIterator<Item = S>) -> Self {
        let issuers = issuers.into_iter().map(Into::into).collect();
        Self { directory: Arc::new(directory), issuers, several: None }
    }

    /// The issuers that the client has a say over, where it may use the endpoint at all.
    ///
    /// Asked before anything of the request is looked at: who may not ask learns nothing about users.
    pub(super) fn authorized(
        &self,
        client: &Client,
        scope: &str,
        context: &Context<'_>,
    ) -> Result<Vec<String>, Refusal> {
        if !client.is_confidential() {
            return Err(Refusal::Client { challenge: true });
        }
        context.check_on()?;
        let issuers: Vec<String> = self.issuers.iter().filter(|iss| client.has_issuer(iss)).cloned().collect();
        if client.has_scope(scope) && !issuers.is_empty() {
            return Ok(issuers);
        }
        // RFC 6750 §3.1: who showed a token is told that it is the token that lacks the scope.
        let bearer = client.method() == Some(AuthMethod::Bearer);
        let says_so = bearer && context.ways.no_scope.0 == StatusCode::FORBIDDEN;
        Err(if says_so { Refusal::Scope } else { Refusal::NoScope { bearer } })
    }

    /// Adds the users with this attribute, of these issuers and no others.
    pub(super) async fn find(
        &self,
        attribute: &str,
        value: &str,
        issuers: &[String],
        found: &mut Vec<User>,
    ) -> Result<(), DirectoryError> {
        for user in self.directory.find_users(attribute, value, issuers).await? {
            if issuers.contains(&user.iss) && !found.contains(&user) {
                found.push(user);
            }
        }
        Ok(())
    }

    /// Those of the users that something happens to.
    pub(super) fn choose(mut users: Vec<User>, several: SeveralUsers) -> Result<Vec<User>, Refusal> {
        match several {
            SeveralUsers::First => users.truncate(1),
            SeveralUsers::Refuse if users.len() > 1 => return Err(Refusal::SeveralUsers),
            SeveralUsers::Refuse | SeveralUsers::All => {}
        }
        Ok(users)
    }

    /// Ends all that these users have: every token issued until now, and for ever the sessions that are known, which
    /// reaches tokens that do not say when they were issued.
    pub(super) async fn revocations(
        &self,
        users: &[User],
        cutoff: Option<Cutoff>,
        reason: &'static str,
        client: &Client,
    ) -> Result<(Vec<Revocation>, Reach), DirectoryError> {
        let revoke = |scope| Revocation::new(scope).reason(reason).revoked_by(client.id());
        let mut revocations = Vec::with_capacity(users.len());
        let mut reach = Reach { users: users.len(), sessions: 0 };
        for user in users {
            let subject = revoke(Scope::subject(&user.iss, &user.sub));
            revocations.push(match cutoff {
                Some(cutoff) => subject.cutoff(cutoff),
                None => subject,
            });
            let sessions = self.directory.sessions_of(user).await?;
            reach.sessions += sessions.len();
            revocations.extend(sessions.into_iter().map(|sid| revoke(Scope::session(&user.iss, sid))));
        }
        Ok((revocations, reach))
    }
}

/// Tells the operator what the caller is not told.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "logs nothing"))]
pub(super) fn log(error: &DirectoryError) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, "the directory could not answer");
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("issuers", &self.issuers).field("several", &self.several).finish_non_exhaustive()
    }
}
