# shellcheck shell=bash
# What the scripts here share; sourced, never run. Gives a scratch directory ($dir) and ends, when the script ends,
# every process named to `started`.

PATH=$PATH:/usr/sbin
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
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

# The comment block at the head of a script, from its second line on, is its help.
usage() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

fail() { echo "error: $*" >&2; exit 1; }

wrong_option() { echo "error: unknown option $1" >&2; usage >&2; exit 2; }

# --NAME VALUE sets the variable of that name (with _ for -), whose default stands before; with a name that ends in ! it
# takes no value and is yes. --quick is for a first look.
options() { # "NAME…" ARGUMENT…
  local known=" $1 " name
  shift
  while [ $# -gt 0 ]; do
    name=${1#--}
    case "$1" in
      -h|--help) usage; exit 0 ;;
      --quick) [[ $known == *" quick "* ]] || wrong_option "$1"; rounds=2 seconds=1; shift ;;
      --*)
        if [[ $known == *" $name! "* ]]; then printf -v "${name//-/_}" yes; shift; continue; fi
        [[ $known == *" $name "* ]] || wrong_option "$1"
        [ $# -gt 1 ] || fail "$1 needs a value"
        printf -v "${name//-/_}" %s "$2"
        shift 2 ;;
      *) wrong_option "$1" ;;
    esac
  done
}

need() { # TOOL…
  for tool in "$@"; do command -v "$tool" >/dev/null || fail "$tool is needed"; done
}

need_built() { [ -x "$1" ] || fail "$1 is not there (cargo build --release)"; } # BINARY

started() { pids+=("$1"); }

ended() { # PID: now, not at the end of the script
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
  local kept=()
  for pid in "${pids[@]}"; do [ "$pid" = "$1" ] || kept+=("$pid"); done
  pids=("${kept[@]}")
}

count_of() { local all; IFS=, read -ra all <<<"$1"; echo "${#all[@]}"; } # LIST,WITH,COMMAS

allowed_cores() { python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))'; }

two_cores() { # sets first and second: those who load and those who are loaded do not share one
  local allowed
  allowed=$(allowed_cores)
  read -r first second _ <<<"$allowed " || true
  [ -n "${second:-}" ] || fail "two cores are needed, this host offers: $allowed"
}

free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

wait_for_port() { # PORT NAME, which logs to $dir/NAME.log
  timeout 10 bash -c "until (exec 3<>/dev/tcp/127.0.0.1/$1) 2>/dev/null; do sleep 0.05; done" ||
    { cat "$dir/$2.log" >&2 || true; fail "$2 does not listen on port $1"; }
}

# What nginx must be told to leave its compiled-in directories alone; each instance has its own, named NAME.
nginx_paths() { # NAME
  mkdir -p "$dir/$1.temp"
  chmod 777 "$dir/$1.temp"
  echo "client_body_temp_path $dir/$1.temp/1; proxy_temp_path $dir/$1.temp/2; fastcgi_temp_path $dir/$1.temp/3;
  uwsgi_temp_path $dir/$1.temp/4; scgi_temp_path $dir/$1.temp/5;"
}

start_nginx() { # NAME CORES PORT, configured by $dir/NAME.conf
  taskset -c "$2" nginx -c "$dir/$1.conf" -p "$dir" -e stderr 2>"$dir/$1.log" &
  nginx_pid=$!
  started "$nginx_pid"
  wait_for_port "$3" "$1"
}

# A backend: nginx, a worker for each of CORES, serving $dir/www at backend_port; LINES go into its server block, with
# PORT for that port.
start_backend() { # CORES [LINES]
  backend_port=$(free_port)
  mkdir -p "$dir/www"
  cat >"$dir/backend.conf" <<CONF
daemon off; worker_processes $(count_of "$1"); pid $dir/backend.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  $(nginx_paths backend)
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=1000; keepalive_requests 1000000000;
  default_type text/plain;
  server {
    listen 127.0.0.1:$backend_port backlog=4096 reuseport; root $dir/www;
    $(sed "s/PORT/$backend_port/g" <<<"${2:-}")
  }
}
CONF
  start_nginx backend "$1" "$backend_port"
}

file_of() { # NAME BYTES: something that nobody can compress, for the backend to serve
  mkdir -p "$dir/www/$(dirname "$1")"
  head -c "$2" /dev/urandom >"$dir/www/$1"
}

balancer_has() { # BINARY OPTION
  # Not `grep -q`: it would end the pipe early, and pipefail call that a failure.
  "$1" run --help 2>/dev/null | grep -e "$2 " >/dev/null
}

start_balancer() { # BINARY CORES FLAG…: one that is ready, as balancer_pid and balancer_url; false if it is not
  local binary=$1 cores=$2
  shift 2
  balancer_flags=(run --listen 127.0.0.1:0 --cores "$cores" --control-core "${cores%%,*}" "$@")
  BALANCER_ADMIN=off taskset -c "$cores" "$binary" "${balancer_flags[@]}" 2>"$dir/balancer.log" &
  balancer_pid=$!
  started "$balancer_pid"
  timeout 10 bash -c "until grep -q 'ready in' '$dir/balancer.log'; do kill -0 $balancer_pid || exit 1; sleep 0.05; done" 2>/dev/null ||
    { tail -n 3 "$dir/balancer.log" >&2; return 1; }
  balancer_url=$(grep -o 'http://[^ ]*' "$dir/balancer.log" | sed -n 1p)
}

machine() { # one line for the top of a report
  echo "$(uname -sr), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sed -n 1p)"
}

# As fast as the answers come, on as many threads as CORES: "RESULT requests µs p50 p99 p99.9 errors", or nothing.
closed_loop() { # CORES PORT FILE CONNECTIONS SECONDS [LUA]
  cat - <(echo "${6:-}") >"$dir/report.lua" <<'LUA'
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.status + e.timeout))
end
LUA
  taskset -c "$1" timeout $(($5 + 20)) \
    wrk -t"$(count_of "$1")" -c"$4" -d"$5" --timeout 10s -s "$dir/report.lua" "http://127.0.0.1:$2/$3" | grep '^RESULT' || true
}

# How `measure_all` measures names[i]; a script may have it otherwise.
measure() { closed_loop "$@"; }

# names[i] listens on ports[i]; roots[i] is its first process.
names=() ports=() roots=()
contender() { names+=("$1"); roots+=("$2"); ports+=("$3"); } # NAME PID PORT

# What a script does right before and right after a contender is measured.
measure_begins() { :; } # NAME
measure_ends() { :; }   # NAME ROUND

# The same load on each contender, in rounds, into $dir/results.tsv; each is warmed first. The order turns by one each
# round: nobody always follows the same neighbour.
measure_all() { # LABEL FILE CONNECTIONS [LUA]
  local round k i before after line
  for i in "${!names[@]}"; do measure "$load_core" "${ports[$i]}" "$2" "$3" 1 "${4:-}" >/dev/null; done
  for ((round = 1; round <= rounds; round++)); do
    for ((k = 0; k < ${#names[@]}; k++)); do
      i=$(((k + round) % ${#names[@]}))
      measure_begins "${names[$i]}"
      before=$(cpu_us "${roots[$i]}")
      line=$(measure "$load_core" "${ports[$i]}" "$2" "$3" "$seconds" "${4:-}")
      after=$(cpu_us "${roots[$i]}")
      measure_ends "${names[$i]}" "$round"
      [ -n "$line" ] || fail "no result from wrk for ${names[$i]}, $1, round $round"
      printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$round" "${names[$i]}" "$before" "$after" "${line#RESULT }" >>"$dir/results.tsv"
    done
  done
}

cpu_us() { python3 "$scripts/bench-report.py" cpu "$@"; } # PID [THREAD]
