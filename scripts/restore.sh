#!/usr/bin/env bash
# Puts a backup of backup.sh back into a deployed stack: stops workers, master and broker, replaces their data, starts them again.
# What was accepted since the backup is gone. A backup of a newer Flota is refused, and nothing is changed. Run it on the node of the
# store.
#
#   restore.sh FILE [--timeout SECONDS]
#
# Exit codes: 0 done, 1 failed, 2 wrong usage, 3 Docker, the Swarm or the stack can't be reached.
# shellcheck source=scripts/swarm-lib.sh
. "$(dirname "$(readlink -f "$0")")/swarm-lib.sh"

file='' timeout=300
while [ $# -gt 0 ]; do
  case $1 in
  --timeout)
    [[ ${2:-} =~ ^[0-9]+$ ]] || usage_error "--timeout wants seconds"
    timeout=$2
    shift
    ;;
  --help | -h) print_help && exit 0 ;;
  -*) usage_error "no option '$1'" ;;
  *)
    [ -z "$file" ] || usage_error "one file"
    file=$(from_caller "$1")
    ;;
  esac
  shift
done
[ -n "$file" ] || usage_error "restore.sh FILE"
[ -e "$file" ] || die "there is no $file"

need_stack
need_tools curl jq
# The containers tell that the volumes are here.
need_local_container master >/dev/null || exit 3
need_local_container mosquitto >/dev/null || exit 3
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xf "$file" -C "$work" --no-same-owner || die "$file is no backup of backup.sh"
[ -e "$work/store.db" ] || die "$file is no backup of backup.sh: there is no store in it"

image=$(service_image master)
broker_image=$(service_image mosquitto)
into_store() { # FLOTA_ARGUMENTS…: the store of the backup, in a container that has the volume of the stack or none
  docker run --rm -i --network none "$@" --entrypoint /bin/sh "$image" -c 'cat >/tmp/backup.db && flota restore --from /tmp/backup.db --replace' <"$work/store.db"
}
into_store >/dev/null || die "the backup can't be used (flota's message is above)" "nothing was changed"

declare -A tasks=()
for service in $(worker_services) master mosquitto; do
  tasks[$service]=$(replicas_wanted "$service")
done
start_again() {
  local service
  for service in "${!tasks[@]}"; do docker service scale --detach "${STACK}_$service=${tasks[$service]}" >/dev/null; done
}
trap 'rm -rf "$work"; start_again' EXIT
for service in $(worker_services) master mosquitto; do
  say "stopping $service"
  docker service scale --detach "${STACK}_$service=0" >/dev/null
  until_true 60 no_tasks "$service" || die "the service $service does not stop"
done
into_store -v "${STACK}_store:/var/lib/flota" || die "the store could not be restored (flota's message is above)"
if [ -e "$work/broker.db" ]; then
  docker run --rm -i --network none -v "${STACK}_broker:/mosquitto/data" --user 0 --entrypoint /bin/sh "$broker_image" \
    -c 'cat >/mosquitto/data/mosquitto.db && chown 1883:1883 /mosquitto/data/mosquitto.db' <"$work/broker.db"
fi
trap 'rm -rf "$work"' EXIT
start_again
for service in mosquitto master $(worker_services); do
  wait_settled "$service" "$timeout" || die "the service $service is not healthy after $timeout s" "$(task_errors "$service")"
done
for service in $(worker_services); do
  until_true "$timeout" workers_registered "$service" || die "not registered: $(missing_workers "$service" | tr '\n' ' ')"
done
say "restored from $file; $(connected_workers | grep -c . || true) workers are registered"
