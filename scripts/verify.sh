#!/usr/bin/env bash
# Looks whether a deployed stack does what it should: services, workers, accounts and rules of the broker, page, a real echo job and a
# real RandomX hash with a known result. A line each; run it on the node of the store.
#
#   verify.sh [--json]
#
#   --json   a line of JSON for each check: {"check", "ok", "detail"}
#
# Exit codes: 0 all is well, 1 a check failed, 2 wrong usage, 3 Docker, the Swarm or the stack can't be reached.
# shellcheck source=scripts/swarm-lib.sh
. "$(dirname "$(readlink -f "$0")")/swarm-lib.sh"

json=''
while [ $# -gt 0 ]; do
  case $1 in
  --json) json=yes ;;
  --help | -h) print_help && exit 0 ;;
  *) usage_error "no option '$1'" ;;
  esac
  shift
done

failed=0
report() { # NAME true|false DETAIL
  if [ -n "$json" ]; then
    jq -cn --arg check "$1" --argjson ok "$2" --arg detail "$3" '{check: $check, ok: $ok, detail: $detail}'
  else
    local word=ok
    [ "$2" = true ] || word="${RED}FAILED${PLAIN}"
    printf '%-9s %-26s %s\n' "$word" "$1" "$3"
  fi
  [ "$2" = true ] || failed=$((failed + 1))
}

# check NAME FUNCTION: the function says a line, and whether it is well. Nothing that it does ends the script.
check() {
  local detail
  if detail=$(set +e; "$2" 2>&1); then report "$1" true "$detail"; else report "$1" false "$detail"; fi
}

services_run() {
  local service shown bad='' all=''
  for service in $(services); do
    shown=$(replicas_shown "$service")
    all+="$service $shown  "
    [ "${shown%/*}" = "${shown#*/}" ] || bad=yes
  done
  echo "$all"
  [ -n "$all" ] && [ -z "$bad" ]
}

workers_connected() {
  local service missing
  for service in $(worker_services); do
    missing=$(missing_workers "$service" | tr '\n' ' ')
    if [ -n "$missing" ]; then
      echo "not registered: $missing"
      return 1
    fi
  done
  connected_workers | sort | tr '\n' ' '
}

anonymous_is_refused() {
  local said
  if said=$(mqtt - sub -i verify-anonymous -t "$FLOTA_TOPIC_ROOT/logs" -E -W 10 2>&1); then
    echo "a client without an account was let in"
    return 1
  fi
  echo "$said" | tail -n 1
  [[ $said == *[Nn]ot\ authori* ]]
}

viewer_sees_the_master() {
  local said
  said=$(mqtt viewer sub -i verify-viewer -t "$FLOTA_TOPIC_ROOT/master/status" -C 1 -W 15)
  jq -r '"master " + .status + ", version " + .version + ", gRPC at " + .grpc_endpoint' <<<"$said"
  [ "$(jq -r .status <<<"$said")" = online ]
}

# The broker acknowledges what it forbids: only a listener knows. Between two words of the master the viewer has spoken.
viewer_gives_no_tasks() {
  local topic=$FLOTA_TOPIC_ROOT/workers/verify-nobody/tasks heard
  heard=$(
    mqtt master sub -i verify-listener -t "$topic" -C 3 -W 30 2>/dev/null &
    listener=$!
    while kill -0 "$listener" 2>/dev/null; do
      mqtt viewer pub -i verify-nobody -q 1 -t "$topic" -m viewer >/dev/null 2>&1
      mqtt master pub -i verify-master -q 1 -t "$topic" -m master >/dev/null 2>&1
    done
  )
  case $heard in
  $'master\nmaster\nmaster') echo "what a viewer publishes to a task topic reaches nobody" && return 0 ;;
  *viewer*) echo "a viewer gives tasks to workers" ;;
  *) echo "the rules keep the master from task topics" ;;
  esac
  return 1
}

# A subscription that is forbidden is acknowledged too.
workers_read_only_their_tasks() {
  local topics=$FLOTA_TOPIC_ROOT/workers heard
  heard=$(
    mqtt worker sub -i verify-worker -t "$topics/verify-other/tasks" -t "$topics/verify-worker/tasks" -C 3 -W 30 2>/dev/null &
    listener=$!
    while kill -0 "$listener" 2>/dev/null; do
      mqtt master pub -i verify-master -q 1 -t "$topics/verify-other/tasks" -m other >/dev/null 2>&1
      mqtt master pub -i verify-master -q 1 -t "$topics/verify-worker/tasks" -m own >/dev/null 2>&1
    done
  )
  case $heard in
  $'own\nown\nown') echo "a worker hears its own tasks, and not those of another" && return 0 ;;
  *other*) echo "a worker may read the tasks of another" ;;
  *) echo "the rules keep a worker from its own tasks" ;;
  esac
  return 1
}

page_is_there() {
  local url page code
  url=$(fleet_url)
  page=$(curl -fsS --noproxy '*' --max-time 10 "$url/") || return 1
  code=$(curl -sS --noproxy '*' --max-time 10 -o /dev/null -w '%{http_code}' "$url/api/v1/fleet")
  echo "$url; without a token the API answers $code"
  [[ $page == *'<html'* ]] && [ "$code" = 401 ]
}

# job KIND PAYLOAD: submits it and waits until it has ended
job() {
  local id answer deadline=$((SECONDS + 180))
  id=$(api POST /jobs "{\"kind\": \"$1\", \"payload\": $2, \"cache\": false, \"labels\": {\"from\": \"verify\"}}" | jq -r .id) || return 1
  while [ "$SECONDS" -lt "$deadline" ]; do
    answer=$(API_SECONDS=40 api GET "/jobs/$id?wait_ms=30000") || return 1
    case $(jq -r .state <<<"$answer") in completed | failed | cancelled) break ;; esac
  done
  printf '%s\n' "$answer"
}

echo_job() {
  local value answer
  value=verify-$(date +%s)
  answer=$(job echo "{\"value\": \"$value\"}") || return 1
  jq -r '.state + " by " + (.workers | join(", "))' <<<"$answer"
  [ "$(jq -r .result.value <<<"$answer")" = "$value" ]
}

# The first test vector of RandomX's own tests.
randomx_hash() {
  local answer expected=639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f
  answer=$(job randomx.hash '{"key": "74657374206b657920303030", "inputs": ["5468697320697320612074657374"]}') || return 1
  jq -r '.state + " by " + (.workers | join(", ")) + ", " + (.result.mode // "?") + " mode: " + (.result.hashes[0] // "no hash")' <<<"$answer"
  [ "$(jq -r '.result.hashes[0]' <<<"$answer")" = $expected ]
}

need_stack
need_tools curl jq
need_token
check "services" services_run
check "workers" workers_connected
check "viewer at the broker" viewer_sees_the_master
check "anonymous is refused" anonymous_is_refused
check "viewer gives no tasks" viewer_gives_no_tasks
check "workers read their own" workers_read_only_their_tasks
check "page and API" page_is_there
check "echo job" echo_job
check "RandomX vector" randomx_hash
[ -n "$json" ] || if [ "$failed" = 0 ]; then say "all is well"; else say "$failed checks failed"; fi
[ "$failed" = 0 ]
