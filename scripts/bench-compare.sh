#!/usr/bin/env bash
# The same traffic through balancer, nginx and haproxy (whichever are installed), one worker on one core, load and
# backend on another; keep-alive on both sides, access logs off. Rounds are interleaved, so that a noisy minute hits
# everybody. CPU is what all threads of the proxy used, per request; medians, spread and the ratio to nginx in the
# same round. Rows whose spreads overlap name no winner.
#
#   scripts/bench-compare.sh [--quick] [--rounds N] [--seconds N] [--proxy-core N] [--load-core N]
#                            [--only NAME,NAME] [--scenarios NAME,NAME] [--balancer PATH]
set -euo pipefail

source "$(dirname "$0")/lib.sh"

rounds=5 seconds=5 proxy_core='' load_core='' only='' scenarios='' binary=''
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
    *) wrong_option "$1" ;;
  esac
done

need wrk nginx python3 taskset timeout
allowed=$(allowed_cores)
read -r first second _ <<<"$allowed " || true
[ -n "${second:-}" ] || fail "two cores are needed, this host offers: $allowed"
proxy_core=${proxy_core:-$first} load_core=${load_core:-$second}

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
  $(nginx_paths backend)
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=100; keepalive_requests 1000000000;
  server { listen 127.0.0.1:$backend_port backlog=4096; root $dir/www; }
}
CONF
start_nginx backend "$load_core" "$backend_port"

# The proxies, each with one worker on the proxy core. names[i] listens on ports[i]; roots[i] is its first process.
names=() ports=() roots=() versions=() configs=()
wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }

if wanted balancer; then
  binary=${binary:-$scripts/../target/release/balancer}
  if [ -x "$binary" ]; then
    flags=(--backend "127.0.0.1:$backend_port=50")
    # The cache is measured elsewhere (bench-cache.sh): here every request must reach the backend.
    if balancer_has "$binary" --cache; then flags+=(--cache off); fi
    if start_balancer "$binary" "$proxy_core" "${flags[@]}"; then
      names+=(balancer); roots+=("$balancer_pid"); ports+=("${balancer_url##*:}")
      versions+=("$("$binary" --version)"); configs+=("${balancer_flags[*]}")
    else
      echo "SKIPPED: balancer did not become ready" >&2
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
  $(nginx_paths nginx)
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
  start_nginx nginx "$proxy_core" "$port"
  roots+=("$nginx_pid"); names+=(nginx); ports+=("$port")
  versions+=("$(nginx -v 2>&1)"); configs+=("$(sed "s#$dir#DIR#g" "$dir/nginx.conf")")
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
  started $!
  roots+=($!); names+=(haproxy); ports+=("$port")
  versions+=("$(haproxy -v | sed -n 1p)"); configs+=("$(cat "$dir/haproxy.cfg")")
  wait_for_port "$port" haproxy
fi
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
results=$dir/results.tsv
: >"$results"
for scenario in $all_scenarios; do
  IFS=: read -r label file connections <<<"$scenario"
  [ -z "$scenarios" ] || [[ ",$scenarios," == *",$label,"* ]] || continue
  for i in "${!names[@]}"; do measure "$load_core" "${ports[$i]}" "$file" "$connections" 1 >/dev/null; done
  for ((round = 1; round <= rounds; round++)); do
    # The order turns by one each round: nobody always follows the same neighbour.
    for ((k = 0; k < ${#names[@]}; k++)); do
      i=$(((k + round) % ${#names[@]}))
      before=$(python3 "$scripts/bench-report.py" cpu "${roots[$i]}")
      line=$(measure "$load_core" "${ports[$i]}" "$file" "$connections" "$seconds")
      after=$(python3 "$scripts/bench-report.py" cpu "${roots[$i]}")
      [ -n "$line" ] || fail "no result from wrk for ${names[$i]} $label round $round"
      printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$label" "$round" "${names[$i]}" "$before" "$after" "${line#RESULT }" >>"$results"
    done
  done
done
echo
python3 "$scripts/bench-report.py" compare "$results"
