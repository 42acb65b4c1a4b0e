#!/usr/bin/env bash
# Gives a worker service of the stack N tasks, waits until they run or are gone, and shows the workers that are registered. Swarm picks
# who goes; SIGTERM makes a worker finish or hand back what it does, so that nothing is cut off and no failure is counted.
#
#   scale.sh SERVICE N [--timeout SECONDS]          such as: scale.sh worker 5
#
# Exit codes: 0 done, 1 failed, 2 wrong usage, 3 Docker, the Swarm or the stack can't be reached.
# shellcheck source=scripts/swarm-lib.sh
. "$(dirname "$(readlink -f "$0")")/swarm-lib.sh"

names=() timeout=180
while [ $# -gt 0 ]; do
  case $1 in
  --timeout)
    [[ ${2:-} =~ ^[0-9]+$ ]] || usage_error "--timeout wants seconds"
    timeout=$2
    shift
    ;;
  --help | -h) print_help && exit 0 ;;
  -*) usage_error "no option '$1'" ;;
  *) names+=("$1") ;;
  esac
  shift
done
if [ ${#names[@]} != 2 ] || [[ ! ${names[1]} =~ ^[0-9]+$ ]]; then usage_error "scale.sh SERVICE N"; fi
service=${names[0]} wanted=${names[1]}

need_stack
need_tools curl jq
have_service "$service" || usage_error "no service '$service': there are $(services | tr '\n' ' ')"
[ -n "$(worker_id_template "$service")" ] || usage_error "$service is no worker service (those are: $(worker_services | tr '\n' ' '))"
need_token

docker service scale --detach "${STACK}_$service=$wanted" >/dev/null
scaled() { [ "$(replicas_wanted "$service")" = "$wanted" ] && settled "$service"; }
started=$SECONDS
if ! until_true "$timeout" scaled; then
  mapfile -t lines < <(task_errors "$service")
  die "the service $service is not at $wanted after $timeout s: $(replicas_shown "$service")" ${lines[@]+"${lines[@]}"}
fi
left=$((timeout - (SECONDS - started)))
until_true "$((left > 5 ? left : 5))" workers_registered "$service" ||
  die "workers that run have not registered: $(missing_workers "$service" | tr '\n' ' ')"
say "$service has $wanted tasks after $((SECONDS - started)) s; registered workers:"
connected_workers | sort | sed 's/^/  /'
