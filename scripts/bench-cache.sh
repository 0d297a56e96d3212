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

rounds=5 seconds=5 cache_core='' load_core='' connections=64 objects=100 only='' balancer=$scripts/../target/release/balancer
options "quick rounds seconds cache-core load-core connections objects only balancer" "$@"
need wrk nginx python3 taskset timeout
two_cores
cache_core=${cache_core:-$first} load_core=${load_core:-$second}

# The backend's files are fresh for an hour. It counts what it is asked.
for ((n = 1; n <= objects; n++)); do file_of "4k/$n" 4096; file_of "64k/$n" 65536; done
start_backend "$load_core" 'add_header Cache-Control max-age=3600; location = /status { stub_status; }'
backend_requests() { # without those that ask for the number
  python3 - "$backend_port" <<'PY'
import sys, urllib.request
print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/status", timeout=10).read().split()[9].decode())
PY
}

versions=() configs=()
wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }

if wanted balancer; then
  if ! [ -x "$balancer" ]; then
    echo "SKIPPED: $balancer is not there (cargo build --release)" >&2
  elif ! balancer_has "$balancer" --cache; then
    echo "SKIPPED: $balancer has no cache" >&2
  elif start_balancer "$balancer" "$cache_core" --backend "127.0.0.1:$backend_port=50" --cache on --cache-bytes 256MiB; then
    contender balancer "$balancer_pid" "${balancer_url##*:}"
    versions+=("$("$balancer" --version)"); configs+=("${balancer_flags[*]}")
  else
    echo "SKIPPED: balancer did not become ready" >&2
  fi
fi
for peer in $cache_peers; do
  wanted "$peer" && start_cache_peer "$peer" "$cache_core" "$backend_port" || continue
  contender "$peer" "$peer_pid" "$peer_port"; versions+=("$peer_version"); configs+=("$peer_config")
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

misses=()
measure_begins() { asked=$(backend_requests); }
measure_ends() {
  asked=$(($(backend_requests) - asked - 1))
  [ "$asked" -eq 0 ] || misses+=("- $label: INVALID, $asked requests of $1 reached the backend in round $2.")
}
for label in 4k 64k; do
  request="request = function() return wrk.format(nil, \"/$label/\" .. math.random($objects)) end"
  measure_all "$label" "$label/1" "$connections" "$request"
done
echo
python3 "$scripts/bench-report.py" compare "$dir/results.tsv" balancer
[ ${#misses[@]} -eq 0 ] || printf '%s\n' "${misses[@]}"
