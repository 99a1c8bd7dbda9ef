use std::sync::Arc as Plain;

use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::{
    filter::Filter,
    visible::{Map, Visible},
};

/// The weakest map there is: of one key, later writes are not seen before earlier ones. Nothing is ordered across
/// keys, and nothing else by a look-up.
struct Model([AtomicU64; 2]);

const GONE: u64 = 0;

impl Map for Model {
    type Entry = u64;

    fn put(&self, key: u128, entry: u64) {
        self.0[place(key)].store(entry, Ordering::Relaxed);
    }

    fn find(&self, key: u128) -> Option<u64> {
        Some(self.0[place(key)].load(Ordering::Relaxed)).filter(|entry| *entry != GONE)
    }

    fn remove(&self, key: u128) {
        self.0[place(key)].store(GONE, Ordering::Relaxed);
    }
}

/// Keys whose filter bits have nothing in common.
const A: u128 = 0;
const B: u128 = u64::MAX as u128 & !0xF;
const KIND: u32 = 1;
const ENTRY: u64 = 7;

fn place(key: u128) -> usize {
    usize::from(key == B)
}

fn filter() -> Plain<Filter> {
    Plain::new(Filter::for_entries(1, 0))
}

/// What is shared: the list, the writers' lock in so far as they take turns, and word that a write has returned.
struct World {
    visible: Visible<Model>,
    returned: AtomicBool,
}

impl World {
    fn new() -> Arc<Self> {
        let map = Model([AtomicU64::new(GONE), AtomicU64::new(GONE)]);
        Arc::new(Self { visible: Visible::new(map, filter(), 1), returned: AtomicBool::new(false) })
    }

    /// What `Denylist::apply` does for one change.
    fn apply(&self, key: u128, building: Option<&Filter>) {
        self.visible.put(key, KIND, ENTRY, building);
        self.visible.announce();
    }

    /// What `Denylist::revoked` does for one key.
    fn denies(&self, key: u128) -> bool {
        self.visible.kinds() & KIND != 0
            && self.visible.may_hold([(0, key)].into_iter()) != 0
            && self.visible.look_up(key).is_some()
    }

    fn say_returned(&self) {
        self.returned.store(true, Ordering::Release);
    }

    fn has_returned(&self) -> bool {
        self.returned.load(Ordering::Acquire)
    }
}

/// What a token's keys remember of the last look at them.
struct Cached(AtomicU64);

impl Cached {
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn denied(&self, world: &World, key: u128) -> bool {
        let is_clear = |generation| self.0.load(Ordering::Relaxed) == generation;
        let look = || world.denies(key).then_some(());
        world.visible.unless_clear(is_clear, look, |generation| self.0.store(generation, Ordering::Relaxed)).is_some()
    }

    /// The mistake: a verdict from before a change is kept under the generation after it.
    fn denied_generation_read_late(&self, world: &World, key: u128) -> bool {
        if self.0.load(Ordering::Relaxed) == world.visible.generation() {
            return false;
        }
        if world.denies(key) {
            return true;
        }
        self.0.store(world.visible.generation(), Ordering::Relaxed);
        false
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Runs `write` beside a checker; once the write has returned, the key must be refused.
fn refused_after(write: impl Fn(&World) + Copy + Sync + Send + 'static) {
    check(move || {
        let world = World::new();
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                write(&world);
                world.say_returned();
            })
        };
        if world.has_returned() {
            assert!(world.denies(A), "missed");
        }
        assert!(writer.join().is_ok());
    });
}

/// The same for a token whose clear verdict is cached, by two requests that share the cache's entry.
fn refused_after_though_cached(
    write: impl Fn(&World) + Copy + Sync + Send + 'static,
    denied: fn(&Cached, &World, u128) -> bool,
) {
    check(move || {
        let world = World::new();
        let cached = Arc::new(Cached::new());
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                write(&world);
                world.say_returned();
            })
        };
        let other = {
            let (world, cached) = (Arc::clone(&world), Arc::clone(&cached));
            thread::spawn(move || {
                denied(&cached, &world, A);
            })
        };
        let returned = world.has_returned();
        let denied_now = denied(&cached, &world, A);
        assert!(!returned || denied_now, "missed");
        assert!(writer.join().is_ok());
        assert!(other.join().is_ok());
        assert!(denied(&cached, &world, A), "cached for good");
    });
}

/// Fills a new filter while a write comes in, as `Denylist::maintain` and `Denylist::apply` do between them.
///
/// B was held before; A is put in meanwhile. The lock of the writers is held by one step of either at a time.
fn rebuild(double_write: bool) {
    check(move || {
        let world = World::new();
        world.apply(B, None);
        let lock = Arc::new(loom::sync::Mutex::new(None::<Plain<Filter>>));
        let maintainer = {
            let (world, lock) = (Arc::clone(&world), Arc::clone(&lock));
            thread::spawn(move || {
                let new = filter();
                // What is held when double-writing begins is walked over; what comes later writes itself.
                let held = {
                    let mut building = lock.lock().unwrap();
                    *building = Some(Plain::clone(&new));
                    [A, B].into_iter().filter(|key| world.visible.find(*key).is_some()).collect::<Vec<_>>()
                };
                held.into_iter().for_each(|key| new.insert(key));
                let mut building = lock.lock().unwrap();
                *building = None;
                world.visible.replace_filter(new);
            })
        };
        let writer = {
            let (world, lock) = (Arc::clone(&world), Arc::clone(&lock));
            thread::spawn(move || {
                let building = lock.lock().unwrap();
                world.apply(A, building.as_deref().filter(|_| double_write));
                drop(building);
                world.say_returned();
            })
        };
        let returned = world.has_returned();
        assert!(world.denies(B), "lost while rebuilding");
        assert!(!returned || world.denies(A), "missed");
        assert!(maintainer.join().is_ok());
        assert!(writer.join().is_ok());
        assert!(world.denies(A) && world.denies(B), "lost by the rebuild");
    });
}

#[test]
fn l1_a_check_that_starts_after_the_write_returned_refuses() {
    refused_after(|world| world.apply(A, None));
}

#[test]
fn l1_a_cached_verdict_does_not_outlive_a_change() {
    refused_after_though_cached(|world| world.apply(A, None), Cached::denied);
}

#[test]
fn l2_nothing_is_lost_while_the_filter_is_rebuilt() {
    rebuild(true);
}

/// The last entry of a kind leaves, and another of the same kind comes: its bit is there when that returns.
#[test]
fn l1_a_kind_that_was_cleared_is_seen_again() {
    refused_after(|world| {
        world.apply(B, None);
        world.visible.remove(B);
        world.visible.clear_kinds(KIND);
        world.apply(A, None);
    });
}

/// What follows proves that the models can fail.
#[test]
#[should_panic(expected = "cached for good")]
fn announcing_before_the_entry_is_there_is_caught() {
    refused_after_though_cached(
        |world| {
            world.visible.announce();
            world.visible.put(A, KIND, ENTRY, None);
        },
        Cached::denied,
    );
}

#[test]
#[should_panic(expected = "missed")]
fn saying_returned_before_the_entry_is_there_is_caught() {
    refused_after(|world| {
        world.say_returned();
        world.apply(A, None);
    });
}

#[test]
#[should_panic(expected = "cached for good")]
fn reading_the_generation_after_looking_is_caught() {
    refused_after_though_cached(|world| world.apply(A, None), Cached::denied_generation_read_late);
}

#[test]
#[should_panic(expected = "lost by the rebuild")]
fn a_rebuild_without_double_writing_is_caught() {
    rebuild(false);
}

#[test]
#[should_panic(expected = "missed")]
fn clearing_a_kind_after_the_next_entry_of_it_came_is_caught() {
    refused_after(|world| {
        world.apply(B, None);
        world.visible.remove(B);
        world.apply(A, None);
        world.visible.clear_kinds(KIND);
    });
}

mod open {
    use std::task::{Wake, Waker};

    use super::*;
    use crate::open::{OpenStreams, Prints};

    /// Tells that it was woken.
    struct Woken(std::sync::atomic::AtomicBool);

    impl Wake for Woken {
        fn wake(self: Plain<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    struct Site {
        world: Arc<World>,
        open: OpenStreams<()>,
    }

    const PRINT: u64 = 1 << 8;

    impl Site {
        fn prints() -> Prints {
            let mut prints = Prints::default();
            prints[0] = Some(PRINT);
            prints
        }

        /// What `Denylist::tell_streams` does.
        fn tell(&self) {
            self.open.notify(&[A], |_| (0..1, PRINT), |key, ()| Some(self.world.visible.find(*key).is_some()));
        }

        /// What `Denylist::register` does, and the first poll of the stream: whether it has ended.
        fn register(&self) -> bool {
            let ticket = self.open.register(&Self::prints(), ()).expect("there is room");
            if self.world.denies(A) {
                self.open.judge(&ticket, |_, ()| Some(self.world.visible.find(A).is_some()));
            }
            self.poll(&ticket)
        }

        /// The mistake: to look before registering.
        fn register_late(&self) -> bool {
            let denied = self.world.denies(A);
            let ticket = self.open.register(&Self::prints(), ()).expect("there is room");
            denied || self.poll(&ticket)
        }

        /// Whether it has ended, or has been woken by the time that the writer is done.
        fn poll(&self, ticket: &crate::open::Ticket) -> bool {
            let woken = Plain::new(Woken(std::sync::atomic::AtomicBool::new(false)));
            if self.open.poll(ticket, &Waker::from(Plain::clone(&woken))) != 0 {
                return true;
            }
            while !self.world.has_returned() {
                thread::yield_now();
            }
            let woken = woken.0.load(std::sync::atomic::Ordering::Relaxed);
            woken && self.open.poll(ticket, Waker::noop()) != 0
        }
    }

    fn ends(write: fn(&Site), register: fn(&Site) -> bool) {
        check(move || {
            let site = Arc::new(Site { world: World::new(), open: OpenStreams::new(1, 1) });
            let writer = {
                let site = Arc::clone(&site);
                thread::spawn(move || {
                    write(&site);
                    site.world.say_returned();
                })
            };
            assert!(register(&site), "goes on for good");
            assert!(writer.join().is_ok());
        });
    }

    #[test]
    fn l1_a_stream_that_opens_while_its_token_is_revoked_ends() {
        ends(
            |site| {
                site.world.apply(A, None);
                site.tell();
            },
            Site::register,
        );
    }

    #[test]
    #[should_panic(expected = "goes on for good")]
    fn looking_before_registering_is_caught() {
        ends(
            |site| {
                site.world.apply(A, None);
                site.tell();
            },
            Site::register_late,
        );
    }

    #[test]
    #[should_panic(expected = "goes on for good")]
    fn telling_before_the_entry_is_there_is_caught() {
        ends(
            |site| {
                site.tell();
                site.world.apply(A, None);
            },
            Site::register,
        );
    }
}
