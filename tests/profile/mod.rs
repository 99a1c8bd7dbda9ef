//! What the tests of the profiles share: a deployment, tables of requests, and the rows that hold in several profiles.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::needless_pass_by_value,
    missing_docs
)]

pub mod rows;
pub mod site;
pub mod table;
