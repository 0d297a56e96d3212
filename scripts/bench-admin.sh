#!/usr/bin/env bash
# What metrics and the status page cost: the same traffic through one balancer that is, turn by turn, left alone and
# scraped (at the turn's start, then every 5 s) while a status page is open (one stream of /live). One process, since
# two of the same binary may differ by more than what is looked for; and while it is left alone, another one without
# traffic is asked the same, so that the load has the same company. One worker on one core, the control core on the
# same; load, backend, scraper and page on another. CPU is that of all threads, per request; the ratio is to the turn
# alone in the same round. Noise is larger than the cost, so figures follow that have little of it: what the control
# thread used under that load, and, at rest, what a scrape, a frame of /live and a listener whom nobody asks cost.
#
#   scripts/bench-admin.sh [--quick] [--rounds N] [--seconds N] [--backends N] [--proxy-core N] [--load-core N]
#                          [--balancer PATH]
set -euo pipefail
source "$(dirname "$0")/lib.sh"

rounds=40 seconds=2 backends=20 proxy_core='' load_core='' balancer=$scripts/../target/release/balancer
options "quick rounds seconds backends proxy-core load-core balancer" "$@"
need wrk nginx curl python3 taskset timeout
need_built "$balancer"
two_cores
proxy_core=${proxy_core:-$first} load_core=${load_core:-$second}

file_of 128 128
lines=''
for ((n = 2; n <= backends; n++)); do lines+="listen 127.0.0.$n:PORT backlog=4096; "; done
start_backend "$load_core" "$lines"
flags=(--cache off)
for ((n = 1; n <= backends; n++)); do flags+=(--backend "127.0.0.$n:$backend_port=$((n % 100 + 1))"); done

begin() { start_balancer "$balancer" "$proxy_core" "${flags[@]}" --admin "$1" || fail "balancer did not become ready"; }
admin_address() { grep -o 'admin http://[^ ]*' "$dir/balancer.log" | sed -n 's#.*//##p'; }
begin off
bare_pid=$balancer_pid
begin 127.0.0.1:0
other_admin=$(admin_address)
begin 127.0.0.1:0
admin=$(admin_address)
for name in alone asked; do contender "$name" "$balancer_pid" "${balancer_url##*:}"; done

# Asks as Prometheus and a browser do. `scrape N EVERY` gets the metrics N times (0: until it is ended) over one
# connection, `page N` reads N frames of the stream (0: until it is ended); each says that it has begun in FILE. It takes
# the place of the shell: call it in another one.
ask() { # ADMIN FILE scrape|page N [EVERY]
  exec taskset -c "$load_core" python3 - "$@" <<'PY'
import http.client, itertools, sys, time
admin, begun, what, n, every = (sys.argv[1:] + ["0"])[:5]
link = http.client.HTTPConnection(admin, timeout=30)
times = itertools.count() if n == "0" else range(int(n))
if what == "page":
    link.request("GET", "/live")
    stream = link.getresponse()
    frame = lambda: all(not line.startswith(b"event: frame") for line in iter(stream.readline, b""))
    frame()  # the present, told along with the past
open(begun, "w").close()
for _ in times:
    if what == "page":
        frame()
    else:
        began = time.monotonic()
        link.request("GET", "/metrics")
        page = link.getresponse().read()
        assert page.startswith(b"# HELP"), page[:80]
        time.sleep(max(0, began + float(every) - time.monotonic()))
PY
}
until_begun() { timeout 10 bash -c "until [ -e '$1' ]; do sleep 0.01; done" || fail "the admin listener does not answer"; }

measure_begins() {
  local whom=$admin
  [ "$1" = asked ] || whom=$other_admin
  rm -f "$dir/paged" "$dir/scraped"
  ask "$whom" "$dir/paged" page 0 &
  pager=$!
  started "$pager"
  until_begun "$dir/paged"
  control_before=$(cpu_us "$balancer_pid" control) all_before=$(cpu_us "$balancer_pid")
  ask "$whom" "$dir/scraped" scrape 0 5 &
  scraper=$!
  started "$scraper"
  until_begun "$dir/scraped"
}
measure_ends() {
  local control=$(($(cpu_us "$balancer_pid" control) - control_before)) all=$(($(cpu_us "$balancer_pid") - all_before))
  printf '%s\t%s\t%s\n' "$1" "$control" "$all" >>"$dir/control.tsv"
  kill -0 "$pager" && kill -0 "$scraper" || fail "who asks the admin listener has ended before time"
  ended "$pager"
  ended "$scraper"
}

echo "# bench-admin: $(machine)"
echo "proxy on core $proxy_core, load, backend, scraper and page on core $load_core; $backends backends; $rounds rounds of" \
  "$seconds s; 128 B, 64 connections"
measure_all 128b 128 64
echo
python3 "$scripts/bench-report.py" compare "$dir/results.tsv" alone 3
echo
python3 "$scripts/bench-report.py" paired "$dir/results.tsv" alone
for name in alone asked; do
  awk -v name="$name" '$1 == name { control += $2; all += $3 } END {
    printf "- the control thread, %s: %.3f %% of all CPU used\n", name, 100 * control / all }' "$dir/control.tsv"
done

# At rest: what N of them cost beyond what the process does anyhow in that time.
asks=15
[ "$rounds" -gt 2 ] || asks=3
now_us() { echo $((${EPOCHREALTIME/[.,]/})); }
cost() { # PID COMMAND…: sets spent and passed, both in µs
  local pid=$1 began before
  shift
  began=$(now_us) before=$(cpu_us "$pid")
  "$@"
  spent=$(($(cpu_us "$pid") - before)) passed=$(($(now_us) - began))
}
tell() { # WHAT N EVERY SPENT PASSED REST REST-PASSED
  awk -v what="$1" -v n="$2" -v every="$3" -v spent="$4" -v passed="$5" -v rest="$6" -v rest_passed="$7" 'BEGIN {
    each = (spent - rest * passed / rest_passed) / n / 1000
    printf "- %s: %.2f ms of CPU, that is %.3f %% of a core at one every %d s\n", what, each, each / every / 10, every }'
}
cost "$bare_pid" sleep "$asks"
bare=$spent bare_passed=$passed
cost "$balancer_pid" sleep "$asks"
rest=$spent rest_passed=$passed
tell "the listener, a second in which nobody asks" "$asks" 1 "$rest" "$rest_passed" "$bare" "$bare_passed"
asks_in_a_shell() { (ask "$admin" "$dir/asked" "$@"); }
cost "$balancer_pid" asks_in_a_shell scrape "$asks" 1.1
tell "a scrape of $(curl -s "http://$admin/metrics" | wc -c) bytes" "$asks" 5 "$spent" "$passed" "$rest" "$rest_passed"
cost "$balancer_pid" asks_in_a_shell page "$asks"
tell "a frame of an open page" "$asks" 1 "$spent" "$passed" "$rest" "$rest_passed"
