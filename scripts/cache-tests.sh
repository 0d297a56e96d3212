#!/usr/bin/env bash
# The public suite http-tests/cache-tests against the real binary: which required, optimal and informative tests pass,
# and whether every run says the same. Exit code 0 if, in each run, all required tests pass (in safe mode all but two)
# and all but ten of the optimal ones.
#
# The suite comes from npm (http-cache-tests 0.4.5, a cut of early 2021; 15 of its 157 required tests are told but not
# judged, since later cuts dropped or reversed them). For today's suite: git clone it, npm install in it, --suite DIR.
#
#   scripts/cache-tests.sh [--mode safe|rfc] [--cores N] [--runs N] [--suite DIR] [--id TEST] [--balancer PATH]
#   scripts/cache-tests.sh --peer nginx|haproxy|varnish [--runs N] [--suite DIR] [--id TEST]
set -euo pipefail
source "$(dirname "$0")/lib.sh"
source "$scripts/cache-peers.sh"

mode=safe cores=1 runs=1 suite='' id='' balancer=$scripts/../target/release/balancer peer=''
options "mode cores runs suite id balancer peer" "$@"
[[ $mode = safe || $mode = rfc ]] || fail "--mode is safe or rfc, not $mode"
need node npm python3 taskset timeout
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || fail "node 20 or newer is needed, this is $(node --version)"

if [ -z "$suite" ]; then
  store=${XDG_CACHE_HOME:-$HOME/.cache}/balancer/http-cache-tests-0.4.5
  suite=$store/package
  if [ ! -e "$store/complete" ]; then
    mkdir -p "$store"
    # Packed and unpacked rather than installed: it names a whole old npm as a dependency, and needs only its fetch.
    (cd "$store" && npm pack --silent http-cache-tests@0.4.5 >/dev/null && tar xzf http-cache-tests-0.4.5.tgz &&
      npm install --silent --no-audit --no-fund --prefix "$store" node-fetch@2 >/dev/null && touch complete) ||
      fail "the suite could not be fetched from the npm registry; --suite DIR takes a checkout of it"
  fi
fi
suite=$(cd "$suite" && pwd)
engine=$suite
[ ! -d "$suite/test-engine" ] || engine=$suite/test-engine

# Its origin finds a port of its own, and prints it.
: >"$dir/origin.log"
(cd "$engine" && exec env npm_config_protocol=http npm_config_port=0 npm_config_pidfile="$dir/origin.pid" \
  node server/server.mjs) >"$dir/origin.log" 2>&1 &
started $!
timeout 10 bash -c "until grep -q 'Listening on' '$dir/origin.log'; do sleep 0.05; done" ||
  { cat "$dir/origin.log" >&2; fail "the suite's origin does not start"; }
origin_port=$(grep -o 'Listening on .*' "$dir/origin.log" | grep -o '[0-9]*/$' | tr -d /)

core_list=$(allowed_cores | cut -d' ' -f"1-$cores" | tr ' ' ,)
files=()
for ((run = 1; run <= runs; run++)); do
  if [ -n "$peer" ]; then
    start_cache_peer "$peer" "$core_list" "$origin_port" || exit 1
    pid=$peer_pid url=http://127.0.0.1:$peer_port name="$peer: $peer_version"
  else
    balancer_has "$balancer" --cache-mode || fail "$balancer has no cache"
    start_balancer "$balancer" "$core_list" --backend "127.0.0.1:$origin_port=50" --cache on --cache-mode "$mode" ||
      fail "balancer did not become ready"
    pid=$balancer_pid url=$balancer_url name="$("$balancer" --version), --cache-mode $mode, cores $core_list"
  fi
  [ "$run" -gt 1 ] || echo "# $name; suite $suite; $(date -u +%F)"
  if [ -n "$id" ]; then
    timeout 60 node "$scripts/cache-tests.mjs" run "$suite" "$url" "$id"
  else
    timeout 600 node "$scripts/cache-tests.mjs" run "$suite" "$url" >"$dir/run-$run.json" 2>"$dir/run.log" ||
      { cat "$dir/run.log" >&2; fail "run $run did not end"; }
    [ "$run" -gt 1 ] || grep '^warning' "$dir/run.log" >&2 || true
    kill -0 "$pid" 2>/dev/null || { cat "$dir/balancer.log" >&2 || true; fail "the cache died during run $run"; }
    files+=("$dir/run-$run.json")
  fi
  ended "$pid"
  rm -rf "$dir/varnish" "$dir/nginx-cache.store"
done
[ -n "$id" ] || node "$scripts/cache-tests.mjs" report "$suite" "$mode" "${files[@]}"
