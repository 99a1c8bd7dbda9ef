use std::collections::HashSet;

use futures_util::future::{BoxFuture, FutureExt};

use super::{Directory, DirectoryError, User};
use crate::{backend::BackendError, recorder::Recorder};

/// A directory together with what a [`Recorder`] has learnt: who a user is comes from the directory, sessions and
/// tokens from both.
#[derive(Clone, Debug)]
pub struct RecordedDirectory<D> {
    users: D,
    recorder: Recorder,
}

impl<D: Directory> RecordedDirectory<D> {
    /// The directory `users`, and what `recorder` has learnt.
    pub const fn new(users: D, recorder: Recorder) -> Self {
        Self { users, recorder }
    }
}

fn failed(error: BackendError) -> DirectoryError {
    DirectoryError::new("asking the recorder for sessions").because(error)
}

impl<D: Directory> Directory for RecordedDirectory<D> {
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        self.users.find_users(attribute, value, issuers)
    }

    fn sessions_of<'a>(&'a self, user: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        async move {
            let mut sessions = self.users.sessions_of(user).await?;
            let mut known = sessions.iter().cloned().collect::<HashSet<_>>();
            let recorded = self.recorder.sessions_of_subject(&user.iss, &user.sub).await.map_err(failed)?;
            sessions.extend(recorded.into_iter().filter(|sid| known.insert(sid.clone())));
            Ok(sessions)
        }
        .boxed()
    }

    fn session_of_token<'a>(
        &'a self,
        iss: &'a str,
        jti: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        async move {
            match self.recorder.session_of_token(iss, jti).await.map_err(failed)? {
                Some(sid) => Ok(Some(sid)),
                None => self.users.session_of_token(iss, jti).await,
            }
        }
        .boxed()
    }
}
