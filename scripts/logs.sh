#!/usr/bin/env bash
# Logs of a deployed stack.
#
#   logs.sh [SERVICE] [-f] [--since TIME] [--tail N] [--grep PATTERN]
#
#   SERVICE          mosquitto, master, worker or another service of the stack; without it all of them; `mqtt` is the fleet's own log,
#                    live, from the broker (on the node of the store; always follows)
#   -f, --follow     go on until Ctrl-C
#   --since TIME     such as 10m or 2026-11-21T09:30:00
#   --tail N         only the last N lines of each task
#   --grep PATTERN   only lines that match this extended regular expression
#
# Exit codes: 0 done, 1 failed or nothing matched, 2 wrong usage, 3 Docker, the Swarm or the stack can't be reached.
# shellcheck source=scripts/swarm-lib.sh
. "$(dirname "$(readlink -f "$0")")/swarm-lib.sh"

service='' options=() pattern='' follow=''
while [ $# -gt 0 ]; do
  case $1 in
  -f | --follow) follow=yes options+=(--follow) ;;
  --help | -h) print_help && exit 0 ;;
  --since | --tail | --grep)
    [ $# -ge 2 ] || usage_error "$1 wants a value"
    if [ "$1" = --grep ]; then pattern=$2; else options+=("$1" "$2"); fi
    shift
    ;;
  -*) usage_error "no option '$1'" ;;
  *)
    [ -z "$service" ] || usage_error "one service, or none for all"
    service=$1
    ;;
  esac
  shift
done

matching() { if [ -n "$pattern" ]; then grep --line-buffered -E -e "$pattern"; else cat; fi; }

need_stack
if [ "$service" = mqtt ]; then
  mqtt viewer sub -i "logs-$$" -t "$FLOTA_TOPIC_ROOT/logs" | matching
  exit 0
fi
if [ -n "$service" ]; then
  have_service "$service" || usage_error "no service '$service': there are $(services | tr '\n' ' ')and mqtt"
  chosen=("$service")
else
  mapfile -t chosen < <(services)
fi
all_logs() {
  local one
  for one in "${chosen[@]}"; do
    if [ -n "$follow" ]; then docker service logs "${options[@]}" "${STACK}_$one" 2>&1 & else docker service logs ${options[@]+"${options[@]}"} "${STACK}_$one" 2>&1; fi
  done
  wait
}
all_logs | matching
