#!/usr/bin/env bash
# What more worker cores give: balancer, and peers if asked for, on 1..N cores in turn; load generator and backend on
# cores of their own. Rounds are interleaved, so that a noisy minute hits everybody. Two loads, 128 bytes each:
#   closed loop   wrk sends when an answer has come: how much goes through
#   open loop     open-loop.py sends at a fixed rate per worker core and counts a request's time from when it was due,
#                 so that a slow answer delays none of the others' clocks: how long it takes. (wrk has no rate; h2load's
#                 --rps sends in bursts and counts from when it sent.)
# Prints Markdown, and draws the curves with the ideal line into an SVG; medians and spread, no winner where spreads
# overlap. Without lists, workers get half of the physical cores, load and backend the rest; SMT siblings stay idle.
# On fewer than three physical cores load and backend share one. --share-cores lets workers use all cores, load and
# backend among them: then the curve bends early for that reason, and the report says so. Without --rate, it is 30 % of
# what the slowest answers per second on the fewest cores.
#
#   scripts/bench-scaling.sh [--quick] [--rounds N] [--seconds N] [--peers nginx,haproxy,varnish,envoy] [--steps 1,2,4]
#                            [--worker-cores LIST] [--load-cores LIST] [--backend-cores LIST] [--share-cores]
#                            [--connections N-PER-WORKER] [--rate N-PER-WORKER] [--svg FILE] [--balancer PATH]
set -euo pipefail
source "$(dirname "$0")/lib.sh"
source "$scripts/proxy-peers.sh"

rounds=5 seconds=4 peers='' steps='' worker_cores='' load_cores='' backend_cores='' share_cores='' connections=64 rate=''
svg=scaling.svg balancer=$scripts/../target/release/balancer
arguments=()
for argument in "$@"; do
  if [ "$argument" = --share-cores ]; then share_cores=yes; else arguments+=("$argument"); fi
done
options "quick rounds seconds peers steps worker-cores load-cores backend-cores connections rate svg balancer" \
  ${arguments[@]+"${arguments[@]}"}
need wrk nginx python3 taskset timeout
need_built "$balancer"
{ : >"$svg"; } 2>/dev/null || fail "--svg $svg cannot be written"

# Who works where; what is not given is divided here. NOTES: a line for each thing that two of them share.
plan() {
  python3 - "$worker_cores" "$load_cores" "$backend_cores" "$steps" "$share_cores" <<'PY'
import os, sys

def numbers(listed):
    try:
        return [core for part in listed.split(",") if part
                for core in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)]
    except ValueError:
        raise SystemExit(f"error: a list is like 0,2-5, not {listed}")

def physical(core):
    """What names its physical core."""
    try:
        with open(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return str(core)

workers, load, backend, steps = map(numbers, sys.argv[1:5])
allowed = sorted(os.sched_getaffinity(0))
wrong = sorted(set(workers + load + backend) - set(allowed))
if wrong:
    raise SystemExit(f"error: core {wrong[0]} is not available; this host offers {allowed}")
alone = [core for core in allowed if physical(core) not in map(physical, (of for of in allowed if of < core))]
taken = set(map(physical, workers + load + backend))
free = [core for core in alone if physical(core) not in taken]
if not workers:
    half = max(1, (len(free) + 1 if load and backend else len(free)) // 2)
    workers, free = free[:half], free[half:]
if not load and not backend:
    half = (len(free) + 1) // 2
    load, backend = free[:half], free[half:] or free[-1:]
load, backend = load or free or backend or workers[-1:], backend or free or load or workers[-1:]
if sys.argv[5]:
    workers += [core for core in alone if physical(core) not in map(physical, workers)]
steps = steps or [n for n in range(1, len(workers) + 1) if n <= 4 or n & n - 1 == 0 or n == len(workers)]
if not steps or min(steps) < 1 or max(steps) > len(workers):
    raise SystemExit(f"error: --steps must be from 1 to {len(workers)}, the number of worker cores")
name = lambda cores: ("core " if len(cores) == 1 else "cores ") + ",".join(map(str, cores))
notes = []
for what, with_what, ours, theirs in (("load and backend", "", load, backend), ("load", " with workers", load, workers),
                                      ("backend", " with workers", backend, workers)):
    shared = sorted(set(ours) & set(theirs[:max(steps)] if theirs is workers else theirs))
    if shared:
        notes.append(f"SHARED: {what} {'share' if not with_what else 'shares'} {name(shared)}{with_what}")
if any(" with workers" in note for note in notes):
    notes.append("The curve bends because of what is shared: it means little beyond the cores that are not.")
if max(steps) == 1:
    notes.append("One worker core: a point, not a curve.")
for cores in (workers[:max(steps)], load, backend, sorted(set(steps))):
    print(",".join(map(str, cores)))
print("\n".join(notes))
PY
}
planned=$(plan)
{ read -r worker_cores; read -r load_cores; read -r backend_cores; read -r steps; notes=$(cat); } <<<"$planned"
"$scripts/bench-host.sh" --balancer "$balancer" >"$dir/host.json"
[ -z "$notes" ] || sed 's/^/warning: /' <<<"$notes" >&2
[[ -n $share_cores || $steps != 1 ]] || echo "warning: --share-cores goes on to more cores, with others on them" >&2

file_of 128 128
start_backend "$backend_cores"

versions=("$("$balancer" --version)")
for n in ${steps//,/ }; do
  cores=$(cut -d, -f"1-$n" <<<"$worker_cores")
  # The cache is measured elsewhere (bench-cache.sh): here every request must reach the backend.
  start_balancer "$balancer" "$cores" --backend "127.0.0.1:$backend_port=50" --cache off || fail "balancer did not become ready"
  contender "balancer@$n" "$balancer_pid" "${balancer_url##*:}"
  for peer in ${peers//,/ }; do
    start_proxy_peer "$peer" "$cores" "$backend_port" || continue
    contender "$peer@$n" "$peer_pid" "$peer_port"
    [[ " ${versions[*]} " == *" $peer_version "* ]] || versions+=("$peer_version")
  done
done

# measure_all's i is the contender: the more workers, the more load.
workers() { echo "${names[$i]##*@}"; }
closed() { closed_loop "$1" "$2" "$3" "$((connections * $(workers)))" "$5"; }
open() {
  timeout $(($5 + 30)) python3 "$scripts/open-loop.py" "$1" "$2" "/$3" "$((rate * $(workers)))" "$((connections * $(workers)))" \
    "$5" >"$dir/told" || true
  awk '/^SENDER/ { print $2, $3, $4, $5 }' "$dir/told" >"$dir/sender"
  grep '^RESULT' "$dir/told" || true
}
measure() { "$loop" "$@"; }
measure_begins() { : >"$dir/sender"; }
measure_ends() { # NAME ROUND
  printf '%s\t%s\t%s\t%s\t%s\n' "$loop" "$2" "$1" "$(python3 "$scripts/bench-report.py" memory "${roots[$i]}")" \
    "$(cat "$dir/sender")" >>"$dir/extra.tsv"
}
load_core=$load_cores
loop=closed
measure_all closed 128 "$connections"
[ -n "$rate" ] || rate=$(awk -F'\t' -v fewest="@${steps%%,*}$" '$3 ~ fewest {
    split($6, of, " "); a_second = of[1] / of[2] * 1e6 / '"${steps%%,*}"'; if (!lowest || a_second < lowest) lowest = a_second
  } END { print int(lowest * .3 / 100) * 100 }' "$dir/results.tsv")
[ "$rate" -gt 0 ] || fail "too slow for a rate of its own; give --rate"
loop=open
measure_all open 128 "$connections"

echo "# bench-scaling: $(machine)"
printf '%s\n' "${versions[@]}" "$(wrk -v 2>&1 | sed -n 1p || true)" | sed 's/^/- /'
echo "- workers on cores $worker_cores, load on $load_cores, backend (nginx) on $backend_cores; $rounds rounds of $seconds s;" \
  "128 B, $connections connections a worker core; open loop: $rate requests a second and worker core"
[ -z "$notes" ] || sed 's/.*/- **&**/' <<<"$notes"
python3 -c 'import json, sys; [print("- host:", text) for text in json.load(sys.stdin)["warnings"]]' <"$dir/host.json"
echo
python3 "$scripts/bench-report.py" scaling "$dir/results.tsv" "$dir/extra.tsv" "$svg" "$notes"
echo
echo "![scaling curves](${svg##*/})"
