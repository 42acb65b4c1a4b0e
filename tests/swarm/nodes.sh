# shellcheck shell=bash
# Sourced by scripts/e2e-swarm.sh: a switch, a registry and nodes on this machine, each node a set of namespaces with a Docker of its
# own. Nothing of it touches the machine's own network, Docker or disk.
#
# Wanted of the caller: WORK (a directory in memory), NET_ID (a short word that no other run has).

# shellcheck disable=SC2153
SUBNET=198.18.77
REGISTRY_AT=$SUBNET.1:5000
declare -A NODE_PID=()
REGISTRY_PID=''

node_ip() { echo "$SUBNET.1${1#n}"; }
in_net() { # NAMESPACE COMMAND…
  local name=$NET_ID$1
  shift
  nsenter --net="/run/netns/$name" "$@"
}
# on NODE COMMAND…: as if typed there
on() {
  local node=$1
  shift
  nsenter --net="/run/netns/$NET_ID$node" env DOCKER_HOST="unix://$WORK/$node/docker.sock" "$@"
}
docker_on() { on "$1" docker "${@:2}"; }

make_switch() {
  ip netns add "${NET_ID}sw"
  in_net sw ip link set lo up
  in_net sw ip link add br0 type bridge
  in_net sw ip addr add "$SUBNET.1/24" dev br0
  in_net sw ip link set br0 up
}

make_port() { # NODE: its network, plugged into the switch
  local node=$1
  ip netns add "$NET_ID$node"
  ip -n "${NET_ID}sw" link add "v$node" type veth peer name eth0 netns "$NET_ID$node"
  ip -n "${NET_ID}sw" link set "v$node" master br0 up
  in_net "$node" ip link set lo up
  in_net "$node" ip addr add "$(node_ip "$node")/24" dev eth0
  in_net "$node" ip link set eth0 up
  # Docker wants a default route to find its address by.
  in_net "$node" ip route add default via "$SUBNET.1"
}

cut_off() { ip -n "${NET_ID}sw" link set "v$1" down; }
heal() { ip -n "${NET_ID}sw" link set "v$1" up; }

start_registry() {
  mkdir -p "$WORK/registry"
  cat >"$WORK/registry.yml" <<YAML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $WORK/registry}}
http: {addr: "$REGISTRY_AT"}
YAML
  nsenter --net="/run/netns/${NET_ID}sw" docker-registry serve "$WORK/registry.yml" >"$WORK/registry.log" 2>&1 &
  REGISTRY_PID=$!
}

start_docker() { # NODE
  local node=$1
  mkdir -p "$WORK/$node/etc" "$WORK/$node/data" /etc/docker
  NODE_DIR=$WORK/$node nsenter --net="/run/netns/$NET_ID$node" \
    unshare --mount --propagation private --pid --fork --kill-child --mount-proc --uts --ipc sh -c "
      hostname $node
      mount -t tmpfs tmpfs /run
      mkdir -p /run/docker
      mount --bind \$NODE_DIR/etc /etc/docker
      exec dockerd --data-root \$NODE_DIR/data --exec-root /run/docker --pidfile /run/dockerd.pid -H unix://\$NODE_DIR/docker.sock \
        --cgroup-parent /$NET_ID$node --storage-driver overlay2 --insecure-registry $REGISTRY_AT" >"$WORK/$node.log" 2>&1 &
  NODE_PID[$node]=$!
}
docker_answers() { docker_on "$1" version >/dev/null 2>&1; }

# Power loss: everything of the node ends at once, without a word. The kernel would close the connections of what is killed, so the
# cable comes first.
power_off() {
  cut_off "$1" 2>/dev/null || true
  kill -9 "${NODE_PID[$1]}" 2>/dev/null || true
  wait "${NODE_PID[$1]}" 2>/dev/null || true
}

# What a run leaves of control groups; processes are gone by now.
remove_groups() {
  local node directory
  for node in "${!NODE_PID[@]}"; do
    for directory in /sys/fs/cgroup/"$NET_ID$node" /sys/fs/cgroup/*/"$NET_ID$node"; do
      if [ -d "$directory" ]; then find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
    done
  done
}

tear_down() {
  local node name
  for node in "${!NODE_PID[@]}"; do power_off "$node"; done
  if [ -n "$REGISTRY_PID" ]; then kill "$REGISTRY_PID" 2>/dev/null || true; fi
  for name in $(ip netns list | awk -v id="$NET_ID" 'index($1, id) == 1 {print $1}'); do ip netns del "$name" || true; done
  remove_groups
  rm -rf "$WORK"
}
