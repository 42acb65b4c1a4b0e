#!/usr/bin/env bash
# Durable echo jobs a second end to end and the latency of a lone one, for the embedded broker and for Mosquitto, each on a fleet
# of its own that is started and stopped here. Arguments go to `flota bench dispatch`; bench/README.md tells how to read the figures.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build page test
scripts/compile.sh

# On the disk that is built on: a tmpfs would make commits look free.
work=$(mktemp -d "$ROOT/target/bench.XXXXXX")
fleet='' broker=''
stop() {
  [ -z "$fleet" ] || kill "$fleet" 2>/dev/null || true
  [ -z "$broker" ] || kill "$broker" 2>/dev/null || true
  wait
  fleet='' broker=''
}
trap 'stop; rm -rf "$work"' EXIT

# measure NAME MQTT_URL [ARGUMENT…]
measure() {
  local name=$1 url=$2 page=''
  shift 2
  step "dispatch, $name"
  FLOTA_DATA_DIR="$work/$name" FLOTA_MQTT_URL="$url" FLOTA_MQTT_LISTEN=127.0.0.1:0 FLOTA_WEB_LISTEN=127.0.0.1:0 \
    FLOTA_GRPC_LISTEN=127.0.0.1:0 FLOTA_LOG=warn target/release/flota up >"$work/$name.log" 2>&1 &
  fleet=$!
  until page=$(sed -n 's/^  page *//p' "$work/$name.log") && [ -n "$page" ]; do
    kill -0 "$fleet" 2>/dev/null || die "flota up ended" "$(cat "$work/$name.log")"
    sleep 0.1
  done
  local pids=(--pid "up=$fleet")
  [ -z "$broker" ] || pids+=(--pid "mosquitto=$broker")
  target/release/flota bench dispatch --url "$page" --data-dir "$work/$name" "${pids[@]}" "$@"
  stop
}

measure embedded embedded "$@"

port=$((20000 + $$ % 10000))
printf 'listener %s 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 100\nmax_queued_messages 20000\nmax_packet_size 262144\nset_tcp_nodelay true\n' \
  "$port" >"$work/broker.conf"
PATH="$PATH:/usr/sbin" mosquitto -c "$work/broker.conf" >"$work/broker.log" 2>&1 &
broker=$!
measure mosquitto "mqtt://127.0.0.1:$port" "$@"
