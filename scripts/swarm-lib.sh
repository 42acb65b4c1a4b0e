# shellcheck shell=bash
# Sourced by the scripts of a deployment: the stack and its services, secrets, the fleet's REST, its broker, waiting.
# Exit codes of all of them: 0 done, 1 failed, 2 wrong usage, 3 Docker, the Swarm or the fleet can't be reached.

CALLED_FROM=$PWD
# shellcheck source=scripts/lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

usage_error() {
  printf '%s\n' "${RED}flota: $*${PLAIN} (--help tells more)" >&2
  exit 2
}
unreachable() {
  printf '%s\n' "${RED}flota: $1${PLAIN}" >&2
  shift
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 3
}

# The comment at the head of the script that runs is its help.
print_help() { sed -n '2,/^[^#]/{/^# shellcheck/d; s/^# \{0,1\}//p}' "$(readlink -f "$0")"; }

# from_caller PATH: as it was meant where the script was started
from_caller() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$CALLED_FROM/$1" ;; esac; }

# What .env says, unless the environment says otherwise; docker compose reads the same file.
load_env_file() {
  local line name
  [ -e .env ] || return 0
  while IFS= read -r line || [ -n "$line" ]; do
    name=${line%%=*}
    [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ && $line == *=* ]] || continue
    [ -n "${!name+set}" ] || export "$name=${line#*=}"
  done <.env
}
load_env_file

STACK=${DEPLOY_STACK:-flota}
[[ $STACK =~ ^[a-z0-9][a-z0-9_-]*$ ]] || usage_error "DEPLOY_STACK is '$STACK': lowercase letters, digits, - and _"
export DEPLOY_STACK=$STACK
REGISTRY=${REGISTRY:-}
export DEPLOY_IMAGE_PREFIX=${DEPLOY_IMAGE_PREFIX:-${REGISTRY:+$REGISTRY/}}
export DEPLOY_MOSQUITTO_IMAGE=${DEPLOY_MOSQUITTO_IMAGE:-eclipse-mosquitto:2}
export FLOTA_TOPIC_ROOT=${FLOTA_TOPIC_ROOT:-flota}

# Secrets of the stack; gemini_api_key only where there is one.
# shellcheck disable=SC2034
SECRETS=(token worker_token seal_key mqtt_master mqtt_worker mqtt_viewer)

need_tools() {
  local tool missing=()
  for tool in "$@"; do have "$tool" || missing+=("$tool"); done
  [ ${#missing[@]} = 0 ] || die "this machine lacks: ${missing[*]}" "on Debian: apt-get install ${missing[*]/docker/docker.io}"
}

need_docker() {
  need_tools docker
  docker version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
    unreachable "Docker does not answer" "is its service running, and may this user use it? (docker version says why)"
}

need_manager() {
  need_docker
  local state
  state=$(docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}')
  [ "$state" = "active true" ] ||
    unreachable "this Docker is no manager of a Swarm ($state)" "run this on a manager; deploy.sh makes a Swarm of one machine"
}

need_stack() {
  need_manager
  have_service master || unreachable "there is no stack '$STACK' here" "deploy.sh makes it; DEPLOY_STACK names another"
}

# ── services

have_service() { docker service inspect "${STACK}_$1" >/dev/null 2>&1; }
services() { docker service ls --filter "label=com.docker.stack.namespace=$STACK" --format '{{.Name}}' | sed "s/^${STACK}_//" | sort; }
service_format() { docker service inspect "${STACK}_$1" --format "$2" 2>/dev/null; }
replicas_wanted() { service_format "$1" '{{.Spec.Mode.Replicated.Replicas}}'; }
# tasks SERVICE: how many run as wanted, and how many are still to end. A node that is down answers for none of its tasks.
tasks() {
  local down
  down=$(docker node ls --format '{{.Hostname}} {{.Status}}' | awk '$2 == "Down" {print $1}' | tr '\n' ' ')
  docker service ps "${STACK}_$1" --format '{{.Node}}|{{.DesiredState}}|{{.CurrentState}}' 2>/dev/null | awk -F '|' -v down=" $down" '
    index(down, " " $1 " ") {next}
    $2 == "Running" && $3 ~ /^Running/ {running++}
    $2 != "Running" && $2 != "Ready" && $3 ~ /^(New|Pending|Assigned|Accepted|Preparing|Ready|Starting|Running)/ {ending++}
    END {print running + 0, ending + 0}'
}
replicas_shown() {
  local running
  read -r running _ < <(tasks "$1")
  printf '%s/%s\n' "$running" "$(replicas_wanted "$1")"
}
service_image() { service_format "$1" '{{.Spec.TaskTemplate.ContainerSpec.Image}}' | sed 's/@.*//'; }
update_state() { service_format "$1" '{{with .UpdateStatus}}{{.State}} {{.StartedAt}}{{end}}'; }

# Services whose tasks are workers of the fleet.
worker_services() {
  local service
  for service in $(services); do
    [ -z "$(worker_id_template "$service")" ] || printf '%s\n' "$service"
  done
}
worker_id_template() {
  service_format "$1" '{{range .Spec.TaskTemplate.ContainerSpec.Env}}{{println .}}{{end}}' | sed -n 's/^FLOTA_WORKER_ID=//p'
}

# Worker ids that the tasks of a service register with.
expected_workers() {
  local template
  template=$(worker_id_template "$1")
  docker service ps "${STACK}_$1" --filter desired-state=running --format '{{.Name}} {{.Node}}' |
    awk -v template="$template" -v service="${STACK}_$1" '{
      id = template; slot = $1; sub(/^.*\./, "", slot)
      gsub(/\{\{ *\.Node\.Hostname *\}\}/, $2, id); gsub(/\{\{ *\.Task\.Slot *\}\}/, slot, id)
      gsub(/\{\{ *\.Service\.Name *\}\}/, service, id); print id }'
}

# The running container of a service on this machine, if it has one here.
local_container() {
  docker ps -q --filter "label=com.docker.swarm.service.name=${STACK}_$1" --filter status=running | head -n 1
}
need_local_container() {
  local id
  id=$(local_container "$1")
  if [ -z "$id" ]; then
    unreachable "the service $1 has no running container on this node" "it runs on: $(service_node "$1"); start this script there"
  fi
  printf '%s\n' "$id"
}
service_node() {
  docker service ps "${STACK}_$1" --filter desired-state=running --format '{{.Node}} {{.CurrentState}}' |
    awk '$2 == "Running" {print $1; exit}'
}
node_address() {
  local address
  address=$(docker node inspect "$1" --format '{{.Status.Addr}}')
  case $address in
  '' | 0.0.0.0) docker node inspect "$1" --format '{{with .ManagerStatus}}{{.Addr}}{{end}}' | sed 's/:[0-9]*$//' ;;
  *) printf '%s\n' "$address" ;;
  esac
}
published() { service_format "$1" "{{range .Spec.EndpointSpec.Ports}}{{if eq .TargetPort $2}}{{.PublishedPort}}{{end}}{{end}}"; }

# address SERVICE TARGET_PORT: host:port at which clients reach it
address() {
  local node port
  node=$(service_node "$1")
  port=$(published "$1" "$2")
  [ -n "$node" ] && [ -n "$port" ] || return 1
  printf '%s:%s\n' "$(node_address "$node")" "$port"
}

# Why tasks of a service don't run.
task_errors() {
  docker service ps "${STACK}_$1" --no-trunc --format '{{.Name}} on {{.Node}}: {{.CurrentState}} {{.Error}}' |
    grep -E 'Pending|Rejected|Failed|Starting|Preparing|Assigned' | head -n 6 | cut -c 1-300 || true
}

# until_true SECONDS COMMAND…: tries once a second
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 1
  done
}

settled() { # SERVICE: all tasks that are wanted run, the others have ended, and nothing is being changed
  local state running ending
  state=$(update_state "$1")
  case ${state%% *} in updating | rollback_started) return 1 ;; esac
  read -r running ending < <(tasks "$1")
  [ "$running" = "$(replicas_wanted "$1")" ] && [ "$ending" = 0 ]
}
# Twice, because an update begins a moment after it was asked for.
settled_twice() { settled "$1" && sleep 2 && settled "$1"; }
wait_settled() { until_true "$2" settled_twice "$1"; }

no_tasks() { [ "$(tasks "$1")" = "0 0" ]; } # SERVICE: none runs or is still to end

# ── secrets

# secret NAME: its value, read where a service uses it
secret() {
  local service=master id
  case $1 in mqtt_viewer | mqtt_worker) service=mosquitto ;; esac
  id=$(need_local_container "$service") || exit 3
  docker exec "$id" cat "/run/secrets/$1"
}
# The current one in the Swarm.
secret_name() {
  docker secret ls --filter "label=flota.stack=$STACK" --filter "label=flota.secret=$1" --format '{{.CreatedAt}}|{{.Name}}' |
    sed 's/^.*|//' | while read -r name; do
      docker secret inspect "$name" --format '{{.CreatedAt.UnixNano}} {{.Spec.Name}}'
    done | sort -n | awk 'END {print $2}'
}

# ── the fleet

fleet_url() {
  if [ -n "${FLOTA_URL:-}" ]; then
    printf '%s\n' "${FLOTA_URL%/}"
  else
    local at
    at=$(address master 8888) || return 1
    printf 'http://%s\n' "$at"
  fi
}
fleet_token() {
  if [ -n "${FLOTA_TOKEN:-}" ]; then
    printf '%s' "$FLOTA_TOKEN"
  elif [ -n "${FLOTA_TOKEN_FILE:-}" ]; then
    cat "$FLOTA_TOKEN_FILE"
  else
    secret token
  fi
}
# Once for a script: the address can change with a task, the token can't.
need_token() { [ -n "${TOKEN:-}" ] || TOKEN=$(fleet_token) || exit 3; }

# api METHOD PATH [JSON]: the answer; fails as curl does. The token is in no argument, where others could read it.
api() {
  local url body=()
  need_token
  url=$(fleet_url) || return 7
  [ $# -lt 3 ] || body=(-H 'content-type: application/json' --data-binary "$3")
  curl -fsS --noproxy '*' --max-time "${API_SECONDS:-20}" -X "$1" -H @<(printf 'authorization: Bearer %s' "$TOKEN") \
    ${body[@]+"${body[@]}"} "$url/api/v1$2"
}

# Ids of the workers that take work, or could. Simple workers have no connection to the master.
connected_workers() {
  api GET '/workers?limit=500' 2>/dev/null | jq -r '.items[] | select(.status != "offline" and (.connected_at != null or .simple)) | .worker_id'
}
missing_workers() { # SERVICE
  comm -23 <(expected_workers "$1" | sort) <(connected_workers | sort)
}
workers_registered() { # SERVICE: as many as wanted, all of them connected
  local expected
  expected=$(expected_workers "$1" | grep -c .) || true
  [ "$expected" = "$(replicas_wanted "$1")" ] && [ -z "$(missing_workers "$1")" ]
}

# ── the broker

# mqtt ACCOUNT sub|pub ARGUMENT…: mosquitto_sub or mosquitto_pub as that account, by this machine's program or by the broker's image.
# ACCOUNT '-' comes without one.
mqtt() (
  account=$1 tool=mosquitto_$2
  shift 2
  at=$(address mosquitto 1883) || exit 7
  options=$(mktemp -d)
  trap 'rm -rf "$options"' EXIT
  umask 077
  {
    printf -- '-h %s\n-p %s\n' "${at%:*}" "${at##*:}"
    if [ "$account" != - ]; then
      password=$(secret "mqtt_$account") || exit 3
      printf -- '-u %s\n-P %s\n' "$account" "$password"
    fi
  } >"$options/$tool"
  if have "$tool"; then
    XDG_CONFIG_HOME=$options "$tool" "$@"
  else
    docker run --rm -i --init --network host -v "$options:/options:ro" -e XDG_CONFIG_HOME=/options --user 0 --entrypoint "$tool" \
      "$(service_image mosquitto)" "$@"
  fi
)
