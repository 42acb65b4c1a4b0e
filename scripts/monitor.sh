#!/usr/bin/env bash
# A live view of a deployed stack: services, workers, queue, rates. Ctrl-C ends it. Run it on the node of the store.
#
#   monitor.sh [--once] [--interval SECONDS]
#
# Exit codes: 0 done, 2 wrong usage, 3 Docker, the Swarm or the stack can't be reached.
# shellcheck source=scripts/swarm-lib.sh
. "$(dirname "$(readlink -f "$0")")/swarm-lib.sh"

once='' interval=2
while [ $# -gt 0 ]; do
  case $1 in
  --once) once=yes ;;
  --interval)
    [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || usage_error "--interval wants seconds"
    interval=$2
    shift
    ;;
  --help | -h) print_help && exit 0 ;;
  *) usage_error "no option '$1'" ;;
  esac
  shift
done

ended=0 ended_at=0
view() {
  local fleet workers now total
  printf '%sstack %s%s   %s\n\n' "$BOLD" "$STACK" "$PLAIN" "$(date '+%H:%M:%S')"
  docker service ls --filter "label=com.docker.stack.namespace=$STACK" --format 'table {{.Name}}\t{{.Replicas}}\t{{.Image}}'
  if ! fleet=$(api GET /fleet 2>&1) || ! workers=$(api GET '/workers?limit=500' 2>&1); then
    printf '\nthe master does not answer: %s\n' "$fleet"
    return
  fi
  now=$(date +%s%3N)
  total=$(jq '[.jobs.completed, .jobs.failed, .jobs.cancelled] | map(. // 0) | add' <<<"$fleet")
  jq -r '"\nqueue: \(.queue.depth) waiting, the oldest for \(((.queue.oldest_age_ms // 0) / 1000) | floor) s; hash rate: \(.hashrate // 0 | floor) H/s",
    "jobs:  " + ([.jobs | to_entries[] | select(.value > 0) | "\(.value) \(.key)"] | join(", ")),
    "slots: " + ([.slots | to_entries[] | "\(.key) \(.value.used)/\(.value.total)"] | join(", "))' <<<"$fleet"
  if [ "$ended_at" -gt 0 ] && [ "$now" -gt "$ended_at" ] && [ "$total" -ge "$ended" ]; then
    printf 'rate:  %s jobs ended a second\n' "$(((total - ended) * 1000 / (now - ended_at)))"
  fi
  ended=$total ended_at=$now
  printf '\n%-32s %-12s %8s %10s\n' worker status running hashes/s
  jq -r '.items[] | [.worker_id, .status, ([.running[]] | add // 0), ((.hashrate // 0) | floor)] | @tsv' <<<"$workers" |
    while IFS=$'\t' read -r id status running rate; do printf '%-32s %-12s %8s %10s\n' "$id" "$status" "$running" "$rate"; done
}

need_stack
need_tools curl jq
need_token
if [ -n "$once" ]; then
  view
  exit 0
fi
while true; do
  text=$(view; printf '\n%s %s' "$ended" "$ended_at")
  read -r ended ended_at <<<"${text##*$'\n'}"
  [ ! -t 1 ] || clear
  printf '%s\n' "${text%$'\n'*}"
  sleep "$interval"
done
