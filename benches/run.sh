#!/usr/bin/env bash
# Builds and runs every benchmark on a Debian machine with a Rust toolchain; nothing leaves the loopback interface.
#
#   benches/run.sh --quick   three minutes after building at the most (the default); leaves out `propagation`
#   benches/run.sh --full    twenty minutes at the most
#
# Writes target/bench-results/: a JSON file for each benchmark, report.md and report.svg.
set -euo pipefail
cd "$(dirname "$0")/.."

length=--quick
for argument in "$@"; do
  case $argument in
    --quick | --full) length=$argument ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit ;;
    *) echo "benches/run.sh: unknown argument $argument (try --help)" >&2; exit 2 ;;
  esac
done
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

# Command and the Debian package that brings it.
needed=(cc:gcc setpriv:util-linux pkill:procps wrk:wrk h2load:nghttp2-client redis-server:redis-server)
[[ $length == --full ]] && needed+=(nats-server:nats-server)
[[ -f benches/instructions.rs ]] && needed+=(valgrind:valgrind)
missing=()
for pair in "${needed[@]}"; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# Debian keeps the server's programs off the PATH.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
if ((${#missing[@]})); then
  echo "benches/run.sh: install these Debian packages first: ${missing[*]}" >&2
  exit 1
fi
command -v cargo >/dev/null || { echo "benches/run.sh: no cargo; install a Rust toolchain (https://rustup.rs)" >&2; exit 1; }

results=$PWD/target/bench-results
export BENCH_RESULTS=$results
rm -rf "$results"
mkdir -p "$results"

# The rivals first, then the shortest: what the time does not suffice for is left out, and said to be.
benches=(storm memory end_to_end overhead)
[[ -f benches/instructions.rs ]] && benches+=(instructions)
[[ $length == --full ]] && benches+=(propagation)
rivals=(--locked --manifest-path benches/rivals/Cargo.toml --target-dir target)

echo '── building'
cargo bench --quiet --locked --no-run "${benches[@]/#/--bench=}"
cargo bench --quiet "${rivals[@]}" --bench rivals --no-run
cargo build --quiet --release "${rivals[@]}" --bin report

touch "$results/began"
SECONDS=0
limit=180
[[ $length == --full ]] && limit=1200
failed=()

# What it prints is kept, too.
run() {
  local name=$1 began=$SECONDS
  shift
  echo "── $name"
  if ((limit <= SECONDS)) || ! timeout $((limit - SECONDS)) "$@" | tee "$results/$name.txt"; then
    failed+=("$name")
  fi
  echo "   $((SECONDS - began)) s"
}

run rivals cargo bench --quiet "${rivals[@]}" --bench rivals -- "$length"
for bench in "${benches[@]}"; do
  case $bench in
    instructions | propagation) arguments=() ;;
    *) arguments=(-- "$length") ;;
  esac
  run "$bench" cargo bench --quiet --locked --bench "$bench" "${arguments[@]}"
done

target/release/report "$results" target/criterion
echo "   $SECONDS s in all"
if ((${#failed[@]})); then
  echo "benches/run.sh: failed, or not done in $limit s: ${failed[*]}" >&2
  exit 1
fi
