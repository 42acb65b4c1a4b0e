#!/usr/bin/env bash
# Proves the deployment on a Swarm of three nodes on this machine: builds images around the flota that is there, deploys them with the
# scripts that users run, breaks things, and looks whether every job completes once. Needs root; leaves nothing behind.
#
#   e2e-swarm.sh [--keep]
#
#   --keep   leave the nodes running at the end, and say how to reach them
#
# Where a machine can't run Docker at all (no root, no namespaces, no overlay file system), it says what is missing and ends with 0.
# shellcheck source=scripts/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

keep=''
case ${1:-} in
'') ;;
--keep) keep=yes ;;
--help | -h) sed -n '2,/^[^#]/{/^# shellcheck/d; s/^# \{0,1\}//p}' "$0" && exit 0 ;;
*) die "no option '$1' (--help tells more)" ;;
esac

skip() {
  printf '%s\n' "${RED}SKIPPED: the Swarm tests can't run on this machine: $1${PLAIN}"
  exit 0
}
[ "$(id -u)" = 0 ] || skip "they need root"
unshare --mount --net --pid --uts --ipc --fork true 2>/dev/null || skip "it does not let namespaces be made (unshare)"
TEST_DIR=$ROOT/target/e2e-swarm
mkdir -p "$TEST_DIR"
# In memory where there is room: an overlay on a disk takes forty seconds to tear down.
base=/dev/shm
available=$(df --output=avail -BM $base 2>/dev/null | tail -n 1 | tr -dc 0-9 || true)
[ "${available:-0}" -ge 4000 ] || base=$TEST_DIR
try_overlay() {
  local at
  at=$(mktemp -d "$base/flota-overlay.XXXXXX") || return 1
  mkdir "$at/lower" "$at/upper" "$at/work" "$at/all"
  unshare --mount sh -c "mount -t overlay overlay -o lowerdir=$at/lower,upperdir=$at/upper,workdir=$at/work $at/all" 2>/dev/null
  local result=$?
  rm -rf "$at"
  return $result
}
try_overlay || skip "it has no overlay file system"
scripts/setup.sh build page test swarm
use_tools
# The Docker that the Debian package brought, whatever else is on the path.
PATH=/usr/bin:/usr/sbin:$PATH

unshare --net sh -c 'ip link add br0 type bridge && ip link add v0 type veth peer name v1 && ip link add x0 type vxlan id 1 dstport 4789' 2>/dev/null ||
  skip "its kernel lacks bridge, veth or vxlan"
unshare --net iptables -t nat -L >/dev/null 2>&1 || skip "iptables does not work"

step "program"
scripts/page.sh build
# As test.sh builds it, so that after `make test` there is nothing to build.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0
cargo test --locked --workspace --no-run
NET_ID=f$((RANDOM % 1000))
while [ -e "/run/netns/${NET_ID}sw" ]; do NET_ID=f$((RANDOM % 1000)); done
WORK=$(mktemp -d "$base/flota-swarm.XXXXXX")
STARTED=$SECONDS
# shellcheck source=tests/swarm/nodes.sh
. tests/swarm/nodes.sh
# shellcheck source=tests/swarm/jobs.sh
. tests/swarm/jobs.sh
# shellcheck source=tests/swarm/checks.sh
. tests/swarm/checks.sh

checked=0 current='the nodes start' began=$SECONDS
fail() {
  printf '%s\n' "${RED}FAILED: $current: $*${PLAIN}" >&2
  exit 1
}
# check NAME FUNCTION: the first that fails ends the run
check() {
  current=$1 began=$SECONDS note=''
  step "$current"
  "$2"
  checked=$((checked + 1))
  printf 'ok  %-66s %4s s%s\n' "$current" "$((SECONDS - began))" "${note:+   $note}" | tee -a "$WORK/summary"
}
at_end() {
  local result=$?
  set +e
  if [ "$result" != 0 ]; then
    printf '%s\n' "${RED}FAILED: $current${PLAIN}"
    docker_on n1 node ls
    docker_on n1 stack ps flota --no-trunc --format '{{.Name}} {{.Node}} {{.DesiredState}} {{.CurrentState}} {{.Error}}' | head -n 40
    for service in master worker mosquitto; do
      step "last words of $service"
      docker_on n1 service logs --tail 15 "flota_$service" 2>&1 | cut -c 1-250 | tail -n 40
    done
  fi
  printf '\n'
  cat "$WORK/summary" 2>/dev/null
  if [ -n "$keep" ]; then
    say "kept. A node's Docker: nsenter --net=/run/netns/${NET_ID}n1 env DOCKER_HOST=unix://$WORK/n1/docker.sock docker node ls"
    declare -p NODE_PID REGISTRY_PID NET_ID WORK >"$WORK/state"
    disown -a
  else
    tear_down
  fi
  printf '%s checks passed in %s s (%s of Swarm)\n' "$checked" "$SECONDS" "$((SECONDS - STARTED))"
  if [ "$result" = 0 ]; then say "the deployment holds"; fi
  exit "$result"
}
trap at_end EXIT

make_base
start_nodes
run_checks
