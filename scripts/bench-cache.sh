#!/usr/bin/env bash
# What a cache hit costs: balancer, nginx's proxy_cache, HAProxy's cache and Varnish (whichever are installed), one
# worker on one core each, load on another; 4 KiB and 64 KiB objects, all warm, access logs off. Rounds are interleaved.
# CPU is what all threads of the cache used, per request; medians, spread, and the ratio to balancer in the same round:
# above 1, balancer used less. Requests that reached the backend while a cache was measured make its row invalid.
#
#   scripts/bench-cache.sh [--quick] [--rounds N] [--seconds N] [--cache-core N] [--load-core N] [--connections N]
#                          [--objects N] [--only NAME,NAME] [--balancer PATH]
set -euo pipefail
source "$(dirname "$0")/lib.sh"
source "$scripts/cache-peers.sh"

rounds=5 seconds=5 cache_core='' load_core='' connections=64 objects=100 only='' binary=$scripts/../target/release/balancer
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) rounds=2 seconds=1; shift ;;
    --rounds) rounds=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --cache-core) cache_core=$2; shift 2 ;;
    --load-core) load_core=$2; shift 2 ;;
    --connections) connections=$2; shift 2 ;;
    --objects) objects=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --balancer) binary=$2; shift 2 ;;
    -h|--help) usage; exit 0 ;;
    *) wrong_option "$1" ;;
  esac
done
need wrk nginx python3 taskset timeout
allowed=$(allowed_cores)
read -r first second _ <<<"$allowed " || true
[ -n "${second:-}" ] || fail "two cores are needed, this host offers: $allowed"
cache_core=${cache_core:-$first} load_core=${load_core:-$second}

# The backend: nginx serving files that are fresh for an hour, on the load core. It counts what it is asked.
backend_port=$(free_port)
for label in 4k:4096 64k:65536; do
  mkdir -p "$dir/www/${label%:*}"
  for ((n = 1; n <= objects; n++)); do head -c "${label#*:}" /dev/urandom >"$dir/www/${label%:*}/$n"; done
done
cat >"$dir/backend.conf" <<CONF
daemon off; worker_processes 1; pid $dir/backend.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  $(nginx_paths backend)
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=1000; keepalive_requests 1000000000;
  default_type text/plain;
  server {
    listen 127.0.0.1:$backend_port backlog=4096; root $dir/www; add_header Cache-Control max-age=3600;
    location = /status { stub_status; }
  }
}
CONF
start_nginx backend "$load_core" "$backend_port"
backend_requests() { # without those that ask for the number
  python3 - "$backend_port" <<'PY'
import sys, urllib.request
print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/status", timeout=10).read().split()[9].decode())
PY
}

# names[i] listens on ports[i]; roots[i] is its first process.
names=() ports=() roots=() versions=() configs=()
wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }

if wanted balancer; then
  if ! [ -x "$binary" ]; then
    echo "SKIPPED: $binary is not there (cargo build --release)" >&2
  elif ! balancer_has "$binary" --cache; then
    echo "SKIPPED: $binary has no cache" >&2
  elif start_balancer "$binary" "$cache_core" --backend "127.0.0.1:$backend_port=50" --cache on --cache-bytes 256MiB; then
    names+=(balancer); roots+=("$balancer_pid"); ports+=("${balancer_url##*:}")
    versions+=("$("$binary" --version)"); configs+=("${balancer_flags[*]}")
  else
    echo "SKIPPED: balancer did not become ready" >&2
  fi
fi
for peer in $cache_peers; do
  wanted "$peer" && start_cache_peer "$peer" "$cache_core" "$backend_port" || continue
  names+=("$peer"); roots+=("$peer_pid"); ports+=("$peer_port"); versions+=("$peer_version"); configs+=("$peer_config")
done
[ ${#names[@]} -gt 0 ] || fail "nothing to measure"

echo "# bench-cache: $(machine)"
echo "cache on core $cache_core, load on core $load_core; $rounds rounds of $seconds s; $connections connections," \
  "$objects objects; $(wrk -v 2>&1 | sed -n 1p || true)"
for i in "${!names[@]}"; do
  printf '\n## %s: %s\n%s\n' "${names[$i]}" "${versions[$i]}" "${configs[$i]}"
done

# Each cache must give the real bodies before its speed means anything; that also warms it.
for i in "${!names[@]}"; do
  python3 - "${ports[$i]}" "$dir/www" "$objects" <<'PY' || fail "${names[$i]} does not serve the objects rightly"
import http.client, sys
link = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
for label in ("4k", "64k"):
    for number in [*range(1, int(sys.argv[3]) + 1)] * 2:
        link.request("GET", f"/{label}/{number}")
        answer = link.getresponse()
        body = answer.read()
        with open(f"{sys.argv[2]}/{label}/{number}", "rb") as file:
            if answer.status != 200 or body != file.read():
                sys.exit(f"{label}/{number}: {answer.status}, {len(body)} bytes")
PY
done

results=$dir/results.tsv
: >"$results"
misses=()
for label in 4k 64k; do
  request="request = function() return wrk.format(nil, \"/$label/\" .. math.random($objects)) end"
  for i in "${!names[@]}"; do measure "$load_core" "${ports[$i]}" "$label/1" "$connections" 1 "$request" >/dev/null; done
  for ((round = 1; round <= rounds; round++)); do
    # The order turns by one each round: nobody always follows the same neighbour.
    for ((k = 0; k < ${#names[@]}; k++)); do
      i=$(((k + round) % ${#names[@]}))
      asked=$(backend_requests)
      before=$(python3 "$scripts/bench-report.py" cpu "${roots[$i]}")
      line=$(measure "$load_core" "${ports[$i]}" "$label/1" "$connections" "$seconds" "$request")
      after=$(python3 "$scripts/bench-report.py" cpu "${roots[$i]}")
      asked=$(($(backend_requests) - asked - 1))
      [ -n "$line" ] || fail "no result from wrk for ${names[$i]} $label round $round"
      [ "$asked" -eq 0 ] || misses+=("- $label: INVALID, $asked requests of ${names[$i]} reached the backend in round $round.")
      printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$label" "$round" "${names[$i]}" "$before" "$after" "${line#RESULT }" >>"$results"
    done
  done
done
echo
python3 "$scripts/bench-report.py" compare "$results" balancer
[ ${#misses[@]} -eq 0 ] || printf '%s\n' "${misses[@]}"
