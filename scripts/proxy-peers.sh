# shellcheck shell=bash
# Proxies to compare with, as their manuals advise for this job: as many workers as cores, keep-alive on both sides, no
# access log, no cache; sourced after lib.sh, never run.
#
# start_proxy_peer NAME CORES BACKEND_PORT sets peer_pid, peer_port, peer_version and peer_config; false, loudly, if NAME
# is not installed.

proxy_peers='nginx haproxy varnish envoy'

start_proxy_peer() {
  local program=$1
  [[ " $proxy_peers " == *" $1 "* ]] || fail "$1 is none of $proxy_peers"
  [ "$program" != varnish ] || program=varnishd
  command -v "$program" >/dev/null || { echo "SKIPPED: $program is not installed" >&2; return 1; }
  peer_port=$(free_port)
  peer_file=$1-proxy-$2 # unlike that of the same program on other cores
  "start_${1}_proxy" "$2" "$3" "$(count_of "$2")"
}

begin_peer() { # CORES COMMAND…
  taskset -c "$1" "${@:2}" >"$dir/$peer_file.log" 2>&1 &
  peer_pid=$!
  started "$peer_pid"
  wait_for_port "$peer_port" "$peer_file"
}

start_nginx_proxy() { # CORES BACKEND_PORT WORKERS
  local masks
  masks=$(python3 -c 'import sys; print(*(format(1 << int(core), "b") for core in sys.argv[1].split(",")))' "$1")
  cat >"$dir/$peer_file.conf" <<CONF
daemon off; worker_processes $3; worker_cpu_affinity $masks; pid $dir/$peer_file.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  $(nginx_paths "$peer_file")
  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  upstream backend {
    server 127.0.0.1:$2;
    keepalive 256; keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:$peer_port backlog=4096 reuseport;
    location / {
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host \$host; proxy_buffers 16 16k; proxy_buffer_size 16k; proxy_max_temp_file_size 0;
    }
  }
}
CONF
  start_nginx "$peer_file" "$1" "$peer_port"
  peer_pid=$nginx_pid peer_version=$(nginx -v 2>&1) peer_config=$(sed "s#$dir#DIR#g" "$dir/$peer_file.conf")
}

start_haproxy_proxy() { # CORES BACKEND_PORT WORKERS
  cat >"$dir/$peer_file.cfg" <<CONF
global
  nbthread $3
  cpu-map auto:1/1-$3 ${1//,/ }
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
  bind 127.0.0.1:$peer_port
  default_backend back
backend back
  server backend 127.0.0.1:$2 pool-max-conn 256
CONF
  begin_peer "$1" haproxy -db -f "$dir/$peer_file.cfg"
  peer_version=$(haproxy -v | sed -n 1p) peer_config=$(cat "$dir/$peer_file.cfg")
}

start_varnish_proxy() { # CORES BACKEND_PORT WORKERS
  # It cannot be told to use so many threads, only to have so many pools of them; taskset holds them on the cores. Its
  # records in shared memory are an access log, and the others have theirs switched off, too.
  local quiet=-Begin,-End,-Link,-Timestamp,-ReqStart,-ReqMethod,-ReqURL,-ReqProtocol,-ReqHeader,-ReqUnset,-ReqAcct
  quiet+=,-RespProtocol,-RespStatus,-RespReason,-RespHeader,-RespUnset,-VCL_call,-VCL_return,-VCL_use,-Length
  quiet+=,-BereqMethod,-BereqURL,-BereqProtocol,-BereqHeader,-BereqUnset,-BereqAcct,-BerespProtocol,-BerespStatus
  quiet+=,-BerespReason,-BerespHeader,-BerespUnset,-BackendOpen,-BackendClose,-Fetch_Body,-Storage
  cat >"$dir/$peer_file.vcl" <<CONF
vcl 4.1;
backend default { .host = "127.0.0.1"; .port = "$2"; }
sub vcl_recv { return (pass); }
CONF
  local flags=(-F -a "127.0.0.1:$peer_port" -f "$dir/$peer_file.vcl" -s malloc,64m -p "thread_pools=$3"
    -p thread_pool_min=100 -p "vsl_mask=$quiet")
  begin_peer "$1" varnishd -n "$dir/$peer_file" "${flags[@]}"
  peer_version=$(varnishd -V 2>&1 | sed -n 1p)
  peer_config="varnishd ${flags[*]}"$'\n'$(cat "$dir/$peer_file.vcl")
  peer_config=${peer_config//$dir/DIR}
}

start_envoy_proxy() { # CORES BACKEND_PORT WORKERS
  local types=type.googleapis.com/envoy.extensions.filters
  cat >"$dir/$peer_file.yaml" <<CONF
static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: $peer_port } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": $types.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          generate_request_id: false
          route_config:
            virtual_hosts:
            - { name: all, domains: ["*"], routes: [ { match: { prefix: "/" }, route: { cluster: backend, timeout: 60s } } ] }
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": $types.http.router.v3.Router, dynamic_stats: false }
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: { thresholds: [ { max_connections: 40000, max_pending_requests: 40000, max_requests: 40000 } ] }
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: $2 } } }
CONF
  begin_peer "$1" envoy --concurrency "$3" -c "$dir/$peer_file.yaml" --disable-hot-restart --log-level error
  peer_version=$(envoy --version | sed -n "/version/p") peer_config=$(cat "$dir/$peer_file.yaml")
}
