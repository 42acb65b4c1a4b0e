#!/usr/bin/env bash
# Brings workers and master to another version, one task at a time: first the workers, then the master, so that a version that does not
# run never touches the store. What does not get healthy goes back by itself. Backs up first.
#
#   update.sh VERSION [--no-backup] [--timeout SECONDS]
#
# Exit codes: 0 done, 1 failed (what was there runs on), 2 wrong usage, 3 Docker, the Swarm or the stack can't be reached.
# shellcheck source=scripts/swarm-lib.sh
. "$(dirname "$(readlink -f "$0")")/swarm-lib.sh"

version='' backup=yes timeout=600
while [ $# -gt 0 ]; do
  case $1 in
  --no-backup) backup='' ;;
  --timeout)
    [[ ${2:-} =~ ^[0-9]+$ ]] || usage_error "--timeout wants seconds"
    timeout=$2
    shift
    ;;
  --help | -h) print_help && exit 0 ;;
  -*) usage_error "no option '$1'" ;;
  *)
    [ -z "$version" ] || usage_error "one version"
    version=$1
    ;;
  esac
  shift
done
[ -n "$version" ] || usage_error "update.sh VERSION"

need_stack
[ -z "$backup" ] || "$ROOT/scripts/backup.sh"

options=(--no-resolve-image)
[ -z "$REGISTRY" ] || options=(--with-registry-auth)
# The repository that a service has, with another tag.
image_of() { service_image "$1" | sed -E "s#(:[^:/]+)?\$#:$version#"; }

update() { # SERVICE
  local service=$1 image before state
  image=$(image_of "$service")
  before=$(update_state "$service")
  if [ "$(service_image "$service")" = "$image" ]; then
    say "$service has version $version already"
    return 0
  fi
  say "$service: $image"
  docker service update --detach "${options[@]}" --image "$image" "${STACK}_$service" >/dev/null || return 1
  # shellcheck disable=SC2317
  ended() {
    state=$(update_state "$service")
    [ "$state" != "$before" ] && case ${state%% *} in completed | rollback_completed | paused | rollback_paused) ;; *) return 1 ;; esac
  }
  until_true "$timeout" ended || {
    say "$service is still '$(update_state "$service")' after $timeout s"
    return 1
  }
  state=$(update_state "$service")
  [ "${state%% *}" = completed ] || {
    say "$service did not get healthy with version $version: ${state%% *}"
    task_errors "$service"
    return 1
  }
}

done_services=()
for service in $(worker_services) master; do
  [ "$service" != python-worker ] || continue
  if ! update "$service"; then
    for earlier in ${done_services[@]+"${done_services[@]}"}; do
      say "$earlier goes back to what it was"
      docker service rollback --detach "${STACK}_$earlier" >/dev/null || continue
      wait_settled "$earlier" "$timeout" || say "$earlier is not settled after $timeout s"
    done
    die "version $version was not taken; the stack runs what it ran before"
  fi
  done_services+=("$service")
done
say "all runs version $version"
