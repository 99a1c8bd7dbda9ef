//! What is open and ends with its token, found by the keys under which that token can be revoked.
//!
//! Each shard has slots, and for each kind of scope a table of lists of slots, so that a change reaches the streams of its
//! scope and no others, however many are open. A key is kept as 64 of its bits: they are bits of a keyed hash, and what
//! decides is judged again for each slot that they lead to.
//!
//! The order that nothing is lost by: who registers does so *before* looking at the denylist, who changes the denylist
//! looks here *after* the change is visible. `loom/` checks this file under all interleavings.

use std::{
    sync::{OnceLock, PoisonError},
    task::Waker,
};

use smallvec::SmallVec;

use super::atomic::{AtomicU32, Mutex, MutexGuard, Ordering, fence};

/// The kinds of scopes that one token can be in.
pub(crate) const PLACES: usize = 7;

/// Keys by their place, each as 64 of its bits.
pub(crate) type Prints = [Option<u64>; PLACES];

/// Everything that is open.
pub(crate) struct OpenStreams<T> {
    shards: Box<[Place<T>]>,
    /// How many shards there are from the beginning on.
    first: u32,
    /// How many shards there are by now.
    opened: AtomicU32,
    next: AtomicU32,
}

/// Where a shard is once it is used.
type Place<T> = OnceLock<Box<Mutex<Shard<T>>>>;

/// A place taken among the open streams, given back by [`OpenStreams::release`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    shard: u16,
    slot: u16,
}

struct Shard<T> {
    pages: Vec<Box<[Slot<T>]>>,
    /// For each place the beginnings of its lists.
    heads: [Box<[u16]>; PLACES],
    /// The first slot that was given back.
    free: u16,
    open: u16,
}

struct Slot<T> {
    prints: [u64; PLACES],
    /// The slots before and after it in the list of each place; of a free slot, the next free one.
    links: [[u16; 2]; PLACES],
    waker: Option<Waker>,
    /// `None`: free.
    item: Option<T>,
    /// A bit for each place that has a key.
    used: u8,
    /// A bit for each place whose key is revoked.
    covered: u8,
}

const NONE: u16 = u16::MAX;
const PAGE: usize = 64;

type Wakers = SmallVec<[Waker; 8]>;

impl<T> OpenStreams<T> {
    /// None yet; over `first` shards, and up to `most` of them.
    pub(crate) fn new(first: u16, most: u16) -> Self {
        Self {
            shards: (0..most).map(|_| OnceLock::new()).collect(),
            first: u32::from(first.min(most)),
            opened: AtomicU32::new(0),
            next: AtomicU32::new(0),
        }
    }

    /// Registers a stream; `None` where no place is left. Whatever is revoked from now on is told to it: look at what
    /// was revoked before *after* this.
    pub(crate) fn register(&self, prints: &Prints, item: T) -> Option<Ticket> {
        self.have(self.first);
        let start = self.next.fetch_add(1, Ordering::Relaxed) % self.first.max(1);
        let most = u32::try_from(self.shards.len()).unwrap_or(u32::MAX);
        let mut item = Some(item);
        for shard in (start..self.first).chain(0..start).chain(self.first..most) {
            self.have(shard + 1);
            // Pairs with the one in `notify`: either that sees this shard, or what follows here sees the change.
            fence(Ordering::SeqCst);
            let slot = self.shard(shard).and_then(|mut shard| shard.insert(prints, &mut item));
            if let (Some(slot), Ok(shard)) = (slot, u16::try_from(shard)) {
                return Some(Ticket { shard, slot });
            }
        }
        None
    }

    /// Gives a place back.
    pub(crate) fn release(&self, ticket: &Ticket) {
        // Dropped outside of the lock: what it wakes may hold tickets itself.
        let waker = self.shard(u32::from(ticket.shard)).and_then(|mut shard| shard.remove(ticket.slot));
        drop(waker);
    }

    /// The bits of what is revoked of it. `waker` is told of the next change of that.
    pub(crate) fn poll(&self, ticket: &Ticket, waker: &Waker) -> u8 {
        let Some(mut shard) = self.shard(u32::from(ticket.shard)) else { return 0 };
        let Some(slot) = shard.slot(ticket.slot) else { return 0 };
        let covered = slot.covered;
        let replaced = match &slot.waker {
            Some(known) if known.will_wake(waker) => None,
            _ => slot.waker.replace(waker.clone()),
        };
        drop(shard);
        drop(replaced);
        covered
    }

    /// What is revoked of a stream, judged anew for each place that has a key.
    pub(crate) fn judge(&self, ticket: &Ticket, judge: impl Fn(usize, &T) -> Option<bool>) -> u8 {
        let Some(mut shard) = self.shard(u32::from(ticket.shard)) else { return 0 };
        let Some(slot) = shard.slot(ticket.slot) else { return 0 };
        for place in 0..PLACES {
            let judged = slot.item.as_ref().filter(|_| slot.used & (1 << place) != 0);
            if let Some(covered) = judged.and_then(|item| judge(place, item)) {
                slot.set(place, covered);
            }
        }
        slot.covered
    }

    /// The key at the lowest of these places.
    pub(crate) fn print(&self, ticket: &Ticket, places: u8) -> Option<u64> {
        let mut shard = self.shard(u32::from(ticket.shard))?;
        shard.slot(ticket.slot)?.prints.get(places.trailing_zeros() as usize).copied()
    }

    /// Tells the streams of changed scopes. Each change has the places that its key may be at, and its key; `judge` says
    /// what is so of a stream now, or `None` where nothing changes for it. Call it after the changes are visible.
    pub(crate) fn notify<C>(
        &self,
        changes: &[C],
        find: impl Fn(&C) -> (std::ops::Range<usize>, u64),
        judge: impl Fn(&C, &T) -> Option<bool>,
    ) {
        for shard in self.every_shard() {
            let mut wakers = Wakers::new();
            let mut shard = lock(shard);
            for change in changes {
                let (places, print) = find(change);
                for place in places {
                    shard.each(place, print, |slot| {
                        let Some(covered) = slot.item.as_ref().and_then(|item| judge(change, item)) else { return };
                        let before = slot.covered;
                        slot.set(place, covered);
                        if slot.covered != before {
                            wakers.extend(slot.waker.take());
                        }
                    });
                }
            }
            drop(shard);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Wakes every stream that `which` says.
    pub(crate) fn wake(&self, which: impl Fn(&T) -> bool) {
        for shard in self.every_shard() {
            let mut shard = lock(shard);
            let slots = shard.pages.iter_mut().flatten();
            let chosen = slots.filter(|slot| slot.item.as_ref().is_some_and(&which));
            let wakers: Wakers = chosen.filter_map(|slot| slot.waker.take()).collect();
            drop(shard);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.every_shard().map(|shard| usize::from(lock(shard).open)).sum()
    }

    fn every_shard(&self) -> impl Iterator<Item = &Mutex<Shard<T>>> {
        // Pairs with the one in `register`.
        fence(Ordering::SeqCst);
        let opened = self.opened.load(Ordering::Relaxed) as usize;
        self.shards.iter().take(opened).filter_map(|shard| shard.get().map(|shard| &**shard))
    }

    /// Makes sure that there are so many shards.
    fn have(&self, shards: u32) {
        if self.opened.load(Ordering::Acquire) >= shards {
            return;
        }
        for shard in self.shards.iter().take(shards as usize) {
            shard.get_or_init(|| Box::new(Mutex::new(Shard::default())));
        }
        self.opened.fetch_max(shards, Ordering::AcqRel);
    }

    fn shard(&self, shard: u32) -> Option<MutexGuard<'_, Shard<T>>> {
        Some(lock(self.shards.get(shard as usize)?.get()?))
    }
}

fn lock<T>(shard: &Mutex<Shard<T>>) -> MutexGuard<'_, Shard<T>> {
    // Every step leaves it in order.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), heads: Default::default(), free: NONE, open: 0 }
    }
}

impl<T> Shard<T> {
    fn slot(&mut self, slot: u16) -> Option<&mut Slot<T>> {
        self.pages.get_mut(usize::from(slot) / PAGE)?.get_mut(usize::from(slot) % PAGE)
    }

    /// Takes the item where there is room.
    fn insert(&mut self, prints: &Prints, item: &mut Option<T>) -> Option<u16> {
        if self.free == NONE {
            self.grow()?;
        }
        let at = self.free;
        let slot = self.slot(at)?;
        let next_free = slot.links[0][1];
        slot.item = item.take();
        (slot.used, slot.covered) = (0, 0);
        for (place, print) in prints.iter().enumerate() {
            if let Some(print) = print {
                slot.used |= 1 << place;
                slot.prints[place] = *print;
            }
        }
        self.free = next_free;
        self.open += 1;
        self.link(at);
        Some(at)
    }

    /// Its waker, to be dropped outside.
    fn remove(&mut self, at: u16) -> Option<Waker> {
        let slot = self.slot(at)?;
        slot.item.take()?;
        let (waker, used, prints, links) = (slot.waker.take(), slot.used, slot.prints, slot.links);
        for place in (0..PLACES).filter(|place| used & (1 << place) != 0) {
            let [before, after] = links[place];
            match self.slot(before) {
                Some(before) => before.links[place][1] = after,
                None => {
                    if let Some(head) = self.head(place, prints[place]) {
                        *head = after;
                    }
                }
            }
            if let Some(after) = self.slot(after) {
                after.links[place][0] = before;
            }
        }
        self.open -= 1;
        if self.open == 0 && self.pages.len() > 1 {
            // Nothing is left of a crowd that has gone.
            *self = Self::default();
            return waker;
        }
        let free = self.free;
        if let Some(slot) = self.slot(at) {
            slot.links[0][1] = free;
        }
        self.free = at;
        waker
    }

    fn each(&mut self, place: usize, print: u64, mut found: impl FnMut(&mut Slot<T>)) {
        let Some(head) = self.head(place, print) else { return };
        let mut next = *head;
        while let Some(slot) = self.slot(next) {
            next = slot.links[place][1];
            if slot.prints[place] == print {
                found(slot);
            }
        }
    }

    /// Puts a slot at the beginning of its lists.
    fn link(&mut self, at: u16) {
        for place in 0..PLACES {
            let Some(print) = self.slot(at).filter(|slot| slot.used & (1 << place) != 0).map(|slot| slot.prints[place])
            else {
                continue;
            };
            let Some(head) = self.head(place, print) else { continue };
            let after = std::mem::replace(head, at);
            if let Some(slot) = self.slot(at) {
                slot.links[place] = [NONE, after];
            }
            if let Some(after) = self.slot(after) {
                after.links[place][0] = at;
            }
        }
    }

    fn head(&mut self, place: usize, print: u64) -> Option<&mut u16> {
        let heads = self.heads.get_mut(place)?;
        // The lowest bits are the kind.
        let at = (print >> 8) as usize & heads.len().checked_sub(1)?;
        heads.get_mut(at)
    }

    /// Another page of slots, and longer tables where the lists get long.
    fn grow(&mut self) -> Option<()> {
        let slots = self.pages.len() * PAGE;
        let end = slots + PAGE;
        if end > usize::from(NONE) {
            return None;
        }
        let page = (slots..end).map(|slot| {
            let next = if slot + 1 == end { NONE } else { u16::try_from(slot + 1).unwrap_or(NONE) };
            let mut links = [[NONE; 2]; PLACES];
            links[0][1] = next;
            Slot { prints: [0; PLACES], links, waker: None, item: None, used: 0, covered: 0 }
        });
        self.pages.push(page.collect());
        self.free = u16::try_from(slots).ok()?;
        let lists = (end / 2).next_power_of_two();
        if self.heads[0].len() < lists {
            self.heads = std::array::from_fn(|_| vec![NONE; lists].into());
            for at in 0..u16::try_from(slots).ok()? {
                if self.slot(at).is_some_and(|slot| slot.item.is_some()) {
                    self.link(at);
                }
            }
        }
        Some(())
    }
}

impl<T> Slot<T> {
    const fn set(&mut self, place: usize, covered: bool) {
        let bit = 1 << place;
        if covered { self.covered |= bit } else { self.covered &= !bit }
    }
}
