use http::request::Parts;
use http_body::Body;

use super::{
    Answer, Client, ClientAuthenticator, SeveralUsers,
    form::Form,
    intake::{Context, Intake, intake_settings},
    plan::{Intent, Plan, Reach, Refused},
    refusal::Refusal,
    users::{self, Users},
};
use crate::directory::Directory;

/// The scope that a client needs.
const SCOPE: &str = "revoke_session";

/// The session revocation endpoint, as Janssen Server documents it: ends every session of a user.
///
/// The user is named by two form parameters, `user_criterion_key` (an attribute, say `uid`) and
/// `user_criterion_value`. The caller is a confidential client with the scope `revoke_session`.
///
/// - Ends the sessions that the [`Directory`] knows, for ever, and every token of the user issued until now: not all
///   sessions need be known, and each token of any of them must be refused. A login after that works.
/// - The answer is 200 whether or not the user exists. Nobody without the scope makes the directory be asked.
/// - A parameter that is missing or empty is `invalid_request`, never "nothing to do".
/// - Only users of the endpoint's issuers count, and of those only what the client has a say over.
/// - 200 is answered only once all of it is durable and enforced here; else 503 with `Retry-After`.
#[derive(Debug)]
#[must_use]
pub struct SessionEndpoint {
    intake: Intake,
    users: Users,
}

impl SessionEndpoint {
    /// The endpoint for users of these issuers that `directory` knows, and clients that `clients` knows.
    pub fn new<S: Into<String>>(
        directory: impl Directory,
        issuers: impl IntoIterator<Item = S>,
        clients: impl ClientAuthenticator,
    ) -> Self {
        Self { intake: Intake::new(clients), users: Users::new(directory, issuers) }
    }

    intake_settings!();

    /// What to do where several users match. Default: [`SeveralUsers::All`].
    pub const fn several_users(mut self, several: SeveralUsers) -> Self {
        self.users.several = Some(several);
        self
    }

    /// What a request comes to; what stands against it is answered at once.
    pub(super) async fn plan<B: Body>(&self, context: &Context<'_>, head: &Parts, body: B) -> Result<Plan, Refused> {
        let (client, form, body) = self.intake.form(context, head, body).await?;
        match self.intent(context, &client, &form).await {
            Ok((intent, reach)) => Ok(Plan { client, intent, success: Answer::ok(), reach, body }),
            Err(refusal) => Err(Refused::of(client, refusal)),
        }
    }

    async fn intent(&self, context: &Context<'_>, client: &Client, form: &Form) -> Result<(Intent, Reach), Refusal> {
        let issuers = self.users.authorized(client, SCOPE, context)?;
        let (Some(key), Some(value)) = (form.get("user_criterion_key"), form.get("user_criterion_value")) else {
            return Err(Refusal::NoCriterion);
        };
        let unavailable = |error| {
            users::log(&error);
            Refusal::DirectoryUnavailable
        };
        let mut found = Vec::new();
        self.users.find(key, value, &issuers, &mut found).await.map_err(unavailable)?;
        let chosen = Users::choose(found, self.users.several.unwrap_or(context.ways.several_users_session))?;
        if chosen.is_empty() {
            return Ok((Intent::Nothing("unknown_user"), Reach::default()));
        }
        let (revocations, reach) =
            self.users.revocations(&chosen, None, "session_revocation", client).await.map_err(unavailable)?;
        Ok((Intent::Revoke(revocations), reach))
    }
}
