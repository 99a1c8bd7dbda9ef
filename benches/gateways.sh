#!/usr/bin/env bash
# What a check costs, on this machine and loopback alone: ratios within one run, and processor time.
#
#   benches/gateways.sh        some two minutes; SECONDS_EACH (2) and ROUNDS (3) make it longer
#
# Needs wrk, nginx, caddy and curl (Debian), and what tests/run.sh puts into target/gateways.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin
seconds=${SECONDS_EACH:-2} rounds=${ROUNDS:-3}

for program in wrk nginx caddy openssl python3 curl; do
  command -v "$program" >/dev/null || { echo "benches/gateways.sh: $program is missing" >&2; exit 1; }
done
cargo build --quiet --release -p revoked --bin revoked --example bare_proxy
revoked=target/release/revoked bare=target/release/examples/bare_proxy venv=target/gateways/venv/bin
folder=$(mktemp -d)
chmod 755 "$folder"
started=()
finish() {
  ((${#started[@]})) && kill "${started[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# Runs a program in the background; its process is in $last.
start() {
  "$@" >>"$folder/log" 2>&1 &
  last=$!
  started+=("$last")
}
stop() {
  kill "$1"
  wait "$1" 2>/dev/null || true
}
# Until a request there is answered with this status.
answered() {
  local began=$SECONDS
  until [[ $(curl -s -o /dev/null -w '%{http_code}' "${@:2}") == "$1" ]]; do
    ((SECONDS - began < 20)) || { echo "no $1 from ${*: -1}" >&2; tail -5 "$folder/log" >&2; exit 1; }
    sleep 0.02
  done
}

secret='a secret of the benchmark, thirty-two bytes or more'
base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
now=$(date +%s)
input=$(printf '{"alg":"HS256","typ":"at+jwt"}' | base64url).$(printf '{"iss":"https://issuer.example/","aud":"https://api.example/","sub":"alice","client_id":"app","jti":"bench","iat":%d,"exp":%d}' "$now" $((now + 3600)) | base64url)
token=$input.$(printf %s "$input" | openssl dgst -sha256 -hmac "$secret" -binary | base64url)
authorization="Authorization: Bearer $token"

app=$(free_port) always=$(free_port) main=$(free_port) check=$(free_port) grpc=$(free_port) passing=$(free_port)
printf %s "$secret" >"$folder/issuer.secret"
cat >"$folder/revoked.toml" <<TOML
listen = "127.0.0.1:$main"
[upstream]
url = "http://127.0.0.1:$app"
[forward_auth]
listen = "127.0.0.1:$check"
identity_headers = ["x-auth-subject", "x-auth-session"]
[ext_authz]
listen = "127.0.0.1:$grpc"
identity_headers = ["x-auth-subject", "x-auth-session"]
[backend]
url = "sqlite://revoked.db"
[staleness]
after = "10s"
then = "refuse"
[[issuer]]
issuer = "https://issuer.example/"
audience = ["https://api.example/"]
algorithms = ["HS256"]
secret_file = "issuer.secret"
[[client]]
id = "app"
secret = "s3cret"
TOML

ulimit -n "$(ulimit -Hn)"
start "$bare" answer "127.0.0.1:$app"
start "$bare" answer "127.0.0.1:$always"
start "$bare" pass "127.0.0.1:$passing" "127.0.0.1:$app"
passes=$last
began=$(date +%s%N)
RUST_LOG=warn start "$revoked" serve --config "$folder/revoked.toml"
daemon=$last
answered 200 -H "$authorization" "http://127.0.0.1:$check/check"
echo "start to ready: $((($(date +%s%N) - began) / 1000000)) ms"

# Requests a second, and the processor time of a process for each, in microseconds.
load() { # process connections URL [more of wrk]
  local process=$1 before after output
  before=$(cat /proc/"$process"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }')
  output=$(wrk -t1 -c"$2" -d"${seconds}s" --latency -H "$authorization" "${@:4}" "$3")
  after=$(cat /proc/"$process"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }')
  grep -q 'Non-2xx' <<<"$output" && { echo "not every answer was 200: $3" >&2; exit 1; }
  requests=$(awk '/requests in/ { print $1 }' <<<"$output")
  rate=$(awk '/Requests\/sec/ { print $2 }' <<<"$output")
  cpu=$(awk -v a="$after" -v b="$before" -v n="$requests" 'BEGIN { printf "%.1f", (a - b) / n / 1000 }')
  p99=$(awk '$1 == "99%" { print $2 }' <<<"$output")
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

load "$daemon" 16 "http://127.0.0.1:$check/check"
full=$rate
echo "check, as fast as it goes: $rate a second, $cpu us of the daemon's processor time each, p99 $p99"
# wrk has no rate: a pause behind each answer gives it. One connection at a time sends as many as its pause lets it.
python3 - "$full" >"$folder/pause.lua" <<'PYTHON'
import sys
connections = 64
print("function delay() return %d end" % max(1, round(connections * 1000 / (0.3 * float(sys.argv[1])))))
PYTHON
load "$daemon" 64 "http://127.0.0.1:$check/check" -s "$folder/pause.lua"
echo "check, at $(ratio "$rate" "$full") of that: p99 $p99, $cpu us each"

# The same as Envoy asks over gRPC.
if command -v h2load >/dev/null; then
  python3 - "$token" >"$folder/check.grpc" <<'PYTHON'
import struct, sys
def field(number, value):
    value = value if isinstance(value, bytes) else value.encode()
    size, length = len(value), b""
    while True:
        length += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
        if not size:
            return bytes([number << 3 | 2]) + length + value
header = lambda name, value: field(3, field(1, name) + field(2, value))
http = field(2, "GET") + header(":path", "/") + header("authorization", "Bearer " + sys.argv[1]) + field(4, "/") + field(5, "x")
message = field(1, field(4, field(2, http)))
sys.stdout.buffer.write(b"\0" + struct.pack(">I", len(message)) + message)
PYTHON
  asks() { # connections, streams on each, how many
    local before after
    before=$(cat /proc/"$daemon"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }')
    h2load -t1 -c"$1" -m"$2" -n"$3" -d "$folder/check.grpc" -H 'content-type: application/grpc' -H 'te: trailers' \
      "http://127.0.0.1:$grpc/envoy.service.auth.v3.Authorization/Check" >"$folder/h2load"
    after=$(cat /proc/"$daemon"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }')
    cpu=$(awk -v a="$after" -v b="$before" -v n="$3" 'BEGIN { printf "%.1f", (a - b) / n / 1000 }')
    grep -q "$3 2xx" "$folder/h2load" || { echo "not every check was answered" >&2; cat "$folder/h2load" >&2; exit 1; }
  }
  asks 8 4 100000
  echo "check over gRPC, as fast as it goes: $(awk '/^finished/ { print $4 }' "$folder/h2load") a second, $cpu us of the daemon's processor time each"
fi
# Other work on the machine hits both sides of a pair alike: the medians of pairs that were taken in turn.
median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }
pairs() { # name process URL process URL
  : >"$folder/ratios"
  for ((round = 0; round < rounds; round++)); do
    load "$2" 16 "$3"
    local with=$rate with_cpu=$cpu
    load "$4" 16 "$5"
    echo "$(ratio "$with" "$rate") $with $rate $with_cpu $cpu" >>"$folder/ratios"
  done
  column() { cut -d' ' -f"$1" "$folder/ratios" | median; }
  echo "$1: ratio $(column 1) ($(column 2) against $(column 3) a second; processor time $(column 4) against $(column 5) us)"
}
pairs 'reverse proxy against a bare proxy' "$daemon" "http://127.0.0.1:$main/" "$passes" "http://127.0.0.1:$passing/"

kit() { # folder file check-port to
  local port=$gateway
  sed -e "s/127.0.0.1:3000/127.0.0.1:$app/; s/127.0.0.1:8000/127.0.0.1:$port/; s/127.0.0.1:8080/127.0.0.1:$main/; s/127.0.0.1:9000/127.0.0.1:$3/" \
    -e "s/port_value: 3000 /port_value: $app /; s/port_value: 8000 /port_value: $port /; s/port_value: 8080 /port_value: $main /; s/port_value: 9000 /port_value: $3 /" \
    -e "s/^:8000 {/:$port {/; s/^http {/http { access_log off;/" "plugins/gateways/$1/$2" >"$4/$2"
}
open_gateway() { # name check-port, on a free port
  gateway=$(free_port)
  local own=$folder/$1-$2
  mkdir -p "$own"
  case $1 in
    nginx)
      kit nginx hardened.conf "$2" "$own"
      start nginx -p "$own" -c "$own/hardened.conf" -e stderr -g "daemon off; master_process off; pid $own/nginx.pid;"
      ;;
    caddy)
      kit caddy hardened.caddyfile "$2" "$own"
      HOME=$own start caddy run --adapter caddyfile --config "$own/hardened.caddyfile"
      ;;
    traefik)
      kit traefik hardened.yaml "$2" "$own"
      printf 'entryPoints: {web: {address: "127.0.0.1:%s"}}\nproviders: {file: {filename: "%s"}}\n' "$gateway" "$own/hardened.yaml" >"$own/traefik.yaml"
      start "$venv/traefik" --configFile="$own/traefik.yaml"
      ;;
    envoy)
      kit envoy hardened.yaml "$2" "$own"
      start "$venv/envoy" --disable-hot-restart --concurrency 1 -l error -c "$own/hardened.yaml"
      ;;
  esac
  answered 200 -H "$authorization" "http://127.0.0.1:$gateway/"
}
compare() { # name
  open_gateway "$1" "$check"
  local with=$gateway with_process=$last
  open_gateway "$1" "$always"
  local without=$gateway
  pairs "$1 with checks against one that is always told 200" \
    "$with_process" "http://127.0.0.1:$with/" "$last" "http://127.0.0.1:$without/"
  stop "$with_process"
  stop "$last"
}
compare nginx
compare caddy
[[ -x $venv/traefik ]] && compare traefik
[[ -x $venv/envoy ]] && compare envoy

before=$(awk '/VmRSS/ { print $2 }' /proc/"$daemon"/status)
python3 - "$main" "$daemon" "$before" <<'PYTHON'
import resource, socket, sys
port, daemon, before = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
wanted = min(10000, most - 100)
kept = []
for number in range(wanted):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(b"GET /idle HTTP/1.1\r\nhost: x\r\n\r\n")
    s.recv(4096)
    kept.append(s)
rss = next(int(line.split()[1]) for line in open(f"/proc/{daemon}/status") if line.startswith("VmRSS"))
print(f"{wanted} idle connections: {(rss - before) / 1024:.0f} MiB more, {(rss - before) / wanted:.1f} KiB each ({rss / 1024:.0f} MiB in all)")
PYTHON
