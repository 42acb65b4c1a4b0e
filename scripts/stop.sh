#!/usr/bin/env bash
# Ends a stack in order: workers finish or hand back what they do, then all is removed. Data, passwords and tokens stay for the next
# deploy.sh, unless they are purged.
#
#   stop.sh [--purge] [--timeout SECONDS]
#
#   --purge   also remove the volumes (all jobs and results!), the secrets, and the mark of the node that had the store
#
# Exit codes: 0 done, 1 something is left, 2 wrong usage, 3 Docker or the Swarm can't be reached.
# shellcheck source=scripts/swarm-lib.sh
. "$(dirname "$(readlink -f "$0")")/swarm-lib.sh"

purge='' timeout=180
while [ $# -gt 0 ]; do
  case $1 in
  --purge) purge=yes ;;
  --timeout)
    [[ ${2:-} =~ ^[0-9]+$ ]] || usage_error "--timeout wants seconds"
    timeout=$2
    shift
    ;;
  --help | -h) print_help && exit 0 ;;
  *) usage_error "no option '$1'" ;;
  esac
  shift
done

need_manager
store_node=$(docker node ls -q --filter "node.label=flota.store.$STACK=yes" | head -n 1)
here=$(docker info --format '{{.Swarm.NodeID}}')
if [ -n "$purge" ] && [ -n "$store_node" ] && [ "$store_node" != "$here" ]; then
  unreachable "the volumes are on the node $(docker node inspect "$store_node" --format '{{.Description.Hostname}}')" "start stop.sh --purge there"
fi

mapfile -t workers < <(worker_services)
if [ ${#workers[@]} -gt 0 ]; then
  say "workers finish or hand back what they do"
  for service in "${workers[@]}"; do docker service scale --detach "${STACK}_$service=0" >/dev/null; done
  for service in "${workers[@]}"; do
    until_true "$timeout" no_tasks "$service" || say "some tasks of $service have not ended after $timeout s"
  done
fi

resources() { docker "$1" ls -q --filter "label=com.docker.stack.namespace=$STACK"; }
if [ -n "$(resources service)$(resources network)$(resources config)" ]; then docker stack rm "$STACK"; fi

containers() { docker ps -aq --filter "label=com.docker.stack.namespace=$STACK"; }
gone() { [ -z "$(resources service)$(resources network)$(resources config)$(containers)" ]; }
# A network goes only when its last container has gone; asking again is needed where that took long.
remove_rest() { gone || { docker stack rm "$STACK" >/dev/null 2>&1 || true; gone; }; }
until_true "$timeout" remove_rest || die "not all of the stack went away within $timeout s" \
  "services: $(resources service | wc -l), networks: $(resources network | wc -l), containers here: $(containers | wc -l)"

if [ -n "$purge" ]; then
  for volume in broker store; do
    no_volume() { docker volume rm "${STACK}_$volume" >/dev/null 2>&1 || ! docker volume inspect "${STACK}_$volume" >/dev/null 2>&1; }
    until_true 60 no_volume || die "the volume ${STACK}_$volume can't be removed: something uses it"
  done
  docker secret ls -q --filter "label=flota.stack=$STACK" | xargs -r docker secret rm >/dev/null
  [ -z "$store_node" ] || docker node update --label-rm "flota.store.$STACK" "$store_node" >/dev/null
  say "the stack $STACK is gone, with its data and secrets"
else
  say "the stack $STACK is gone; its volumes (${STACK}_store, ${STACK}_broker) and secrets are kept"
fi
