#!/usr/bin/env bash
# The same traffic through balancer, nginx and haproxy (whichever are installed), one worker on one core, load and
# backend on another; keep-alive on both sides, access logs off. Rounds are interleaved, so that a noisy minute hits
# everybody. CPU is what all threads of the proxy used, per request; medians, spread and the ratio to nginx in the
# same round. Rows whose spreads overlap name no winner.
#
#   scripts/bench-compare.sh [--quick] [--rounds N] [--seconds N] [--proxy-core N] [--load-core N]
#                            [--only NAME,NAME] [--scenarios NAME,NAME] [--balancer PATH]
set -euo pipefail

usage() { sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//'; }

rounds=5 seconds=5 proxy_core='' load_core='' only='' scenarios='' binary=''
here=$(cd "$(dirname "$0")" && pwd)
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) rounds=2 seconds=1; shift ;;
    --rounds) rounds=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --proxy-core) proxy_core=$2; shift 2 ;;
    --load-core) load_core=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --scenarios) scenarios=$2; shift 2 ;;
    --balancer) binary=$2; shift 2 ;;
    -h|--help) usage; exit 0 ;;
    *) echo "error: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
done

PATH=$PATH:/usr/sbin
for tool in wrk nginx python3 taskset timeout; do
  command -v "$tool" >/dev/null || { echo "error: $tool is needed (nginx also as the backend)" >&2; exit 1; }
done
allowed=$(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))')
read -r first second _ <<<"$allowed " || true
[ -n "${second:-}" ] || { echo "error: two cores are needed, this host offers: $allowed" >&2; exit 1; }
proxy_core=${proxy_core:-$first} load_core=${load_core:-$second}

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

free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

wait_for_port() { # PORT NAME
  timeout 10 bash -c "until (exec 3<>/dev/tcp/127.0.0.1/$1) 2>/dev/null; do sleep 0.05; done" ||
    { echo "error: $2 does not listen on port $1" >&2; cat "$dir/$2.log" >&2 || true; exit 1; }
}

temp_paths="client_body_temp_path $dir/t1; proxy_temp_path $dir/t2; fastcgi_temp_path $dir/t3;
  uwsgi_temp_path $dir/t4; scgi_temp_path $dir/t5;"

# The backend: nginx serving files, on the load core.
backend_port=$(free_port)
mkdir "$dir/www"
head -c 128 /dev/urandom >"$dir/www/128"
head -c 16384 /dev/urandom >"$dir/www/16k"
head -c 1048576 /dev/urandom >"$dir/www/1m"
cat >"$dir/backend.conf" <<CONF
daemon off; worker_processes 1; pid $dir/backend.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  $temp_paths
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=100; keepalive_requests 1000000000;
  server { listen 127.0.0.1:$backend_port backlog=4096; root $dir/www; }
}
CONF
taskset -c "$load_core" nginx -c "$dir/backend.conf" -p "$dir" -e stderr 2>"$dir/backend.log" &
pids+=($!)
wait_for_port "$backend_port" backend

# The proxies, each with one worker on the proxy core. names[i] listens on ports[i]; roots[i] is its first process.
names=() ports=() roots=() versions=() configs=()
wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }

if wanted balancer; then
  binary=${binary:-$here/../target/release/balancer}
  if [ -x "$binary" ]; then
    flags=(run --listen 127.0.0.1:0 --cores "$proxy_core" --control-core "$proxy_core"
      --backend "127.0.0.1:$backend_port=50")
    # The cache, once it exists, is measured elsewhere: here every request must reach the backend.
    if "$binary" run --help 2>/dev/null | grep -q -- '--cache '; then flags+=(--cache off); fi
    BALANCER_ADMIN=off taskset -c "$proxy_core" "$binary" "${flags[@]}" 2>"$dir/balancer.log" &
    pid=$!
    if timeout 10 bash -c "until grep -q 'ready in' '$dir/balancer.log'; do kill -0 $pid || exit 1; sleep 0.05; done" 2>/dev/null; then
      pids+=("$pid")
      names+=(balancer); roots+=("$pid")
      ports+=("$(grep -o 'http://[^ ]*' "$dir/balancer.log" | sed -n 1p | grep -o '[0-9]*$')")
      versions+=("$("$binary" --version)"); configs+=("${flags[*]}")
    else
      echo "SKIPPED: balancer did not become ready: $(tail -n 3 "$dir/balancer.log")" >&2
      kill "$pid" 2>/dev/null || true
    fi
  else
    echo "SKIPPED: $binary is not there (cargo build --release)" >&2
  fi
fi

if wanted nginx; then
  port=$(free_port)
  cat >"$dir/nginx.conf" <<CONF
daemon off; worker_processes 1; pid $dir/nginx.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  $temp_paths
  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  upstream backend {
    server 127.0.0.1:$backend_port;
    keepalive 256; keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:$port backlog=4096 reuseport;
    location / {
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host \$host; proxy_buffers 16 16k; proxy_buffer_size 16k; proxy_max_temp_file_size 0;
    }
  }
}
CONF
  taskset -c "$proxy_core" nginx -c "$dir/nginx.conf" -p "$dir" -e stderr 2>"$dir/nginx.log" &
  pids+=($!); roots+=($!); names+=(nginx); ports+=("$port")
  versions+=("$(nginx -v 2>&1)"); configs+=("$(sed "s#$dir#DIR#g" "$dir/nginx.conf")")
  wait_for_port "$port" nginx
fi

if wanted haproxy && command -v haproxy >/dev/null; then
  port=$(free_port)
  cat >"$dir/haproxy.cfg" <<CONF
global
  nbthread 1
  maxconn 4000
  tune.bufsize 16384
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option http-keep-alive
frontend front
  bind 127.0.0.1:$port
  default_backend back
backend back
  server backend 127.0.0.1:$backend_port pool-max-conn 256
CONF
  taskset -c "$proxy_core" haproxy -db -f "$dir/haproxy.cfg" >"$dir/haproxy.log" 2>&1 &
  pids+=($!); roots+=($!); names+=(haproxy); ports+=("$port")
  versions+=("$(haproxy -v | sed -n 1p)"); configs+=("$(cat "$dir/haproxy.cfg")")
  wait_for_port "$port" haproxy
fi
[ ${#names[@]} -gt 0 ] || { echo "error: nothing to measure" >&2; exit 1; }

echo "# bench-compare: $(uname -sr), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sed -n 1p)"
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
      { echo "error: ${names[$i]} does not serve $file rightly" >&2; exit 1; }
  done
done

all_scenarios='128b:128:64 16k:16k:64 1m:1m:64 128b-1conn:128:1'
cat >"$dir/report.lua" <<'LUA'
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
LUA

measure() { # PORT FILE CONNECTIONS SECONDS
  taskset -c "$load_core" timeout $(($4 + 20)) \
    wrk -t1 -c"$3" -d"$4" --timeout 10s -s "$dir/report.lua" "http://127.0.0.1:$1/$2" | grep '^RESULT' || true
}

results=$dir/results.tsv
: >"$results"
for scenario in $all_scenarios; do
  IFS=: read -r label file connections <<<"$scenario"
  [ -z "$scenarios" ] || [[ ",$scenarios," == *",$label,"* ]] || continue
  for i in "${!names[@]}"; do measure "${ports[$i]}" "$file" "$connections" 1 >/dev/null; done
  for ((round = 1; round <= rounds; round++)); do
    # The order turns by one each round: nobody always follows the same neighbour.
    for ((k = 0; k < ${#names[@]}; k++)); do
      i=$(((k + round) % ${#names[@]}))
      before=$(python3 "$here/bench-report.py" cpu "${roots[$i]}")
      line=$(measure "${ports[$i]}" "$file" "$connections" "$seconds")
      after=$(python3 "$here/bench-report.py" cpu "${roots[$i]}")
      [ -n "$line" ] || { echo "error: no result from wrk for ${names[$i]} $label round $round" >&2; exit 1; }
      printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$label" "$round" "${names[$i]}" "$before" "$after" "${line#RESULT }" >>"$results"
    done
  done
done
echo
python3 "$here/bench-report.py" compare "$results"
