#!/usr/bin/env bash
# The same traffic through balancer, nginx, haproxy, varnish (passing everything on) and envoy, whichever are installed;
# one worker on one core each, load and backend on another; keep-alive on both sides, access logs off. Rounds are
# interleaved, so that a noisy minute hits everybody. CPU is what all threads of the proxy used, per request; medians,
# spread and the ratio to nginx in the same round. Rows whose spreads overlap name no winner.
#
#   scripts/bench-compare.sh [--quick] [--rounds N] [--seconds N] [--proxy-core N] [--load-core N]
#                            [--only NAME,NAME] [--scenarios NAME,NAME] [--balancer PATH]
set -euo pipefail

source "$(dirname "$0")/lib.sh"
source "$scripts/proxy-peers.sh"

rounds=5 seconds=5 proxy_core='' load_core='' only='' scenarios='' balancer=$scripts/../target/release/balancer
options "quick rounds seconds proxy-core load-core only scenarios balancer" "$@"
need wrk nginx python3 taskset timeout
two_cores
proxy_core=${proxy_core:-$first} load_core=${load_core:-$second}

file_of 128 128
file_of 16k 16384
file_of 1m 1048576
start_backend "$load_core"

# The proxies, each with one worker on the proxy core.
versions=() configs=()
wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }

if wanted balancer; then
  if [ -x "$balancer" ]; then
    flags=(--backend "127.0.0.1:$backend_port=50")
    # The cache is measured elsewhere (bench-cache.sh): here every request must reach the backend.
    if balancer_has "$balancer" --cache; then flags+=(--cache off); fi
    if start_balancer "$balancer" "$proxy_core" "${flags[@]}"; then
      contender balancer "$balancer_pid" "${balancer_url##*:}"
      versions+=("$("$balancer" --version)"); configs+=("${balancer_flags[*]}")
    else
      echo "SKIPPED: balancer did not become ready" >&2
    fi
  else
    echo "SKIPPED: $balancer is not there (cargo build --release)" >&2
  fi
fi

for peer in $proxy_peers; do
  wanted "$peer" && start_proxy_peer "$peer" "$proxy_core" "$backend_port" || continue
  contender "$peer" "$peer_pid" "$peer_port"; versions+=("$peer_version"); configs+=("$peer_config")
done
[ ${#names[@]} -gt 0 ] || fail "nothing to measure"

echo "# bench-compare: $(machine)"
echo "proxy on core $proxy_core, load and backend on core $load_core; $rounds rounds of $seconds s; $(wrk -v 2>&1 | sed -n 1p || true)"
for i in "${!names[@]}"; do
  printf '\n## %s: %s\n%s\n' "${names[$i]}" "${versions[$i]}" "${configs[$i]}"
done

# Each proxy must give the real body before its speed means anything.
for i in "${!names[@]}"; do
  for file in 128 16k 1m; do
    python3 - "http://127.0.0.1:${ports[$i]}/$file" "$dir/www/$file" <<'PY' ||
import sys, urllib.request
sys.exit(urllib.request.urlopen(sys.argv[1], timeout=10).read() != open(sys.argv[2], "rb").read())
PY
      fail "${names[$i]} does not serve $file rightly"
  done
done

all_scenarios='128b:128:64 16k:16k:64 1m:1m:64 128b-1conn:128:1'
for scenario in $all_scenarios; do
  IFS=: read -r label file connections <<<"$scenario"
  [ -z "$scenarios" ] || [[ ",$scenarios," == *",$label,"* ]] || continue
  measure_all "$label" "$file" "$connections"
done
echo
python3 "$scripts/bench-report.py" compare "$dir/results.tsv"
