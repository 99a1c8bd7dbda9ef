//! What revocations cost in memory, and whether it stays so: resident bytes of a process that holds nothing else.
//!
//! Each measurement is a child process of its own, and the kernel says what is resident: counted in are the exact
//! entries, the filter, the list by expiry, and whatever the allocator keeps. Times are on a processor, of one thread.
//! In tiered mode there is a part whose size is set, for what is at hand: it is full before the others are counted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use common::{Goal, Length, Results, Spread};
use tower_revocation::{
    denylist::{self, Denylist, DenylistConfig, Staleness, Verdict, Why},
    revocation::{Change, Revocation, Scope},
    time::ManualClock,
    token::{Claims, Identity},
};

const ISSUER: &str = "https://issuer.example/";
const MILLION: usize = 1_000_000;
/// How long the tokens of one generation live.
const LIFETIME: Duration = Duration::from_secs(3600);
const GENERATIONS: usize = 3;
/// In tiered mode, the default.
const AT_HAND: usize = 100_000;

/// The ways to hold revocations. What there is one more of goes here.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Exact,
    Tiered,
}

impl Mode {
    const ALL: [Self; 2] = [Self::Exact, Self::Tiered];

    const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Tiered => "tiered",
        }
    }

    /// Bytes for each revocation at the most.
    const fn goal(self) -> f64 {
        match self {
            Self::Exact => 380.0,
            Self::Tiered => 3.0,
        }
    }

    /// How many fill the part whose size is set.
    const fn fixed(self) -> usize {
        match self {
            Self::Exact => 0,
            // As many entries are at hand as were set, and as many of the last minutes.
            Self::Tiered => 2 * AT_HAND,
        }
    }

    /// After how long everything may have left: in tiered mode a quarter of what tokens live for goes at once.
    const fn lapse(self) -> Duration {
        match self {
            Self::Exact => Duration::from_secs(LIFETIME.as_secs() + 600),
            Self::Tiered => Duration::from_secs(24 * 3600),
        }
    }

    fn denylist(self, revocations: usize, clock: &Arc<ManualClock>) -> Denylist {
        let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(24 * 3600)));
        config.clock = Arc::clone(clock) as _;
        config.budget = 2 * revocations;
        if let Self::Tiered = self {
            config.budget = revocations;
            config.mode = denylist::Mode::Tiered(denylist::Tiered::default().entries(AT_HAND as u64));
        }
        Denylist::new(config)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, mode, revocations, generations, ..] = arguments.as_slice()
        && role == "child"
    {
        let mode = Mode::ALL.into_iter().find(|known| known.name() == mode).expect("a mode");
        return child(mode, revocations.parse().expect("a number"), generations.parse().expect("a number"));
    }
    let length = Length::of_this_run();
    let mut results = Results::new("memory", length);
    for mode in Mode::ALL {
        let turns = (0..length.pick(1, 5)).map(|_| measure(mode, MILLION, GENERATIONS));
        report(mode, 1, &turns.collect::<Vec<_>>(), &mut results);
        if length == Length::Full {
            report(mode, 10, &[measure(mode, 10 * MILLION, 0)], &mut results);
        }
    }
    results.write();
}

fn report(mode: Mode, millions: usize, all: &[Measured], results: &mut Results) {
    let group = format!("{} mode, {millions} M revocations", mode.name());
    let spread = |pick: fn(&Measured) -> f64| Spread::of(all.iter().map(pick));
    results.row(&group, "resident for each", "B", spread(|one| one.each), Some(Goal::AtMost(mode.goal())));
    if mode.fixed() > 0 {
        results.row(&group, "the fixed part, with 100,000 entries at hand", "MB", spread(|one| one.fixed), None);
    }
    results.row(&group, "make one and apply it, CPU", "µs", spread(|one| one.insert), None);
    if all.iter().all(|one| one.churned) {
        let grown = format!("growth after {GENERATIONS} generations expired and as many came anew");
        results.row(&group, &grown, "%", spread(|one| one.growth), None);
        results.row(&group, "expire all, CPU", "s", spread(|one| one.expire), None);
    }
}

struct Measured {
    fixed: f64,
    each: f64,
    insert: f64,
    churned: bool,
    growth: f64,
    expire: f64,
}

fn measure(mode: Mode, revocations: usize, generations: usize) -> Measured {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program);
    child.args(["child", mode.name(), &revocations.to_string(), &generations.to_string()]).stderr(Stdio::inherit());
    let output = child.output().expect("a child process");
    assert!(output.status.success(), "the child failed");
    let text = String::from_utf8(output.stdout).expect("text");
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    let [fixed, each, insert, growth, expire] = numbers[..] else { panic!("five numbers, not {text}") };
    Measured { fixed, each, insert, churned: generations > 0, growth, expire }
}

fn child(mode: Mode, revocations: usize, generations: usize) {
    let clock = Arc::new(ManualClock::at(1_800_000_000));
    let list = mode.denylist(revocations, &clock);
    list.in_step_at(list.now());
    let empty = resident();
    fill(&list, mode.fixed(), "fixed");
    let before = resident();
    let began = cpu();
    fill(&list, revocations, "0");
    let insert = (cpu() - began) * 1e6 / revocations as f64;
    let full = resident();

    let mut expire = Vec::new();
    for generation in 1..=generations {
        // The clock's skew is waited for as well.
        clock.advance(mode.lapse());
        list.in_step_at(list.now());
        let began = cpu();
        list.maintain();
        expire.push(cpu() - began);
        assert_eq!(list.records(), 0, "they have expired");
        fill(&list, revocations, &generation.to_string());
    }
    let each = (full - before) as f64 / revocations as f64;
    let growth = (resident() as f64 / full as f64 - 1.0) * 100.0;
    // Without generations, nothing was expired.
    let expire = if expire.is_empty() { 0.0 } else { Spread::of(expire).median };
    let fixed = (before - empty) as f64 / 1e6;
    println!("{fixed} {each} {insert} {growth} {expire}");
}

/// Applies that many, in pages as a replica does, with maintenance as it comes.
fn fill(list: &Denylist, revocations: usize, generation: &str) {
    let held = list.records();
    let now = list.now().unix();
    let exp = now + LIFETIME.as_secs();
    let jti = |number: usize| format!("{generation}-{number}");
    let change = |number| {
        let revocation = Revocation::new(Scope::token(ISSUER, jti(number))).token_expires(exp);
        Change::Revoke(revocation.into_record(list.hasher(), list.lifetimes(), now))
    };
    let mut page = Vec::with_capacity(4096);
    for number in 0..revocations {
        page.push(change(number));
        if page.len() == page.capacity() || number + 1 == revocations {
            list.apply(&page);
            page.clear();
            if list.wants_maintenance() {
                list.maintain();
            }
        }
    }
    drop(page);
    list.maintain();
    // A filter takes some for what it has already.
    assert!((list.records() - held).abs_diff(revocations) <= revocations / 50, "all are held");
    let last = revocations.saturating_sub(1);
    for number in [0, revocations / 2, last].into_iter().filter(|_| revocations > 0) {
        let token = Identity::from_verified(&Claims::new(ISSUER).jti(&jti(number)).iat(now).exp(exp));
        let verdict = list.check(&token);
        assert!(matches!(verdict, Verdict::Deny(_) | Verdict::Unknown(Why::NotAsked)), "{number}: {verdict:?}");
    }
}

/// What is resident, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Seconds on a processor: what else the machine does is not counted.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").expect("/proc/self/schedstat");
    text.split(' ').next().expect("nanoseconds").parse::<f64>().expect("a number") / 1e9
}
