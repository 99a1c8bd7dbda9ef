//! Lists and searches what is revoked.

use std::{cmp::Reverse, collections::BTreeMap, pin::pin};

use futures_util::StreamExt as _;
use http::{Response, StatusCode, Uri};
use serde_json::json;
use tower_revocation::revocation::{Record, ScopeKind};

use super::{
    Inner,
    answer::{self, AdminBody, Problem},
    live::{Piece, live, live_record, lookup},
    route::Route,
    scope::{Listed, ScopeText},
};

/// The parameters of a request.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Those of `uri`, all of which `route` has.
    pub(super) fn new(route: &Route, uri: &Uri) -> Result<Self, Problem> {
        let given = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect::<Vec<_>>();
        for (index, (name, _)) in given.iter().enumerate() {
            if route.query.iter().all(|(known, _)| known != name) {
                return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "there is a parameter too many"));
            }
            if given[..index].iter().any(|(other, _)| other == name) {
                return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_request", format!("{name} is given twice")));
            }
        }
        Ok(Self(given))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// How many on a page, unless it is said, and at most.
const USUAL: usize = 100;
const MOST: usize = 1000;

/// Newest first; what has the same time, by key and id: the same on every node and for every page.
type Place = (Reverse<u64>, [u8; 16], u64);

struct Wanted {
    scope: ScopeText,
    text: Option<String>,
    after: Option<Place>,
    limit: usize,
}

pub(super) async fn answer(inner: &Inner, query: &Query) -> Result<Response<AdminBody>, Problem> {
    let wanted = Wanted::new(query)?;
    let revocations = inner.engine.revocations();
    let mut page = BTreeMap::new();
    let mut unreadable = 0;
    // Whoever names a scope in full need not wait until everything is read.
    if let Some(scope) = wanted.scope.read() {
        let denylist = revocations.denylist();
        let keys = [denylist.hasher().key(&scope)];
        let changes = lookup(revocations, &keys).await?;
        for record in changes.into_iter().filter_map(|change| live_record(denylist, change)) {
            wanted.consider(&record, &mut page);
        }
    } else {
        let _turn = inner.turn().await?;
        let mut pieces = pin!(live(revocations));
        while let Some(piece) = pieces.next().await {
            match piece? {
                Piece::Records(records) => records.iter().for_each(|record| wanted.consider(record, &mut page)),
                Piece::Unreadable(_) => unreadable += 1,
            }
        }
    }
    let more = page.len() > wanted.limit;
    if more {
        page.pop_last();
    }
    let next = page.last_key_value().filter(|_| more).map(|(place, _)| write(place));
    let page: Vec<Listed> = page.into_values().collect();
    Ok(answer::json(StatusCode::OK, &json!({ "revocations": page, "next": next, "unreadable": unreadable })))
}

impl Wanted {
    fn new(query: &Query) -> Result<Self, Problem> {
        let own = |name: &str| query.get(name).map(str::to_owned);
        let kind = own("scope").unwrap_or_default();
        if !kind.is_empty() && ScopeKind::ALL.iter().all(|known| known.as_str() != kind) {
            let kinds = ScopeKind::ALL.map(ScopeKind::as_str).join(", ");
            return Err(Problem::unprocessable(format!("scope is none of {kinds}")));
        }
        let limit = query.get("limit").map_or(Ok(USUAL), str::parse);
        let limit = limit.ok().filter(|limit| (1..=MOST).contains(limit));
        let limit = limit.ok_or_else(|| Problem::unprocessable(format!("limit is not between 1 and {MOST}")))?;
        let after = query.get("after").map(|place| {
            read(place).ok_or_else(|| Problem::unprocessable("after is no place that an earlier answer named"))
        });
        Ok(Self {
            scope: ScopeText {
                kind,
                iss: own("iss"),
                jti: own("jti"),
                sid: own("sid"),
                sub: own("sub"),
                client_id: own("client_id"),
                sha256: own("sha256"),
                digest: own("digest"),
            },
            text: query.get("q").map(str::to_lowercase),
            after: after.transpose()?,
            limit,
        })
    }

    /// Puts a record on the page if it belongs there; the page holds one more than it will show.
    fn consider(&self, record: &Record, page: &mut BTreeMap<Place, Listed>) {
        if !self.scope.kind.is_empty() && record.key().kind().as_str() != self.scope.kind {
            return;
        }
        let listed = Listed::from(record);
        let place = (Reverse(listed.revoked_at), record.key().to_bytes(), record.id().as_u64());
        let full = page.len() > self.limit;
        if self.after.is_some_and(|after| place <= after)
            || full && page.last_key_value().is_some_and(|(last, _)| place > *last)
            || !self.matches(&listed)
        {
            return;
        }
        page.insert(place, listed);
        if page.len() > self.limit + 1 {
            page.pop_last();
        }
    }

    fn matches(&self, listed: &Listed) -> bool {
        let empty = ScopeText::default();
        let scope = listed.scope.as_ref().unwrap_or(&empty);
        let values = |scope: &ScopeText| {
            let ScopeText { kind: _, iss, jti, sid, sub, client_id, sha256, digest } = scope.clone();
            [iss, jti, sid, sub, client_id, sha256, digest]
        };
        let mut pairs = values(&self.scope).into_iter().zip(values(scope));
        if !pairs.all(|(wanted, found)| wanted.is_none() || wanted == found) {
            return false;
        }
        let Some(text) = &self.text else { return true };
        let said = [listed.reason.clone(), listed.revoked_by.clone()];
        let own = [Some(listed.id.clone()), Some(scope.kind.clone())];
        let mut all = values(scope).into_iter().chain(said).chain(own).flatten();
        all.any(|value| value.to_lowercase().contains(text))
    }
}

fn write((Reverse(at), key, id): &Place) -> String {
    format!("{at:x}.{:032x}.{id:x}", u128::from_be_bytes(*key))
}

fn read(place: &str) -> Option<Place> {
    let mut parts = place.split('.');
    let (at, key, id) = (parts.next()?, parts.next()?, parts.next()?);
    let key = u128::from_str_radix(key, 16).ok()?.to_be_bytes();
    let place = (Reverse(u64::from_str_radix(at, 16).ok()?), key, u64::from_str_radix(id, 16).ok()?);
    parts.next().is_none().then_some(place)
}
