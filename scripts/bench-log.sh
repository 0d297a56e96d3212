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

rounds=7 seconds=3 proxy_core='' load_core='' formats=combined,json balancer=$scripts/../target/release/balancer
options "quick rounds seconds proxy-core load-core formats balancer" "$@"
need wrk nginx python3 taskset timeout
need_built "$balancer"
two_cores
proxy_core=${proxy_core:-$first} load_core=${load_core:-$second}

file_of 128 128
start_backend "$load_core"
for format in off ${formats//,/ }; do
  flags=(--backend "127.0.0.1:$backend_port=50" --cache off)
  [ "$format" = off ] || flags+=(--access-log "$dir/$format.log" --access-format "$format")
  start_balancer "$balancer" "$proxy_core" "${flags[@]}" || fail "balancer with log $format did not become ready"
  contender "$format" "$balancer_pid" "${balancer_url##*:}"
done

echo "# bench-log: $(machine)"
echo "proxy on core $proxy_core, load and backend on core $load_core; $rounds rounds of $seconds s; 128 B, 64 connections"
# As much as a browser sends: the log has something to write.
agent='wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
wrk.headers["Referer"] = "https://example.com/some/page?with=query"'
measure_all 128b 128 64 "$agent"
echo
python3 "$scripts/bench-report.py" compare "$dir/results.tsv" off 3
python3 "$scripts/bench-report.py" paired "$dir/results.tsv" off
for pid in "${roots[@]}"; do ended "$pid"; done
for format in ${formats//,/ }; do
  awk -F'\t' -v name="$format" '$3 == name { split($6, of, " "); n += of[1] } END { printf "%s: %d answers measured, ", name, n }' "$dir/results.tsv"
  echo "$(wc -l <"$dir/$format.log") lines (warm-up included), $(du -h "$dir/$format.log" | cut -f1)"
done
