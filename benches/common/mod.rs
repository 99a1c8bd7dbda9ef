//! What the benchmarks share: samples with their spread, goals, and one file of results for each.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// How much time a run may take: `--full`, or the quick run that is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Quick,
    Full,
}

impl Length {
    pub fn of_this_run() -> Self {
        if std::env::args().any(|argument| argument == "--full") { Self::Full } else { Self::Quick }
    }

    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// The median of some samples, and what a tenth of them are below and above.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    pub samples: usize,
}

impl Spread {
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut samples: Vec<f64> = samples.into_iter().collect();
        assert!(!samples.is_empty(), "nothing was measured");
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize];
        Self { median: at(0.5), low: at(0.1), high: at(0.9), samples: samples.len() }
    }

    /// What was measured once.
    pub fn once(value: f64) -> Self {
        Self::of([value])
    }
}

/// The results of one benchmark: printed as they come, written to `target/bench-results` at the end.
pub struct Results {
    bench: &'static str,
    length: Length,
    rows: Vec<Value>,
}

impl Results {
    pub fn new(bench: &'static str, length: Length) -> Self {
        println!("\n{bench}\n{:<72} {:>12} {:>26}  goal", "", "median", "10 % to 90 %");
        Self { bench, length, rows: Vec::new() }
    }

    pub fn row(&mut self, group: &str, name: &str, unit: &str, spread: Spread, goal: Option<Goal>) {
        let Spread { median, low, high, samples } = spread;
        let (goal, limit, met) = match goal {
            None => (Value::Null, String::new(), None),
            Some(Goal::AtMost(most)) => (json!({"at_most": most}), format!("≤ {most}"), Some(median <= most)),
            Some(Goal::AtLeast(least)) => (json!({"at_least": least}), format!("≥ {least}"), Some(median >= least)),
        };
        let limit = format!("{limit}{}", if met == Some(false) { " missed" } else { "" });
        let title = format!("{group}: {name} [{unit}]");
        println!("{title:<72} {median:>12.3} {:>26}  {limit}", format!("{low:.3} to {high:.3}"));
        self.rows.push(json!({
            "group": group, "name": name, "unit": unit, "median": median, "p10": low, "p90": high, "samples": samples,
            "goal": goal, "met": met,
        }));
    }

    pub fn write(self) {
        let folder = folder();
        fs::create_dir_all(&folder).unwrap();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let length = self.length.pick("quick", "full");
        let all = json!({
            "bench": self.bench, "length": length, "unix": at, "machine": machine(), "rows": self.rows,
        });
        let text = serde_json::to_string_pretty(&all).unwrap();
        fs::write(folder.join(format!("{}.json", self.bench)), text + "\n").unwrap();
    }
}

/// `target/bench-results`, or `BENCH_RESULTS`.
pub fn folder() -> PathBuf {
    let given = std::env::var_os("BENCH_RESULTS").map(PathBuf::from);
    given.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-results"))
}

/// On what, and how busy with other things it was.
pub fn machine() -> Value {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo").lines().find_map(|line| Some(line.strip_prefix("model name")?.to_owned()));
    let rustc = std::process::Command::new("rustc").arg("-V").output();
    json!({
        "cpu": cpu.map(|cpu| cpu.trim_start_matches([' ', '\t', ':']).to_owned()),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "rustc": rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default(),
        "load": read("/proc/loadavg").split(' ').next(),
    })
}

/// Nanoseconds, counted in buckets a sixty-fourth wide: it allocates once, whatever comes.
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    const FINE: u32 = 6;

    pub fn new() -> Self {
        Self { buckets: vec![0; 64 << Self::FINE], count: 0 }
    }

    #[inline]
    pub fn add(&mut self, elapsed: Duration) {
        let value = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).max(1);
        let shift = (63 - value.leading_zeros()).saturating_sub(Self::FINE);
        let place = ((shift as usize) << Self::FINE) + (value >> shift) as usize;
        self.buckets[place] += 1;
        self.count += 1;
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The nanoseconds below which this share of all lies.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (place, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                let shift = (place >> Self::FINE).saturating_sub(1);
                let value = place - (shift << Self::FINE);
                return ((value as u64) << shift) as f64;
            }
        }
        0.0
    }
}

/// Waits by looking at the clock for the last stretch: sleeping is a millisecond coarse on a busy machine.
pub fn until(moment: Instant) {
    while let Some(left) = moment.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if left > Duration::from_micros(200) {
            std::thread::sleep(left - Duration::from_micros(100));
        } else {
            std::hint::spin_loop();
        }
    }
}
