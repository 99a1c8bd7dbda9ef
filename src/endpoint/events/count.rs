//! What was received, in numbers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::set::Event;

/// What came in since the start. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    events: [AtomicU64; Event::NAMES.len()],
    unknown_subjects: AtomicU64,
    refused: AtomicU64,
    too_fast: AtomicU64,
}

/// What an [`EventsEndpoint`](super::EventsEndpoint) has received since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventCounts {
    /// Events that were understood, by type; `unknown` are those of other types, which are accepted too. They count when
    /// they come, also where they were not recorded.
    pub events: [(&'static str, u64); Event::NAMES.len()],
    /// Events about users that nobody knows here: nothing was done.
    pub unknown_subjects: u64,
    /// Messages that were refused: not authentic, malformed, about others' subjects.
    pub refused: u64,
    /// Messages that came faster than the transmitter's rate.
    pub too_fast: u64,
}

impl Counters {
    pub(super) fn event(&self, event: Event) {
        if let Some(place) = Event::NAMES.iter().position(|(known, _)| *known == event) {
            self.0.events[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn unknown_subject(&self) {
        self.0.unknown_subjects.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn too_fast(&self) {
        self.0.too_fast.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> EventCounts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut events = Event::NAMES.map(|(_, name)| (name, 0));
        for ((_, count), counter) in events.iter_mut().zip(&self.0.events) {
            *count = load(counter);
        }
        EventCounts {
            events,
            unknown_subjects: load(&self.0.unknown_subjects),
            refused: load(&self.0.refused),
            too_fast: load(&self.0.too_fast),
        }
    }
}
