#!/usr/bin/env bash
# System calls per proxied keep-alive request: a fixed number of requests through a balancer of its own with one
# worker, counted by strace. What the process does when idle (its ticks and waits) is inside; the batch is large
# enough for it not to matter. The goal is 4 socket calls a request plus a share of epoll_wait.
#
#   scripts/syscalls.sh [--requests N] [--connections N] [--file 128|16k] [--balancer PATH]
set -euo pipefail

requests=20000 connections=1 file=128 binary=''
here=$(cd "$(dirname "$0")" && pwd)
while [ $# -gt 0 ]; do
  case "$1" in
    --requests) requests=$2; shift 2 ;;
    --connections) connections=$2; shift 2 ;;
    --file) file=$2; shift 2 ;;
    --balancer) binary=$2; shift 2 ;;
    -h|--help) sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "error: unknown option $1" >&2; exit 2 ;;
  esac
done
PATH=$PATH:/usr/sbin
binary=${binary:-$here/../target/release/balancer}
for tool in strace h2load nginx python3 timeout "$binary"; do
  command -v "$tool" >/dev/null || { echo "error: $tool is needed" >&2; exit 1; }
done

dir=$(mktemp -d)
chmod 755 "$dir" # nginx's workers drop root, and must still reach the files
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
mkdir "$dir/www"
head -c 128 /dev/urandom >"$dir/www/128"
head -c 16384 /dev/urandom >"$dir/www/16k"
cat >"$dir/backend.conf" <<CONF
daemon off; worker_processes 1; pid $dir/backend.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  client_body_temp_path $dir/t1; proxy_temp_path $dir/t2; fastcgi_temp_path $dir/t3;
  uwsgi_temp_path $dir/t4; scgi_temp_path $dir/t5;
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=100; keepalive_requests 1000000000;
  server { listen 127.0.0.1:$port backlog=4096; root $dir/www; }
}
CONF
nginx -c "$dir/backend.conf" -p "$dir" -e stderr &
pids+=($!)

core=$(python3 -c 'import os; print(min(os.sched_getaffinity(0)))')
flags=(run --listen 127.0.0.1:0 --cores "$core" --control-core "$core" --backend "127.0.0.1:$port=50")
if "$binary" run --help 2>/dev/null | grep -q -- '--cache '; then flags+=(--cache off); fi
BALANCER_ADMIN=off "$binary" "${flags[@]}" 2>"$dir/balancer.log" &
balancer=$!
pids+=("$balancer")
timeout 10 bash -c "until grep -q 'ready in' '$dir/balancer.log'; do kill -0 $balancer || exit 1; sleep 0.05; done" ||
  { echo "error: balancer did not become ready" >&2; cat "$dir/balancer.log" >&2; exit 1; }
url=$(grep -o 'http://[^ ]*' "$dir/balancer.log" | sed -n 1p)/$file

load() { # REQUESTS: exactly that many, all of them answered with 2xx, or the script ends
  timeout 120 h2load --h1 -t1 -c"$connections" -n"$1" "$url" >"$dir/load.log"
  grep -q "$1 succeeded, 0 failed" "$dir/load.log" && grep -q "status codes: $1 2xx" "$dir/load.log" ||
    { echo "error: not every request succeeded" >&2; cat "$dir/load.log" >&2; exit 1; }
}

load 1000 # warm
strace -c -f -q -o "$dir/counts" -p "$balancer" 2>"$dir/strace.log" &
tracer=$!
timeout 10 bash -c "until grep -q '^TracerPid:[^0-9]*[1-9]' /proc/$balancer/status; do sleep 0.05; done"
load "$requests"
kill -INT "$tracer"
wait "$tracer" || true

echo "# $("$binary" --version), $(strace -V | sed -n 1p), $requests requests of $file over $connections connections"
python3 - "$dir/counts" "$requests" <<'PY'
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
print(f"socket calls per request: {sockets / requests:.3f} (goal: 4)")
PY
