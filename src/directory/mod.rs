//! Who a user is, and which sessions and tokens belong together.
//!
//! [`ClaimsOnly`] knows nothing but what requests say; a file, a database and what a
//! [`Recorder`](crate::recorder::Recorder) has seen are the others. Bring your own with [`Directory`]:
//!
//! ```
//! use futures_util::future::{BoxFuture, FutureExt as _};
//! use tower_revocation::directory::{Directory, DirectoryError, User};
//!
//! struct Accounts;
//!
//! impl Directory for Accounts {
//!     fn find_users<'a>(
//!         &'a self,
//!         attribute: &'a str,
//!         value: &'a str,
//!         issuers: &'a [String],
//!     ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
//!         async move {
//!             // Only of these issuers: the caller has no say over others.
//!             let found = attribute == "email" && value == "alice@example.com";
//!             Ok(issuers.iter().filter(|_| found).map(|iss| User::new(iss, "alice")).collect())
//!         }
//!         .boxed()
//!     }
//!
//!     fn sessions_of<'a>(&'a self, _: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
//!         async { Ok(Vec::new()) }.boxed()
//!     }
//!
//!     fn session_of_token<'a>(
//!         &'a self,
//!         _: &'a str,
//!         _: &'a str,
//!     ) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
//!         async { Ok(None) }.boxed()
//!     }
//! }
//! ```

mod claims;
#[cfg(feature = "directory-file")]
mod file;
mod recorded;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;

pub use self::claims::ClaimsOnly;
#[cfg(feature = "directory-file")]
pub use self::file::FileDirectory;
pub use self::recorded::RecordedDirectory;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use self::sql::{SqlDirectory, SqlStatements};

use std::{error::Error, fmt, sync::Arc};

use futures_util::future::BoxFuture;

/// A user: one subject of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct User {
    /// Who issues the user's tokens.
    pub iss: String,
    /// The user's `sub` in them.
    pub sub: String,
}

impl User {
    /// A user.
    pub fn new(iss: impl Into<String>, sub: impl Into<String>) -> Self {
        Self { iss: iss.into(), sub: sub.into() }
    }
}

/// Answers the three questions that revocation has about users.
///
/// What it does not know it says so: an empty answer means "nobody" or "nothing known", never "an error".
pub trait Directory: Send + Sync + 'static {
    /// The users whose attribute `attribute` has the value `value`, first match first, of these issuers only.
    ///
    /// Attributes are the names that an application uses (`uid`, `mail`), and for RFC 9493 subject identifiers the
    /// names of their formats: `email`, `phone_number`, `account`, `did`, `uri`, `opaque`.
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>>;

    /// The sessions (`sid`) of a user that it knows.
    fn sessions_of<'a>(&'a self, user: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>>;

    /// The session (`sid`) that a token belongs to.
    fn session_of_token<'a>(
        &'a self,
        iss: &'a str,
        jti: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, DirectoryError>>;
}

impl<D: Directory + ?Sized> Directory for Arc<D> {
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        (**self).find_users(attribute, value, issuers)
    }

    fn sessions_of<'a>(&'a self, user: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        (**self).sessions_of(user)
    }

    fn session_of_token<'a>(
        &'a self,
        iss: &'a str,
        jti: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        (**self).session_of_token(iss, jti)
    }
}

/// A directory could not answer.
#[derive(Debug)]
pub struct DirectoryError {
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl DirectoryError {
    /// An error; `what` says what was tried, on what, and what to do.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl Error for DirectoryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
