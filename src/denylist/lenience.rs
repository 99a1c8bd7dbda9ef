//! What the guards of a list let through, so that its node can say so.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::revocation::ScopeKind;

/// How many guards serve while the list is stale, and how many do not refuse what is revoked, by kind of scope.
#[derive(Debug, Default)]
pub(crate) struct Lenience {
    serving: AtomicU32,
    shadowing: [AtomicU32; ScopeKind::ALL.len()],
}

impl Lenience {
    /// A guard serves from a stale list, whatever the list's own policy is.
    pub(crate) fn serve(&self) {
        self.serving.fetch_add(1, Ordering::Release);
    }

    /// A guard that did so is gone.
    pub(crate) fn serve_no_more(&self) {
        self.serving.fetch_sub(1, Ordering::Release);
    }

    /// A guard no longer refuses what is revoked for scopes of these kinds, a bit for each.
    pub(crate) fn shadow(&self, kinds: u32) {
        self.each(kinds, |guards| guards.fetch_add(1, Ordering::Release));
    }

    /// It does again, or is gone.
    pub(crate) fn shadow_no_more(&self, kinds: u32) {
        self.each(kinds, |guards| guards.fetch_sub(1, Ordering::Release));
    }

    #[cfg_attr(not(feature = "sync"), allow(dead_code, reason = "only the handle announces"))]
    pub(crate) fn serves_when_stale(&self) -> bool {
        self.serving.load(Ordering::Acquire) > 0
    }

    /// A bit for each kind of scope that some guard does not enforce.
    #[cfg_attr(not(feature = "sync"), allow(dead_code, reason = "only the handle announces"))]
    pub(crate) fn shadowed(&self) -> u32 {
        let kinds = ScopeKind::ALL.into_iter().zip(&self.shadowing);
        kinds
            .filter(|(_, guards)| guards.load(Ordering::Acquire) > 0)
            .fold(0, |bits, (kind, _)| bits | 1 << kind as u32)
    }

    fn each(&self, kinds: u32, change: impl Fn(&AtomicU32) -> u32) {
        for (kind, guards) in ScopeKind::ALL.into_iter().zip(&self.shadowing) {
            if kinds & 1 << kind as u32 != 0 {
                change(guards);
            }
        }
    }
}
