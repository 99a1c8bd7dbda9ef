//! The options of single commands, as the API takes them.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::exit::Failure;

/// Which tokens of a scope to refuse.
#[derive(Debug, Args)]
pub(super) struct Reach {
    /// Refuses what was issued until then: Unix seconds, an RFC 3339 time in UTC, `now` or `forever`.
    #[arg(long, value_name = "TIME", conflicts_with = "ban")]
    cutoff: Option<String>,
    /// Refuses every token of the scope, later ones too, until this is lifted.
    #[arg(long, conflicts_with_all = ["token", "token_file", "jti"])]
    ban: bool,
}

/// How to revoke.
#[derive(Debug, Args)]
pub(super) struct How {
    #[command(flatten)]
    reach: Reach,
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who asks, for the audit trail.
    #[arg(long, value_name = "NAME", env = "USER")]
    by: Option<String>,
    /// How far success reaches.
    #[arg(long, value_enum, default_value_t = Wait::Local)]
    wait: Wait,
    /// How long to wait for other nodes, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    wait_limit: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// This node refuses.
    Local,
    /// Every node does.
    All,
}

impl Reach {
    /// Adds itself to what is to be revoked.
    pub(super) fn add_to(self, asked: &mut Value) {
        let Self { cutoff, ban } = self;
        asked["ban"] = ban.into();
        if let Some(cutoff) = cutoff {
            asked["cutoff"] = cutoff.parse::<u64>().map_or_else(|_| cutoff.into(), Value::from);
        }
    }
}

impl How {
    /// Adds itself to what is to be revoked.
    pub(super) fn add_to(self, asked: &mut Value) -> Result<(), Failure> {
        let Self { reach, reason, by, wait, wait_limit } = self;
        reach.add_to(asked);
        asked["wait"] = if wait == Wait::All { "all" } else { "local" }.into();
        asked["wait_limit"] = wait_limit.into();
        if reason.as_ref().is_some_and(String::is_empty) {
            return Err(Failure::usage("the reason is empty"));
        }
        // `$USER` may be.
        for (name, text) in [("reason", reason), ("by", by.filter(|by| !by.is_empty()))] {
            if let Some(text) = text {
                asked[name] = json!(text);
            }
        }
        Ok(())
    }
}

/// Which revocations to list.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// Those that hold this text somewhere, whatever its case.
    text: Option<String>,
    /// Only this kind of scope: token, session, subject, client, issuer, ...
    #[arg(long)]
    scope: Option<String>,
    /// Only this issuer.
    #[arg(long, value_name = "ISS")]
    issuer: Option<String>,
    /// Only this session.
    #[arg(long, value_name = "SID")]
    session: Option<String>,
    /// Only this user.
    #[arg(long, value_name = "SUB")]
    subject: Option<String>,
    /// Only this client.
    #[arg(long, value_name = "CLIENT_ID")]
    client: Option<String>,
    /// How many at most; default: all.
    #[arg(long, value_name = "COUNT")]
    pub(super) limit: Option<NonZeroUsize>,
}

impl Wanted {
    /// The request for a page of at most `limit`, after `place`.
    pub(super) fn page(&self, limit: usize, place: Option<&str>) -> String {
        let Self { text, scope, issuer, session, subject, client, .. } = self;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &limit.to_string());
        let all =
            [("q", text), ("scope", scope), ("iss", issuer), ("sid", session), ("sub", subject), ("client_id", client)];
        for (name, value) in all {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        if let Some(place) = place {
            query.append_pair("after", place);
        }
        format!("/api/v1/revocations?{}", query.finish())
    }
}
