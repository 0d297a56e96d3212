#!/usr/bin/env bash
# System calls per proxied keep-alive request, or per cache hit: a fixed number of requests through a balancer of its own with one
# worker, counted by strace. What the process does when idle (its ticks and waits) is inside; the batch is large
# enough for it not to matter. The goal is 4 socket calls a request, 2 a hit, plus a share of epoll_wait.
#
#   scripts/syscalls.sh [--requests N] [--connections N] [--file 128|16k] [--cached] [--balancer PATH]
set -euo pipefail
source "$(dirname "$0")/lib.sh"

requests=20000 connections=1 file=128 cache=off goal=4 binary=''
while [ $# -gt 0 ]; do
  case "$1" in
    --requests) requests=$2; shift 2 ;;
    --connections) connections=$2; shift 2 ;;
    --file) file=$2; shift 2 ;;
    --cached) cache=on goal=2; shift ;;
    --balancer) binary=$2; shift 2 ;;
    -h|--help) usage; exit 0 ;;
    *) wrong_option "$1" ;;
  esac
done
binary=${binary:-$scripts/../target/release/balancer}
need strace h2load nginx python3 taskset timeout "$binary"

port=$(free_port)
mkdir "$dir/www"
head -c 128 /dev/urandom >"$dir/www/128"
head -c 16384 /dev/urandom >"$dir/www/16k"
cat >"$dir/backend.conf" <<CONF
daemon off; worker_processes 1; pid $dir/backend.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  $(nginx_paths backend)
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=100; keepalive_requests 1000000000; add_header Cache-Control max-age=3600;
  server { listen 127.0.0.1:$port backlog=4096; root $dir/www; }
}
CONF
cores=$(allowed_cores)
start_nginx backend "${cores// /,}" "$port"

flags=(--backend "127.0.0.1:$port=50")
if balancer_has "$binary" --cache; then flags+=(--cache "$cache"); fi
start_balancer "$binary" "${cores%% *}" "${flags[@]}" || fail "balancer did not become ready"
balancer=$balancer_pid url=$balancer_url/$file

load() { # REQUESTS: exactly that many, all of them answered with 2xx, or the script ends
  timeout 120 h2load --h1 -t1 -c"$connections" -n"$1" "$url" >"$dir/load.log"
  grep -q "$1 succeeded, 0 failed" "$dir/load.log" && grep -q "status codes: $1 2xx" "$dir/load.log" ||
    { cat "$dir/load.log" >&2; fail "not every request succeeded"; }
}

load 1000 # warm
strace -c -f -q -o "$dir/counts" -p "$balancer" 2>"$dir/strace.log" &
tracer=$!
timeout 10 bash -c "until grep -q '^TracerPid:[^0-9]*[1-9]' /proc/$balancer/status; do sleep 0.05; done"
load "$requests"
kill -INT "$tracer"
wait "$tracer" || true

echo "# $("$binary" --version), $(strace -V | sed -n 1p), $requests requests of $file over $connections connections, cache $cache"
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
