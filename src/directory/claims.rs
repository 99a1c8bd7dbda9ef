use futures_util::future::{self, BoxFuture, FutureExt};

use super::{Directory, DirectoryError, User};

/// No store at all: a user can be named by `sub` only, and no sessions are known.
///
/// A subject cutoff reaches all of a user's tokens without either.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClaimsOnly;

impl Directory for ClaimsOnly {
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        let issuers = if attribute == "sub" { issuers } else { &[] };
        future::ready(Ok(issuers.iter().map(|iss| User::new(iss, value)).collect())).boxed()
    }

    fn sessions_of<'a>(&'a self, _: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        future::ready(Ok(Vec::new())).boxed()
    }

    fn session_of_token<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        future::ready(Ok(None)).boxed()
    }
}
