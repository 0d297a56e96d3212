#!/usr/bin/env bash
# System calls per proxied keep-alive request, or per cache hit: a fixed number of requests through a balancer of its
# own with one worker, counted by strace. What the process does when idle (its ticks and waits) is inside; the batch is large
# enough for it not to matter. The goal is 4 socket calls a request, 2 a hit, plus a share of epoll_wait.
#
#   scripts/syscalls.sh [--requests N] [--connections N] [--file 128|16k] [--cached] [--balancer PATH]
set -euo pipefail
source "$(dirname "$0")/lib.sh"

requests=20000 connections=1 file=128 cached='' balancer=$scripts/../target/release/balancer
options "requests connections file cached! balancer" "$@"
cache=off goal=4
[ -z "$cached" ] || cache=on goal=2
need strace h2load nginx python3 taskset timeout
need_built "$balancer"
file_of 128 128
file_of 16k 16384
cores=$(allowed_cores)
start_backend "${cores// /,}" 'add_header Cache-Control max-age=3600;'

flags=(--backend "127.0.0.1:$backend_port=50")
if balancer_has "$balancer" --cache; then flags+=(--cache "$cache"); fi
start_balancer "$balancer" "${cores%% *}" "${flags[@]}" || fail "balancer did not become ready"
pid=$balancer_pid url=$balancer_url/$file

load() { # REQUESTS: exactly that many, all of them answered with 2xx, or the script ends
  timeout 120 h2load --h1 -t1 -c"$connections" -n"$1" "$url" >"$dir/load.log"
  grep -q "$1 succeeded, 0 failed" "$dir/load.log" && grep -q "status codes: $1 2xx" "$dir/load.log" ||
    { cat "$dir/load.log" >&2; fail "not every request succeeded"; }
}

load 1000 # warm
strace -c -f -q -o "$dir/counts" -p "$pid" 2>"$dir/strace.log" &
tracer=$!
timeout 10 bash -c "until grep -q '^TracerPid:[^0-9]*[1-9]' /proc/$pid/status; do sleep 0.05; done"
load "$requests"
kill -INT "$tracer"
wait "$tracer" || true

echo "# $("$balancer" --version), $(strace -V | sed -n 1p), $requests requests of $file over $connections connections, cache $cache"
python3 - "$dir/counts" "$requests" "$goal" <<'PY'
import re
import sys

groups = {
    "recv": {"recvfrom", "recvmsg", "recv", "read", "readv"},
    "send": {"sendto", "sendmsg", "send", "write", "writev", "sendfile", "splice"},
    "epoll_wait": {"epoll_wait", "epoll_pwait", "epoll_pwait2", "io_uring_enter"},
}
requests, counts = int(sys.argv[2]), {}
for line in open(sys.argv[1], encoding="utf-8"):
    parts = line.split()
    if len(parts) >= 5 and re.fullmatch(r"[\d.]+", parts[0]) and parts[-1] != "total":
        counts[parts[-1]] = int(parts[3])
print(f"{'group':<12}{'calls':>10}{'per request':>14}")
rest = dict(counts)
for group, names in groups.items():
    calls = sum(rest.pop(name, 0) for name in names)
    print(f"{group:<12}{calls:>10}{calls / requests:>14.3f}")
print(f"{'others':<12}{sum(rest.values()):>10}{sum(rest.values()) / requests:>14.3f}   {rest}")
sockets = sum(counts.get(name, 0) for name in groups["recv"] | groups["send"])
print(f"socket calls per request: {sockets / requests:.3f} (goal: {sys.argv[3]})")
PY
