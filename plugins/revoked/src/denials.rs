//! The requests that were refused last, for operators to look at. Nothing of a token is kept, nor whose it was.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::Method;
use serde::Serialize;
use tower_revocation::{denylist::Reason, reject::Rejection};

/// How many are kept of each sort.
const KEPT: usize = 128;
/// How many characters of a path are kept.
const PATH: usize = 120;
/// The longest part of a path that is kept, a UUID: what is longer may be a token.
const PART: usize = 36;
/// The longest method that is kept.
const METHOD: usize = 16;

/// The way in that a request took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// The reverse proxy.
    Proxy,
    /// The listener for gateways that ask over HTTP.
    ForwardAuth,
    /// The listener for Envoy over gRPC.
    ExtAuthz,
    /// The listener for HAProxy.
    Spoe,
}

impl Door {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Proxy, Self::ForwardAuth, Self::ExtAuthz, Self::Spoe];
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Denied {
    /// Counts up from 1 since the start.
    pub number: u64,
    /// When, in Unix milliseconds.
    pub denied_at: u64,
    /// Where it came in.
    pub door: Door,
    /// Why: the name that metrics have.
    pub reason: &'static str,
    /// The kind of scope that was revoked, where one was.
    pub scope: Option<&'static str>,
    /// Its method.
    pub method: String,
    /// Its path without the query, shortened; `…` stands for parts that may be tokens.
    pub path: String,
}

/// The last of them.
#[derive(Debug, Default)]
pub struct Denials {
    kept: Mutex<Kept>,
}

/// Who has no token of ours must not push out of sight what revocations refused.
#[derive(Debug, Default)]
struct Kept {
    last: u64,
    revoked: VecDeque<Denied>,
    others: VecDeque<Denied>,
}

impl Denials {
    /// Keeps a refusal, in place of the oldest of its sort.
    pub fn add(&self, door: Door, method: &Method, path: &str, rejection: Rejection) {
        let scope = match rejection {
            Rejection::Revoked(Reason::Revoked(kind) | Reason::NoIssueTime(kind)) => Some(kind.as_str()),
            _ => None,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let mut denied = Denied {
            number: 0,
            denied_at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            door,
            reason: rejection.as_str(),
            scope,
            method: method.as_str().chars().take(METHOD).collect(),
            path: shown(path),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.last += 1;
        denied.number = kept.last;
        let sort = if scope.is_some() { &mut kept.revoked } else { &mut kept.others };
        // What is pushed out is freed once others can go on.
        let oldest = if sort.len() == KEPT { sort.pop_front() } else { None };
        sort.push_back(denied);
        drop(kept);
        drop(oldest);
    }

    /// Those that are kept and came after `number`, newest first.
    pub fn since(&self, number: u64) -> Vec<Denied> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let all = kept.revoked.iter().chain(&kept.others);
        let mut newer: Vec<_> = all.filter(|denied| denied.number > number).cloned().collect();
        drop(kept);
        newer.sort_unstable_by_key(|denied| std::cmp::Reverse(denied.number));
        newer
    }
}

/// A path that people may see: not all of a long one, and nothing that could be a token.
fn shown(path: &str) -> String {
    let mut shown = String::with_capacity(path.len().min(PATH));
    for (index, part) in path.split('/').enumerate() {
        if index > 0 {
            shown.push('/');
        }
        // Tokens have no slash in them, and `;` begins parameters of a part.
        let may_be_token = part.len() > PART || part.starts_with("eyJ") || part.contains(['=', ';']);
        shown.push_str(if may_be_token { "…" } else { part });
        if shown.chars().count() > PATH {
            return shown.chars().take(PATH).chain(['…']).collect();
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower_revocation::revocation::ScopeKind;

    fn add(denials: &Denials, path: &str, rejection: Rejection) {
        denials.add(Door::Proxy, &Method::GET, path, rejection);
    }

    #[test]
    fn nothing_that_could_be_a_token_is_kept_of_a_path() {
        assert_eq!(
            shown("/orders/8c5f1b1e-1a7b-4f7e-9d6c-0d9b8a7c6e5f"),
            "/orders/8c5f1b1e-1a7b-4f7e-9d6c-0d9b8a7c6e5f"
        );
        let secrets = [&"a".repeat(PART + 1), "eyJhbGciOiJub25lIn0", "me;token=short", "token=short"];
        for secret in secrets {
            assert_eq!(shown(&format!("/reset/{secret}/now")), "/reset/…/now");
        }
        assert_eq!(shown(&"/abc".repeat(10_000)).chars().count(), PATH + 1);
    }

    #[test]
    fn it_is_bounded_and_a_flood_of_strangers_pushes_no_revoked_one_out() {
        let denials = Denials::default();
        add(&denials, "/first", Rejection::Revoked(Reason::Revoked(ScopeKind::Subject)));
        for index in 0..10 * KEPT {
            add(&denials, &format!("/{index}"), Rejection::NoToken);
        }
        let all = denials.since(0);
        assert_eq!(all.len(), KEPT + 1);
        let first = all.last().map(|denied| (denied.path.as_str(), denied.reason, denied.scope));
        assert_eq!(first, Some(("/first", "revoked", Some("subject"))));
        assert!(all.is_sorted_by(|one, next| one.number > next.number));
        let newest = all.first().map_or(0, |denied| denied.number);
        assert_eq!(denials.since(newest), []);
        assert_eq!(denials.since(newest - 2).len(), 2);
    }
}
