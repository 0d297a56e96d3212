# shellcheck shell=bash
# Caches to compare with, each with one worker on one core in front of one backend, as their manuals advise; sourced
# after lib.sh, never run.
#
# start_cache_peer NAME CORE BACKEND_PORT sets peer_pid, peer_port, peer_version and peer_config; false, loudly, if
# NAME is not installed.

cache_peers='nginx haproxy varnish'

start_cache_peer() {
  local program=$1
  [ "$program" != varnish ] || program=varnishd
  command -v "$program" >/dev/null || { echo "SKIPPED: $program is not installed" >&2; return 1; }
  peer_port=$(free_port)
  "start_${1}_cache" "$2" "$3"
}

start_nginx_cache() { # CORE BACKEND_PORT
  mkdir -p "$dir/nginx-cache.store"
  chmod 777 "$dir/nginx-cache.store"
  cat >"$dir/nginx-cache.conf" <<CONF
daemon off; worker_processes 1; pid $dir/nginx-cache.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  $(nginx_paths nginx-cache)
  access_log off; keepalive_requests 1000000000; tcp_nodelay on; sendfile on;
  open_file_cache max=1000 inactive=1h;
  proxy_cache_path $dir/nginx-cache.store levels=1:2 keys_zone=main:10m max_size=1g inactive=1h use_temp_path=off;
  upstream backend {
    server 127.0.0.1:$2;
    keepalive 256; keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:$peer_port backlog=4096 reuseport;
    location / {
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host \$host;
      proxy_cache main; proxy_cache_revalidate on; proxy_buffers 16 16k; proxy_buffer_size 16k;
    }
  }
}
CONF
  start_nginx nginx-cache "$1" "$peer_port"
  peer_pid=$nginx_pid peer_version=$(nginx -v 2>&1) peer_config=$(sed "s#$dir#DIR#g" "$dir/nginx-cache.conf")
}

start_haproxy_cache() { # CORE BACKEND_PORT
  cat >"$dir/haproxy-cache.cfg" <<CONF
global
  nbthread 1
  maxconn 4000
cache main
  total-max-size 256
  max-object-size 1048576
  max-age 3600
  process-vary on
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option http-keep-alive
frontend front
  bind 127.0.0.1:$peer_port
  http-request cache-use main
  http-response cache-store main
  default_backend back
backend back
  server backend 127.0.0.1:$2 pool-max-conn 256
CONF
  taskset -c "$1" haproxy -db -f "$dir/haproxy-cache.cfg" >"$dir/haproxy-cache.log" 2>&1 &
  peer_pid=$!
  started "$peer_pid"
  wait_for_port "$peer_port" haproxy-cache
  peer_version=$(haproxy -v | sed -n 1p) peer_config=$(cat "$dir/haproxy-cache.cfg")
}

start_varnish_cache() { # CORE BACKEND_PORT
  # Its records in shared memory are an access log, and the others have theirs switched off, too.
  local quiet=-Begin,-End,-Link,-Timestamp,-ReqStart,-ReqMethod,-ReqURL,-ReqProtocol,-ReqHeader,-ReqUnset,-ReqAcct
  quiet+=,-RespProtocol,-RespStatus,-RespReason,-RespHeader,-RespUnset,-VCL_call,-VCL_return,-VCL_use,-Hit,-Length
  local flags=(-F -a "127.0.0.1:$peer_port" -b "127.0.0.1:$2" -s malloc,256m -t 0 -p thread_pools=1 -p thread_pool_min=100
    -p "vsl_mask=$quiet")
  taskset -c "$1" varnishd -n "$dir/varnish" "${flags[@]}" >"$dir/varnish-cache.log" 2>&1 &
  peer_pid=$!
  started "$peer_pid"
  wait_for_port "$peer_port" varnish-cache
  peer_version=$(varnishd -V 2>&1 | sed -n 1p) peer_config="varnishd ${flags[*]}"
}
