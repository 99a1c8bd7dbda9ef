//! Token Status Lists (draft-ietf-oauth-status-list): honoured for tokens that point to one, and published for resource
//! servers that do not run this crate.

mod fetch;
mod held;
mod index;
mod list;
mod lists;
mod publish;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite_index;
mod token;

pub(crate) use self::lists::{Listed, Standing};
#[cfg(feature = "sqlite")]
pub use self::sqlite_index::SqliteIndex;
pub use self::{
    index::{IndexError, MemoryIndex, StatusIndex},
    list::{Bits, DoesNotFit, StatusList},
    lists::{StatusListCounts, StatusLists},
    publish::{PublishError, StatusListPublisher, StatusListService},
    settings::{StatusListsBuilder, StatusListsError, Unavailable},
    token::Unreadable,
};
pub use crate::token::{Status, StatusClaim, StatusPlace, StatusRef};
