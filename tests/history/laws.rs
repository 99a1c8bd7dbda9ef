//! What happened, and whether it may have: clients revoke and check on any node, and each answer is held against the
//! promises of `docs/consistency.md`.

use std::{collections::HashMap, time::Duration};

/// How long after a success elsewhere a node may still not know of it, for this staleness bound.
pub fn bound(refuse_after: Duration) -> Duration {
    refuse_after + refuse_after / 64 + Duration::from_millis(50)
}

/// A number for what is revoked, and for the token that it is about.
pub type Item = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// Durable, and enforced by the node that answered.
    Local,
    /// Enforced by every node.
    Everywhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Allow,
    Deny,
    /// The node refuses, since it cannot tell.
    Unknown,
}

/// One thing that a client did, and when by the clock of the test.
#[derive(Clone, Debug)]
pub struct Event {
    pub item: Item,
    pub node: usize,
    pub start: Duration,
    pub end: Duration,
    pub what: What,
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    Revoked(Success),
    /// It may have happened or not.
    NotRevoked,
    Checked(Answer),
}

#[derive(Debug, Default)]
pub struct History {
    pub events: Vec<Event>,
}

impl History {
    /// What breaks a promise, in words.
    pub fn violations(&self, refuse_after: Duration) -> Vec<String> {
        let bound = bound(refuse_after);
        let mut items: HashMap<Item, Vec<&Event>> = HashMap::new();
        for event in &self.events {
            items.entry(event.item).or_default().push(event);
        }
        let mut violations = Vec::new();
        for events in items.values() {
            let allowed = events.iter().filter(|event| matches!(event.what, What::Checked(Answer::Allow)));
            for check in allowed {
                for earlier in events {
                    let elsewhere = check.start > earlier.end + bound;
                    let here = earlier.node == check.node && check.start > earlier.end;
                    let law = match earlier.what {
                        What::Revoked(Success::Everywhere) if check.start > earlier.end => "revoked everywhere",
                        What::Revoked(_) if here => "revoked on this node",
                        What::Revoked(_) if elsewhere => "revoked elsewhere, longer ago than the staleness bound",
                        What::Checked(Answer::Deny) if here => "refused by this node before",
                        What::Checked(Answer::Deny) if elsewhere => {
                            "refused elsewhere, longer ago than the staleness bound"
                        }
                        _ => continue,
                    };
                    violations.push(format!("allowed, though {law}: {check:?} after {earlier:?}"));
                    break;
                }
            }
        }
        violations
    }

    /// How many events of a kind there are.
    pub fn count(&self, kind: impl Fn(&What) -> bool) -> usize {
        self.events.iter().filter(|event| kind(&event.what)).count()
    }

    /// What succeeded.
    pub fn revoked(&self) -> Vec<Item> {
        let mut items: Vec<_> =
            self.events.iter().filter(|event| matches!(event.what, What::Revoked(_))).map(|event| event.item).collect();
        items.sort_unstable();
        items.dedup();
        items
    }
}

/// A generator for which the seed is everything.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D)
    }

    /// SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// The checker sees what it is there to see.
pub fn selftest() {
    let refuse_after = Duration::from_secs(1);
    let at = |node, start: u64, what| Event {
        item: 1,
        node,
        start: Duration::from_millis(start),
        end: Duration::from_millis(start + 10),
        what,
    };
    let violations = |events: &[Event]| History { events: events.to_vec() }.violations(refuse_after).len();
    let allow = |node, start| at(node, start, What::Checked(Answer::Allow));
    let deny = |node, start| at(node, start, What::Checked(Answer::Deny));
    let local = at(0, 100, What::Revoked(Success::Local));
    assert_eq!(violations(&[allow(0, 0), allow(1, 105), local.clone(), deny(0, 120)]), 0);
    assert_eq!(violations(&[local.clone(), allow(0, 111)]), 1);
    assert_eq!(violations(&[local.clone(), allow(1, 111), allow(1, 1100)]), 0);
    assert_eq!(violations(&[local, allow(1, 1200)]), 1);
    assert_eq!(violations(&[at(0, 100, What::Revoked(Success::Everywhere)), allow(1, 111)]), 1);
    assert_eq!(violations(&[at(0, 100, What::NotRevoked), allow(0, 2000)]), 0);
    assert_eq!(violations(&[deny(1, 0), allow(1, 20)]), 1);
    assert_eq!(violations(&[deny(1, 0), allow(0, 20)]), 0);
}
