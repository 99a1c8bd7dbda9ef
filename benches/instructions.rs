//! How many instructions the layer adds to a request, counted by valgrind's callgrind.
//!
//! ```text
//! cargo bench --bench instructions               counts, and fails where a count rose by more than 5 %
//! cargo bench --bench instructions -- --record   puts the counts down for this toolchain and target
//! ```
//!
//! A count is what a request costs more than the same one through the bare service: the median of several processes,
//! since hashes are seeded anew in each. Nothing is verified here: cryptography picks its code by the CPU.
//! moka's own house-keeping follows the clock, so what goes to it on every request is counted and not held to anything.
//! valgrind hides the vDSO: reading the clock counts as the system call's few instructions.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

mod paths;

use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use http::{Request, Response};
use paths::{Answer, Believing, HOT_TOKENS, ISS, MyClaims, Send};
use tower_revocation::{
    revocation::{Change, Revocation, Scope},
    token::{FromExtension, Identity, Peek, VerifierBehind, Verify},
};

const ENTRIES: usize = 10_000;
const REQUESTS: usize = 1024;
const PROCESSES: usize = 3;
/// Counts that rise by more than one in so many fail.
const ONE_IN: u64 = 20;
/// What is spread over too many requests to be the same in each run.
const UNSTEADY: [&str; 1] = ["cold token in the cache, allow"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--under-callgrind") {
        run_paths();
        return ExitCode::SUCCESS;
    }
    match compare(arguments.iter().any(|argument| argument == "--record")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every path, each through the bare service first. callgrind counts what happens in [`counted`] and writes it out
/// at each [`path_ends`].
fn run_paths() {
    let list = paths::denylist(ENTRIES);
    let iat = list.now().unix();
    let (allowed, revoked) = ((0..HOT_TOKENS).collect::<Vec<_>>(), paths::revoked(ENTRIES));
    let token = |n: usize| paths::unsigned(&paths::jti(n), iat);
    let bearer = |n: usize| paths::request(Some(&token(n)));
    let own_claims = |n| paths::with_own_claims(bearer(n), n, iat);
    let identity = |n| paths::with_keys(bearer(n), n, &list, iat);
    let hot = || paths::layer(&list, Verify::new(Believing { iat }));

    run("no token", &allowed, |_| paths::request(None), hot(), || {});
    for (verdict, numbers) in [("allow", &allowed), ("deny", &revoked)] {
        let name = |path: &str| format!("{path}, {verdict}");
        let ready = FromExtension::<Identity>::new();
        run(&name("identity with keys"), numbers, identity, paths::layer(&list, ready), || {});
        let claims = FromExtension::<MyClaims>::new();
        run(&name("own claims"), numbers, own_claims, paths::layer(&list, claims), || {});
        let peek = Peek::new(VerifierBehind::i_promise()).issuer(ISS);
        run(&name("peek"), numbers, bearer, paths::layer(&list, peek), || {});
        run(&name("hot token"), numbers, bearer, hot(), || {});
    }
    let cold: Vec<usize> = (0..HOT_TOKENS).chain(ENTRIES * 2..ENTRIES * 2 + REQUESTS - HOT_TOKENS).collect();
    run(UNSTEADY[0], &cold, bearer, hot(), || {});
    let mut number = 0;
    run("hot token, a change before each request, allow", &allowed, bearer, hot(), || {
        number += 1;
        let revocation = Revocation::new(Scope::token(ISS, format!("storm-{number}")));
        list.apply(&[Change::Revoke(revocation.into_record(list.hasher(), list.lifetimes(), iat))]);
    });
}

fn run(
    name: &str,
    numbers: &[usize],
    request: impl Fn(usize) -> Request<()>,
    mut send: Send,
    mut before: impl FnMut(),
) {
    let requests: Vec<_> = numbers.iter().map(|n| request(*n)).collect();
    let mut go = |send: &mut dyn FnMut(Request<()>) -> Response<()>| {
        for request in requests.iter().cycle().take(REQUESTS) {
            before();
            black_box(send(request.clone()));
        }
    };
    // Twice, since what is found in the cache once goes to the thread's own level.
    go(&mut send);
    go(&mut send);
    let mut bare = paths::service(Answer);
    go(&mut |request| counted(&mut bare, request));
    path_ends(name);
    go(&mut |request| counted(&mut send, request));
    path_ends(name);
}

#[inline(never)]
fn counted(send: &mut Send, request: Request<()>) -> Response<()> {
    send(request)
}

#[inline(never)]
fn path_ends(name: &str) {
    println!("{name}");
    std::io::stdout().flush().expect("standard output");
}

type Counts = BTreeMap<String, u64>;

/// Counts here and now against what is put down, and puts it down where `record` says so.
fn compare(record: bool) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut recorded: BTreeMap<String, Counts> =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let machine = machine()?;
    let counts = count()?;
    let before = recorded.get(&machine);
    let mut risen = Vec::new();
    println!("{:<52} {:>8} {:>8}", machine, "now", "recorded");
    for (name, now) in &counts {
        let then = before.and_then(|before| before.get(name));
        println!("{name:<52} {now:>8} {:>8}", then.map_or_else(|| "-".to_owned(), u64::to_string));
        if then.is_some_and(|then| *now > then + then / ONE_IN + 1) && !UNSTEADY.contains(&name.as_str()) {
            risen.push(name.as_str());
        }
    }
    if record {
        recorded.insert(machine, counts);
        let text = serde_json::to_string_pretty(&recorded).map_err(|error| error.to_string())? + "\n";
        return fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()));
    }
    match before {
        None => {
            println!("no counts are put down for {machine}, so nothing was compared; add them with -- --record");
            Ok(())
        }
        Some(before) if before.keys().ne(counts.keys()) => {
            Err("other paths are counted than were put down; record them with -- --record".to_owned())
        }
        Some(_) if risen.is_empty() => Ok(()),
        Some(_) => Err(format!(
            "these cost over 5 % more instructions than were put down: {}; mend that, or record the new counts with \
             -- --record and say why",
            risen.join("; ")
        )),
    }
}

/// Compiler and target: another one makes other instructions.
fn machine() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().map_err(|error| format!("rustc -vV: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").trim();
    Ok(format!("rustc {} {}", field("release:"), field("host:")))
}

/// Medians of several processes.
fn count() -> Result<Counts, String> {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for _ in 0..PROCESSES {
        for (name, count) in count_once()? {
            all.entry(name).or_default().push(count);
        }
    }
    let median = |mut counts: Vec<u64>| {
        counts.sort_unstable();
        counts[counts.len() / 2]
    };
    Ok(all.into_iter().map(|(name, counts)| (name, median(counts))).collect())
}

fn count_once() -> Result<Counts, String> {
    let directory = tempfile::tempdir().map_err(|error| format!("a temporary directory: {error}"))?;
    let out = directory.path().join("counts");
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .args(["--toggle-collect=*::counted*", "--dump-after=*::path_ends*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg("--under-callgrind")
        .output()
        .map_err(|error| format!("valgrind: {error}; install the package valgrind"))?;
    if !output.status.success() {
        return Err(format!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    let names: Vec<&str> = names.lines().collect();
    let mut counts = Counts::new();
    // Each path comes after the bare service.
    for (pair, part) in names.chunks(2).zip((1..).step_by(2)) {
        let (bare, path) = (total(&out, part)?, total(&out, part + 1)?);
        counts.insert(pair[0].to_owned(), path.saturating_sub(bare) / REQUESTS as u64);
    }
    Ok(counts)
}

/// What callgrind counted up to the end of this path.
fn total(out: &Path, part: u32) -> Result<u64, String> {
    let file = PathBuf::from(format!("{}.{part}", out.display()));
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let line = |name| text.lines().find_map(|line: &str| line.strip_prefix(name));
    let count = line("summary:").or_else(|| line("totals:")).and_then(|count| count.trim().parse().ok());
    count.ok_or_else(|| format!("{}: no total in it", file.display()))
}
