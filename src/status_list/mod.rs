//! Token Status Lists (draft-ietf-oauth-status-list): honoured for tokens that point to one, and published for resource
//! servers that do not run this crate.

mod fetch;
mod held;
mod list;
mod lists;
mod settings;
mod token;

pub(crate) use self::lists::{Listed, Standing};
pub use self::{
    list::{Bits, DoesNotFit, StatusList},
    lists::{StatusListCounts, StatusLists},
    settings::{StatusListsBuilder, StatusListsError, Unavailable},
    token::Unreadable,
};
pub use crate::token::{Status, StatusClaim, StatusPlace, StatusRef};
