#!/usr/bin/env bash
# Puts Flota on this Docker Swarm, or brings a stack that is there to what the files and settings say now. Waits until all is healthy
# and every worker has registered, and prints where everything is. Run it on the manager that is to keep the store.
#
#   deploy.sh [--init] [--workers N] [--remote-workers] [--example] [--timeout SECONDS]
#   deploy.sh --print-join | --print-secret NAME | --print-addresses
#
#   --init               make a Swarm of this machine where there is none, without asking (--advertise-addr ADDRESS where the machine
#                        has several addresses)
#   --workers N          tasks of the service worker (default: as many as run, at the first time one for each node)
#   --remote-workers     publish the port that workers outside the Swarm report to
#   --example            add the service python-worker, with no task: scale.sh python-worker 2 starts two
#   --timeout SECONDS    how long to wait until all is healthy (default 300)
#   --print-join         the line that starts a worker on a machine outside the Swarm; holds secrets
#   --print-secret NAME  token, worker_token, seal_key, mqtt_master, mqtt_worker or mqtt_viewer
#
# Passwords and tokens are made once and kept as Swarm secrets; FLOTA_TOKEN, FLOTA_WORKER_TOKEN, FLOTA_SEAL_KEY and GEMINI_API_KEY (or
# ..._FILE) are taken from the environment where set. What stack.yml leaves open is taken from there too, or from a file .env: DEPLOY_... says
# how to deploy, FLOTA_... goes to the program. DEPLOY_FILES names more stack files to lay over stack.yml.
# Exit codes: 0 done, 1 failed, 2 wrong usage, 3 Docker or the Swarm can't be reached.
# shellcheck source=scripts/swarm-lib.sh
. "$(dirname "$(readlink -f "$0")")/swarm-lib.sh"

init='' advertise='' workers=${DEPLOY_WORKERS:-} remote='' example='' timeout=300 print='' secret_asked=''
while [ $# -gt 0 ]; do
  case $1 in
  --init) init=yes ;;
  --remote-workers) remote=yes ;;
  --example) example=yes ;;
  --print-join) print='join' ;;
  --print-addresses) print=addresses ;;
  --help | -h) print_help && exit 0 ;;
  --advertise-addr | --workers | --timeout | --print-secret)
    [ $# -ge 2 ] || usage_error "$1 wants a value"
    case $1 in
    --advertise-addr) advertise=$2 ;;
    --workers) workers=$2 ;;
    --timeout) timeout=$2 ;;
    --print-secret) print=secret secret_asked=$2 ;;
    esac
    shift
    ;;
  *) usage_error "no option '$1'" ;;
  esac
  shift
done
[[ $workers =~ ^[0-9]*$ ]] || usage_error "--workers wants a number"
[[ $timeout =~ ^[0-9]+$ ]] || usage_error "--timeout wants seconds"

print_addresses() {
  local web broker
  web=$(fleet_url)
  broker=$(address mosquitto 1883)
  cat <<TEXT

  page   $web
  API    $web/api/v1, described in $web/api/v1/openapi.json
  MQTT   mqtt://$broker

The token of page and API:     ./deploy.sh --print-secret token
Passwords at the broker:       ./deploy.sh --print-secret mqtt_viewer   (or mqtt_worker, mqtt_master)
Watch it:                      mosquitto_sub -h ${broker%:*} -p ${broker##*:} -u viewer -P "\$(./deploy.sh --print-secret mqtt_viewer)" -v -t '$FLOTA_TOPIC_ROOT/logs' -t '$FLOTA_TOPIC_ROOT/workers/status'
Use it:                        FLOTA_URL=$web FLOTA_TOKEN="\$(./deploy.sh --print-secret token)" flota ask 'What is a fleet?'
TEXT
}

print_join() {
  local broker grpc password worker_token
  broker=$(address mosquitto 1883) || die "the broker does not run"
  grpc=$(address master 50051) || die "workers outside the Swarm can't report: their port is not published" \
    "deploy with ./deploy.sh --remote-workers first"
  password=$(secret mqtt_worker) && worker_token=$(secret worker_token) || exit 3
  local root=''
  [ "$FLOTA_TOPIC_ROOT" = flota ] || root="FLOTA_TOPIC_ROOT=$FLOTA_TOPIC_ROOT "
  printf '%s\n' "FLOTA_MQTT_URL=mqtt://$broker FLOTA_MQTT_USER=worker FLOTA_MQTT_PASSWORD=$password FLOTA_WORKER_TOKEN=$worker_token ${root}FLOTA_GRPC_URL=$grpc flota worker"
}

if [ -n "$print" ]; then
  need_stack
  case $print in
  join) print_join ;;
  addresses) print_addresses ;;
  secret)
    case " ${SECRETS[*]} " in *" $secret_asked "*) ;; *) usage_error "no secret '$secret_asked': there are ${SECRETS[*]}" ;; esac
    secret "$secret_asked"
    echo
    ;;
  esac
  exit 0
fi

join_swarm() {
  local state answer=''
  state=$(docker info --format '{{.Swarm.LocalNodeState}}')
  [ "$state" = inactive ] || return 0
  if [ -z "$init" ] && [ -t 0 ]; then
    read -r -p "This Docker is in no Swarm. Make one of this machine now? [y/N] " answer
    [[ $answer =~ ^[yY] ]] && init=yes
  fi
  [ -n "$init" ] || unreachable "this Docker is in no Swarm" "make one (docker swarm init), or let this script do it: ./deploy.sh --init"
  docker swarm init ${advertise:+--advertise-addr "$advertise"} >/dev/null || die "docker swarm init failed (its message is above)" \
    "where the machine has several addresses: ./deploy.sh --init --advertise-addr ADDRESS"
  say "this machine is a Swarm of one now; docker swarm join-token worker tells how others join"
}

# The node that has the store is marked: what is in its volumes is nowhere else.
pin_store() {
  local nodes node
  nodes=$(docker node ls -q --filter "node.label=flota.store.$STACK=yes")
  case $(printf '%s' "$nodes" | grep -c .) in
  0)
    node=$(docker info --format '{{.Swarm.NodeID}}')
    docker node update --label-add "flota.store.$STACK=yes" "$node" >/dev/null
    say "the store and the broker's data are kept on this node ($(docker node inspect "$node" --format '{{.Description.Hostname}}')), and only here"
    ;;
  1) ;;
  *) die "several nodes are marked as the store's: $nodes" "take the label flota.store.$STACK from all but the one that has the volumes" ;;
  esac
  export DEPLOY_STORE_NODE="node.labels.flota.store.$STACK == yes"
}

random_secret() { # NAME
  local text
  if [ "$1" = seal_key ]; then
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
    return
  fi
  text=$(head -c 400 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9')
  printf '%s' "${text:0:32}"
}
content_hash() { sha256sum | cut -c 1-12; }

# given_secret NAME: its value where the environment has one
given_secret() {
  local variable
  case $1 in
  token) variable=FLOTA_TOKEN ;;
  worker_token) variable=FLOTA_WORKER_TOKEN ;;
  seal_key) variable=FLOTA_SEAL_KEY ;;
  gemini_api_key) variable=GEMINI_API_KEY ;;
  *) return 0 ;;
  esac
  local file=${variable}_FILE
  if [ -n "${!variable:-}" ]; then
    printf '%s' "${!variable}"
  elif [ -n "${!file:-}" ]; then
    tr -d '\r\n' <"${!file}"
  fi
}

# use_secret NAME VALUE: has the Swarm keep it, and the stack use it. Without a value: the one that is there.
use_secret() {
  local name
  if [ -n "$2" ]; then
    name=${STACK}_$1_$(printf '%s' "$2" | content_hash)
    docker secret inspect "$name" >/dev/null 2>&1 ||
      printf '%s' "$2" | docker secret create --label "flota.stack=$STACK" --label "flota.secret=$1" "$name" - >/dev/null
  else
    name=$(secret_name "$1")
  fi
  export "DEPLOY_SECRET_${1^^}=$name"
}

make_secrets() {
  local name value
  for name in "${SECRETS[@]}"; do
    value=$(given_secret "$name")
    [ -n "$value" ] || [ -n "$(secret_name "$name")" ] || value=$(random_secret "$name")
    use_secret "$name" "$value"
  done
  value=$(given_secret gemini_api_key)
  if [ -n "$value" ] || [ -n "$(secret_name gemini_api_key)" ]; then
    use_secret gemini_api_key "$value"
    files+=(-c stack.gemini.yml)
  fi
}

# The version that build.sh made last, here; elsewhere what the registry calls latest.
choose_version() {
  local image=${DEPLOY_IMAGE_PREFIX}flota-master
  if [ -z "${DEPLOY_VERSION:-}" ]; then
    DEPLOY_VERSION=$(docker image inspect "$image:latest" --format '{{index .Config.Labels "org.opencontainers.image.version"}}' 2>/dev/null || true)
    if [ -n "$DEPLOY_VERSION" ] && ! docker image inspect "$image:$DEPLOY_VERSION" >/dev/null 2>&1; then DEPLOY_VERSION=latest; fi
  fi
  export DEPLOY_VERSION=${DEPLOY_VERSION:-latest}
  if [ -n "$REGISTRY" ]; then return; fi
  docker image inspect "$image:$DEPLOY_VERSION" >/dev/null 2>&1 ||
    die "there is no image $image:$DEPLOY_VERSION here" "./build.sh builds it; or set REGISTRY to where it is"
  local nodes
  nodes=$(docker node ls -q | grep -c .)
  [ "$nodes" = 1 ] || die "this Swarm has $nodes nodes, and the others can't get images from here" \
    "set REGISTRY to a registry that all of them reach, build.sh pushes there (docs/operations.md: a private registry)"
}

choose_workers() {
  if [ -z "$workers" ] && have_service worker; then workers=$(replicas_wanted worker); fi
  [ -n "$workers" ] || workers=$(docker node ls --format '{{.Status}} {{.Availability}}' | grep -c '^Ready Active$') || workers=1
  export DEPLOY_WORKERS=$workers
}

choose_files() {
  files=(-c stack.yml)
  if [ -n "$remote" ] || { have_service master && [ -n "$(published master 50051)" ]; }; then files+=(-c stack.remote.yml); fi
  if have_service python-worker; then
    example=yes
    DEPLOY_PYTHON_WORKERS=${DEPLOY_PYTHON_WORKERS:-$(replicas_wanted python-worker)}
    export DEPLOY_PYTHON_WORKERS
  fi
  [ -z "$example" ] || files+=(-c stack.example.yml)
  local file
  for file in ${DEPLOY_FILES:-}; do files+=(-c "$(from_caller "$file")"); done
}

hash_configs() {
  DEPLOY_BROKER_CONF_HASH=$(content_hash <mosquitto/mosquitto.conf)
  DEPLOY_BROKER_ACL_HASH=$(content_hash <mosquitto/acl)
  DEPLOY_BROKER_START_HASH=$(content_hash <mosquitto/start.sh)
  export DEPLOY_BROKER_CONF_HASH DEPLOY_BROKER_ACL_HASH DEPLOY_BROKER_START_HASH
}

fail_with_tasks() { # MESSAGE SERVICE
  local lines
  mapfile -t lines < <(task_errors "$2")
  die "$1" ${lines[@]+"${lines[@]}"} "no suitable node? DEPLOY_WORKER_MEMORY_RESERVED says what a worker needs; ./logs.sh $2 shows what it says"
}

need_docker
join_swarm
need_manager
need_tools curl jq
choose_version
choose_workers
choose_files
pin_store
make_secrets
hash_configs

declare -A before=()
for service in $(services); do before[$service]=$(update_state "$service"); done
resolve=(--resolve-image never)
[ -z "$REGISTRY" ] || resolve=(--resolve-image always --with-registry-auth)
step "stack $STACK: version $DEPLOY_VERSION, $DEPLOY_WORKERS workers"
docker stack deploy "${files[@]}" "${resolve[@]}" --prune "$STACK" || die "docker stack deploy failed (its message is above)"

end=$((SECONDS + timeout))
left() { echo $((end > SECONDS ? end - SECONDS : 1)); }
for service in mosquitto master $(worker_services); do
  say "waiting for $service"
  wait_settled "$service" "$(left)" || fail_with_tasks "the service $service is not healthy after $timeout s" "$service"
  state=$(update_state "$service")
  if [[ $state == *rollback* && $state != "${before[$service]:-}" ]]; then
    fail_with_tasks "the service $service did not get healthy with what it was given, and went back to what it was" "$service"
  fi
done
for service in $(worker_services); do
  until_true "$(left)" workers_registered "$service" ||
    fail_with_tasks "workers that run have not registered: $(missing_workers "$service" | tr '\n' ' ')" "$service"
done
say "all services are healthy, $(connected_workers | grep -c . || true) workers are registered"
print_addresses
