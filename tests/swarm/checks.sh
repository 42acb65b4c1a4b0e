# shellcheck shell=bash
# Sourced by scripts/e2e-swarm.sh: what must be shown, one function each, and what has to stand before.

export REGISTRY=$REGISTRY_AT DEPLOY_MOSQUITTO_IMAGE=$REGISTRY_AT/eclipse-mosquitto:2 FLOTA_RANDOMX_MODE=light
# Few slots, so that work lasts.
export FLOTA_WORKER_SLOTS=echo=8,randomx=1,ai=4 DEPLOY_WORKER_MEMORY_RESERVED=512M
export DEPLOY_BINARY=$WORK/flota DEPLOY_BACKUPS=$WORK/backups
unset DEPLOY_VERSION DEPLOY_STACK FLOTA_URL FLOTA_TOKEN DEPLOY_WORKERS

# A Debian with what the images need, from Debian's own archive: there may be no registry of images to be had.
make_base() {
  local base=$TEST_DIR/base.tar
  if [ -n "$(find "$base" -mtime -7 2>/dev/null)" ]; then return; fi
  step "base image"
  TMPDIR=$WORK mmdebstrap -q --variant=minbase --include=ca-certificates,mosquitto,mosquitto-clients,python3-minimal,libpython3-stdlib \
    --aptopt='Acquire::Languages "none"' bookworm "$WORK/base.tar"
  mv "$WORK/base.tar" "$base"
}

start_nodes() {
  local node
  step "registry and three nodes"
  make_switch
  start_registry
  for node in n1 n2 n3; do
    make_port "$node"
    start_docker "$node"
  done
  for node in n1 n2 n3; do within 60 "the Docker of $node answers" docker_answers "$node"; done
  # An hour of heartbeats is not needed to see a node die: the default of five seconds only makes the test longer.
  docker_on n1 swarm init --advertise-addr "$(node_ip n1)" --listen-addr "$(node_ip n1)" --default-addr-pool 198.19.0.0/16 \
    --dispatcher-heartbeat 1s >/dev/null
  local token
  token=$(docker_on n1 swarm join-token -q worker)
  for node in n2 n3; do
    docker_on "$node" swarm join --token "$token" --advertise-addr "$(node_ip "$node")" --listen-addr "$(node_ip "$node")" "$(node_ip n1):2377"
  done
  docker_on n1 import -c 'CMD ["/bin/bash"]' "$TEST_DIR/base.tar" debian:bookworm-slim >/dev/null
  # What eclipse-mosquitto has, as far as the stack relies on it.
  image "$DEPLOY_MOSQUITTO_IMAGE" <<'IMAGE'
FROM debian:bookworm-slim
RUN userdel mosquitto; useradd --uid 1883 --user-group mosquitto && mkdir -p /mosquitto/config /mosquitto/data && chown -R 1883:1883 /mosquitto
VOLUME /mosquitto/data
IMAGE
}
image() { # NAME: built from the Dockerfile on the standard input, and pushed
  local context
  context=$(mktemp -d "$WORK/context.XXXXXX")
  cat >"$context/Dockerfile"
  DOCKER_BUILDKIT=1 docker_on n1 build -q -t "$1" "$context" >/dev/null
  docker_on n1 push -q "$1" >/dev/null
}

# ── the checks

images() {
  strip -o "$WORK/flota" target/debug/flota
  DEPLOY_VERSION=one on n1 ./build.sh >"$WORK/build.log" 2>&1 || { cat "$WORK/build.log"; fail "build.sh"; }
  [ "$(docker_on n1 image inspect "$REGISTRY_AT/flota-worker:one" --format '{{.Config.User}}')" = 10001:10001 ] || fail "the image runs as root"
}

deploys() { on n1 ./deploy.sh --remote-workers --timeout 180 && know_token; }
verifies() { on n1 ./verify.sh; }

workers_everywhere() {
  local node
  note=$(on n1 docker service ps flota_worker --filter desired-state=running --format '{{.Node}}' | sort -u | tr '\n' ' ')
  for node in n1 n2 n3; do [[ " $note " == *" $node "* ]] || fail "no worker on $node"; done
}

# As a person would watch, from outside the Swarm.
watch_as() { # ACCOUNT ARGUMENT…
  local account=$1
  shift
  mkdir -p "$WORK/options"
  printf -- '-h %s\n-p 21662\n-u %s\n-P %s\n' "$(node_ip n1)" "$account" "$(on n1 ./deploy.sh --print-secret "mqtt_$account")" >"$WORK/options/mosquitto_sub"
  XDG_CONFIG_HOME=$WORK/options in_net sw mosquitto_sub -W 90 -i "watch-$account" "$@"
}
broker_accounts() {
  local said
  if said=$(in_net sw mosquitto_sub -h "$(node_ip n1)" -p 21662 -t flota/logs -E -W 10 2>&1); then fail "anonymous was let in"; fi
  [[ $said == *'ot authori'* ]] || fail "anonymous was refused for another reason: $said"
  watch_as viewer -t flota/logs -t flota/workers/status -C 40 >"$WORK/heard" &
  local watcher=$!
  # Workers say every ten seconds what they do.
  within 60 "a viewer hears a worker" test -s "$WORK/heard"
  submit seen 60 1500
  wait "$watcher" || fail "a viewer hears too little"
  grep -q '"status":"busy"' "$WORK/heard" || fail "a viewer sees no worker's status"
  grep -q '"message":' "$WORK/heard" || fail "a viewer sees no log"
  await_run seen 60
  check_run seen 60
}

# A machine outside the Swarm: another port of the switch, no Docker, the line that deploy.sh prints.
remote_worker() {
  local line pid
  make_port n9
  line=$(on n1 ./deploy.sh --print-join)
  [[ $line == *' flota worker' ]] || fail "no line to join with"
  mkdir -p "$WORK/remote"
  # shellcheck disable=SC2086
  nsenter --net="/run/netns/${NET_ID}n9" env PATH="$WORK:$PATH" FLOTA_DATA_DIR="$WORK/remote" FLOTA_WORKER_ID=outside ${line% flota worker} flota worker >"$WORK/remote.log" 2>&1 &
  pid=$!
  submit outside 20 10 '{"requires": {"worker_id": "outside"}}'
  await_run outside 20 60
  check_run outside 20
  kill "$pid"
  wait "$pid" || fail "the remote worker did not end in order"
}


# The example service, in an image like the one that `build.sh --example` makes where there is a registry of Python's images.
python_workers() {
  local context
  context=$(mktemp -d "$WORK/context.XXXXXX")
  cp -r .tools/python/lib/python3.11/site-packages tests/simple_worker proto/proto "$context"
  cat >"$context/Dockerfile" <<'IMAGE'
FROM debian:bookworm-slim
COPY site-packages /usr/lib/python3/dist-packages
COPY simple_worker /app/tests/simple_worker
COPY proto /app/proto/proto
RUN ln -s python3 /usr/bin/python && useradd --uid 10001 flota
USER 10001
IMAGE
  DOCKER_BUILDKIT=1 docker_on n1 build -q -t "$REGISTRY_AT/flota-simple-worker:one" "$context" >/dev/null
  docker_on n1 push -q "$REGISTRY_AT/flota-simple-worker:one" >/dev/null
  rm -rf "$context"
  on n1 ./deploy.sh --example --timeout 180 >/dev/null
  on n1 ./scale.sh python-worker 2
  local id answer
  id=$(on n1 ./scale.sh python-worker 2 | sed -n 's/^ *\(python-.*\)$/\1/p' | head -n 1)
  jq -nc --arg id "$id" '{kind: "ai.chat", payload: {messages: [{role: "user", content: "quiet"}]}, requires: {worker_id: $id}}' >"$WORK/question.json"
  answer=$(fleet POST /jobs "$WORK/question.json" | jq -r .id)
  answer=$(fleet GET "/jobs/$answer?wait_ms=25000" | jq -r .result.text)
  [ "$answer" = QUIET ] || fail "the worker in Python answers '$answer'"
  on n1 ./scale.sh python-worker 0 >/dev/null
}

scaling() {
  submit scaling 500 1300
  on n1 ./scale.sh worker 5
  has scaling completed 500 && fail "the jobs ended before the workers went"
  on n1 ./scale.sh worker 2
  await_run scaling 500
  check_run scaling 500
  note=$(attempts_of scaling)
}

working_on() { # RUN NODE: how many of its jobs a worker of that node computes
  fleet GET "/jobs?label=run%3D$(label "$1")&state=computing&limit=500" 2>/dev/null | jq --arg node "$2-" '[.items[] | select(.workers[-1] // "" | startswith($node))] | length'
}
busy_on() {
  local count
  count=$(working_on "$1" "$2") && [ "${count:-0}" -ge "${3:-1}" ]
}

node_dies() {
  # From one on Swarm spreads the tasks over all nodes.
  on n1 ./scale.sh worker 1 >/dev/null
  on n1 ./scale.sh worker 5
  submit power 60 8000
  within 60 "units are in work on n3" busy_on power n3 4
  local died
  died=$(date +%s%3N)
  power_off n3
  await_run power 60
  check_run power 60 1
  note=$(jq -r --argjson died "$died" '
    def ms: (sub("\\.[0-9]+Z$"; "Z") | fromdate * 1000) + ((capture("\\.(?<f>[0-9]+)Z$") // {f: "0"}).f | tonumber);
    [.[].items[].attempts | . as $all | range(length) | select($all[.].outcome == "lease_expired" and ($all[.].worker_id | startswith("n3-"))) | $all[. + 1].started_at | ms - $died]
    | if length == 0 then error("no unit was on the dead node") else "\(length) units were assigned again \(min / 1000) to \(max / 1000) s after the power was cut" end' "$WORK/runs/power.units") ||
    fail "no unit of the dead node was assigned again"
  heal n3
  start_docker n3
  within 60 "the Docker of n3 answers" docker_answers n3
  within 60 "n3 is ready again" node_is n3 Ready
}
node_is() { [ "$(docker_on n1 node inspect "$1" --format '{{.Status.State}}' 2>/dev/null)" = "${2,,}" ]; }

container_on() { docker_on "$1" ps -q --filter "label=com.docker.swarm.service.name=flota_$2" --filter status=running | head -n 1; }
service_is_back() { # SERVICE FORMER_CONTAINER
  local now
  now=$(docker_on n1 ps -q --filter "label=com.docker.swarm.service.name=flota_$1" --filter health=healthy | head -n 1)
  [ -n "$now" ] && [ "$now" != "$2" ]
}
kill_service() { # SERVICE RUN
  local container killed
  submit "$2" 150 2000
  within 60 "jobs are in work" has "$2" computing 8
  container=$(container_on n1 "$1")
  docker_on n1 kill -s KILL "$container" >/dev/null
  killed=$SECONDS
  # The master takes jobs without its broker.
  if [ "$1" = mosquitto ]; then submit meanwhile 50 10; fi
  within 90 "the service $1 is healthy again" service_is_back "$1" "$container"
  note="healthy again after $((SECONDS - killed)) s"
  await_run "$2" 150
  if [ "$1" = mosquitto ]; then await_run meanwhile 50; fi
  check_run "$2" 150
  note+="; attempts: $(attempts_of "$2")"
}
broker_dies() {
  kill_service mosquitto broker
  check_run meanwhile 50
}
master_dies() { kill_service master master; }

cut_off_node() {
  local late
  all_registered 5
  submit cut 40 9000
  within 60 "units are in work on n2" busy_on cut n2 4
  cut_off n2
  local since=$SECONDS
  # Longer than its units take, and longer than their leases.
  await_run cut 40 120
  fleet GET "/jobs?label=run%3D$(label cut)&limit=500" | jq -S '[.items[] | {id, state, workers, failures, finished_at}] | sort_by(.id)' >"$WORK/before"
  while [ $((SECONDS - since)) -lt 30 ]; do sleep 1; done
  heal n2
  within 120 "n2 is ready again" node_is n2 Ready
  all_registered 5
  check_run cut 40 1
  fleet GET "/jobs?label=run%3D$(label cut)&limit=500" | jq -S '[.items[] | {id, state, workers, failures, finished_at}] | sort_by(.id)' >"$WORK/after"
  cmp -s "$WORK/before" "$WORK/after" || { diff "$WORK/before" "$WORK/after"; fail "something changed after the heal"; }
  late=$(jq '[.[].items[].attempts[] | select(.outcome == "lease_expired" and (.worker_id | startswith("n2-")))] | length' "$WORK/runs/cut.units")
  [ "$late" -gt 0 ] || fail "no unit of the node that was cut off went to another"
  note="$late units went to others; $(attempts_of cut)"
}
all_registered() { on n1 ./scale.sh worker "$1" >/dev/null || fail "not all workers are registered"; }

rolling_update() {
  DEPLOY_VERSION=two on n1 ./build.sh >"$WORK/build.log" 2>&1 || { cat "$WORK/build.log"; fail "build.sh"; }
  on n1 ./scale.sh worker 3
  submit update 500 3200
  on n1 ./update.sh two
  [ -n "$(ls "$WORK/backups")" ] || fail "update.sh made no backup"
  has update completed 500 && note='the jobs ended before the update did; '
  await_run update 500
  check_run update 500
  [[ $(docker_on n1 service inspect flota_master --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}') == *flota-master:two* ]] || fail "the master has another image"
  note+=$(attempts_of update)
}

bad_update() {
  local image
  image "$REGISTRY_AT/flota-worker:three" <<IMAGE
FROM $REGISTRY_AT/flota-worker:two
ENTRYPOINT ["sleep"]
CMD ["infinity"]
IMAGE
  submit bad 300 600
  if on n1 ./update.sh three --no-backup; then fail "update.sh says that it worked"; fi
  image=$(docker_on n1 service inspect flota_worker --format '{{.Spec.TaskTemplate.ContainerSpec.Image}} {{.UpdateStatus.State}}')
  [[ $image == *flota-worker:two*rollback_completed ]] || fail "the service is not what it was: $image"
  all_registered 3
  await_run bad 300
  check_run bad 300
}

left_on() { # NODE: what of the stack is there
  docker_on "$1" ps -aq --filter label=com.docker.stack.namespace=flota
  docker_on "$1" network ls -q --filter label=com.docker.stack.namespace=flota
  docker_on "$1" volume ls -q --filter name=flota_
}
nothing_left() {
  local node
  for node in n1 n2 n3; do [ -z "$(left_on "$node")" ] || return 1; done
  [ -z "$(docker_on n1 service ls -q)$(docker_on n1 secret ls -q)$(docker_on n1 config ls -q)" ]
}

backup_and_restore() {
  submit finished 20 10
  submit queued 20 10 '{"requires": {"labels": {"gate": "open"}}}'
  await_run finished 20
  every finished '' | jq -S . >"$WORK/finished.before"
  on n1 ./backup.sh "$WORK/backup.tar"
  submit later 5 10
  on n1 ./stop.sh --purge
  within 60 "nothing is left" nothing_left
  FLOTA_WORKER_LABELS=gate=open on n1 ./deploy.sh --workers 2 --timeout 180
  know_token
  if every finished '' >/dev/null 2>&1; then fail "the purged store still knows the jobs"; fi
  on n1 ./restore.sh "$WORK/backup.tar"
  every finished '' | jq -S . >"$WORK/finished.after"
  cmp -s "$WORK/finished.before" "$WORK/finished.after" || fail "finished jobs came back changed"
  await_run queued 20 60
  check_run queued 20
  [ "$(listed later completed)" = 0 ] || fail "jobs from after the backup are there"
  submit more 20 10
  await_run more 20 60
  check_run more 20
}

stops() {
  on n1 ./stop.sh
  [ -n "$(docker_on n1 volume ls -q --filter name=flota_store)" ] || fail "stop.sh took the store"
  on n1 ./stop.sh --purge
  within 60 "nothing is left" nothing_left
  local node
  for node in n1 n2 n3; do [ -z "$(docker_on "$node" ps -aq)" ] || fail "containers are left on $node"; done
}

# What stands in README.md, line for line.
readme_lines() {
  local line lines
  mapfile -t lines < <(sed -n '/^## Deploy it/,/^## /{s/^    \(\.\/.*\)$/\1/p}' README.md)
  if [ "${lines[0]:-}" != ./build.sh ] || [ "${lines[-1]}" != ./stop.sh ]; then fail "README.md has no lines to deploy with"; fi
  for line in "${lines[@]}"; do
    say "$line"
    # shellcheck disable=SC2086
    on n1 $line >"$WORK/readme.log" 2>&1 </dev/null || { cat "$WORK/readme.log"; fail "$line"; }
  done
  on n1 ./stop.sh --purge
  note="${#lines[@]} lines"
}

compose() { # The one that this machine has.
  if on n1 docker compose version >/dev/null 2>&1; then on n1 docker compose "$@"; else on n1 docker-compose "$@"; fi
}
files_are_accepted() {
  compose config -q || fail "docker-compose.yml"
  local client
  # Debian's client has no `stack config`; a newer one may stand elsewhere.
  for client in /usr/bin/docker /usr/local/bin/docker; do
    if [ -x "$client" ] && "$client" stack config --help 2>/dev/null | grep -q 'docker stack config'; then
      "$client" stack config -c stack.yml -c stack.remote.yml -c stack.gemini.yml -c stack.example.yml >/dev/null || fail "docker stack config"
      note="stack config by $("$client" version --format '{{.Client.Version}}' 2>/dev/null || true)"
      return
    fi
  done
  note="no docker stack config here; the deployments above took stack.yml and stack.remote.yml"
}
compose_up() {
  local -x DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1 COMPOSE_PROJECT_NAME=flotaone DEPLOY_PROGRAM=flota-program:one DEPLOY_IMAGE_PREFIX='' DEPLOY_VERSION=compose
  compose up -d --build >"$WORK/compose.log" 2>&1 || { cat "$WORK/compose.log"; fail "docker compose up --build"; }
  compose logs init | grep -q 'docker compose exec master cat' || fail "init does not say how to read the token"
  printf 'authorization: Bearer %s' "$(compose exec -T master cat /run/flota/master/token)" >"$WORK/auth"
  within 60 "the fleet of one machine has a worker" one_worker
  submit compose 50 10
  await_run compose 50 60
  check_run compose 50
  compose down -v --remove-orphans >>"$WORK/compose.log" 2>&1
  [ -z "$(docker_on n1 ps -aq)" ] || fail "compose left containers"
}
one_worker() { fleet GET /fleet 2>/dev/null | jq -e '.workers.idle >= 1' >/dev/null; }

run_checks() {
  check "build.sh: the images, pushed to a registry" images
  check "deploy.sh on three nodes" deploys
  check "verify.sh: all is well" verifies
  check "workers run on all nodes" workers_everywhere
  check "broker: no anonymous; a viewer sees logs and status" broker_accounts
  check "deploy.sh --print-join: a worker outside the Swarm" remote_worker
  check "a service of workers in Python beside ours" python_workers
  check "scale.sh worker 5, then 2, while 500 jobs run" scaling
  check "a worker node loses power" node_dies
  check "the broker's container is killed" broker_dies
  check "the master's container is killed" master_dies
  check "a node is cut off for 30 s and healed" cut_off_node
  check "update.sh to a second version under load" rolling_update
  check "an update that never gets healthy rolls back" bad_update
  check "backup.sh, stop.sh --purge, deploy.sh, restore.sh" backup_and_restore
  check "stop.sh leaves nothing behind" stops
  check "the lines of README.md, as they stand there" readme_lines
  check "compose and stack files are accepted" files_are_accepted
  check "docker compose up --build on one machine" compose_up
}
