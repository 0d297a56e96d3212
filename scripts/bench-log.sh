#!/usr/bin/env bash
# What the access log costs: the same traffic through a balancer without one and others that log, in interleaved
# rounds; one worker on one core each, load and backend on another. CPU is that of all threads, the log's writer
# included, per request; the ratio is to the balancer without a log in the same round. Afterwards each log must have as
# many lines as there were answers, less those counted as dropped.
#
#   scripts/bench-log.sh [--quick] [--rounds N] [--seconds N] [--proxy-core N] [--load-core N] [--formats NAME,NAME]
#                        [--balancer PATH]
set -euo pipefail
source "$(dirname "$0")/lib.sh"

rounds=7 seconds=3 proxy_core='' load_core='' formats=combined,json binary=$scripts/../target/release/balancer
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) rounds=2 seconds=1; shift ;;
    --rounds) rounds=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --proxy-core) proxy_core=$2; shift 2 ;;
    --load-core) load_core=$2; shift 2 ;;
    --formats) formats=$2; shift 2 ;;
    --balancer) binary=$2; shift 2 ;;
    -h|--help) usage; exit 0 ;;
    *) wrong_option "$1" ;;
  esac
done
need wrk nginx python3 taskset timeout
[ -x "$binary" ] || fail "$binary is not there (cargo build --release)"
allowed=$(allowed_cores)
read -r first second _ <<<"$allowed " || true
[ -n "${second:-}" ] || fail "two cores are needed, this host offers: $allowed"
proxy_core=${proxy_core:-$first} load_core=${load_core:-$second}

backend_port=$(free_port)
mkdir "$dir/www"
head -c 128 /dev/urandom >"$dir/www/128"
cat >"$dir/backend.conf" <<CONF
daemon off; worker_processes 1; pid $dir/backend.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  $(nginx_paths backend)
  access_log off; open_file_cache max=100; keepalive_requests 1000000000;
  server { listen 127.0.0.1:$backend_port backlog=4096; root $dir/www; }
}
CONF
start_nginx backend "$load_core" "$backend_port"

names=() ports=() roots=()
for format in off ${formats//,/ }; do
  flags=(--backend "127.0.0.1:$backend_port=50" --cache off)
  [ "$format" = off ] || flags+=(--access-log "$dir/$format.log" --access-format "$format")
  start_balancer "$binary" "$proxy_core" "${flags[@]}" || fail "balancer with log $format did not become ready"
  names+=("$format"); roots+=("$balancer_pid"); ports+=("${balancer_url##*:}")
done

echo "# bench-log: $(machine)"
echo "proxy on core $proxy_core, load and backend on core $load_core; $rounds rounds of $seconds s; 128 B, 64 connections"
results=$dir/results.tsv
: >"$results"
# As much as a browser sends: the log has something to write.
agent='wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
wrk.headers["Referer"] = "https://example.com/some/page?with=query"'
for i in "${!names[@]}"; do measure "$load_core" "${ports[$i]}" 128 64 1 "$agent" >/dev/null; done
for ((round = 1; round <= rounds; round++)); do
  # The order turns by one each round: nobody always follows the same neighbour.
  for ((k = 0; k < ${#names[@]}; k++)); do
    i=$(((k + round) % ${#names[@]}))
    before=$(python3 "$scripts/bench-report.py" cpu "${roots[$i]}")
    line=$(measure "$load_core" "${ports[$i]}" 128 64 "$seconds" "$agent")
    after=$(python3 "$scripts/bench-report.py" cpu "${roots[$i]}")
    [ -n "$line" ] || fail "no result from wrk for ${names[$i]} round $round"
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' 128b "$round" "${names[$i]}" "$before" "$after" "${line#RESULT }" >>"$results"
  done
done
echo
python3 "$scripts/bench-report.py" compare "$results" off
for pid in "${roots[@]}"; do ended "$pid"; done
for format in ${formats//,/ }; do
  awk -F'\t' -v name="$format" '$3 == name { split($6, of, " "); n += of[1] } END { printf "%s: %d answers measured, ", name, n }' "$results"
  echo "$(wc -l <"$dir/$format.log") lines (warm-up included), $(du -h "$dir/$format.log" | cut -f1)"
done
