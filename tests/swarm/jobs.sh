# shellcheck shell=bash
# Sourced by scripts/e2e-swarm.sh: gives the fleet runs of echo jobs, and reads back what became of each.
#
# A run is a set of jobs with a label of its own; job n answers {"run": LABEL, "n": n}.

FLEET="http://$(node_ip n1):31663"

know_token() {
  mkdir -p "$WORK/runs"
  printf 'authorization: Bearer %s' "$(on n1 ./deploy.sh --print-secret token)" >"$WORK/auth"
}

fleet() { # METHOD PATH [FILE with JSON]
  local body=()
  [ $# -lt 3 ] || body=(-H 'content-type: application/json' --data-binary "@$3")
  in_net n1 curl -fsS --noproxy '*' --max-time 30 -X "$1" -H "@$WORK/auth" ${body[@]+"${body[@]}"} "$FLEET/api/v1$2"
}

# within SECONDS WHAT COMMAND…: until the command succeeds; else the check fails
within() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || fail "not in time: $what"
    sleep 0.5
  done
}

submit() { # RUN COUNT SLEEP_MS [JSON to add to each job]
  local file=$WORK/runs/$1 more=${4:-}
  [ -n "$more" ] || more='{}'
  echo "$1-$(date +%s)" >"$file.label"
  jq -nc --arg run "$(label "$1")" --argjson count "$2" --argjson sleep "$3" --argjson more "$more" \
    '[range($count) | {kind: "echo", payload: {value: {run: $run, n: .}, sleep_ms: $sleep}, labels: {run: $run}} + $more]' >"$file.json"
  fleet POST /jobs/batch "$file.json" | jq -er '.[].id' >"$file.ids"
  [ "$(grep -c . "$file.ids")" = "$2" ] || fail "not every job of $1 was accepted"
}

label() { cat "$WORK/runs/$1.label"; }
listed() { fleet GET "/jobs?label=run%3D$(label "$1")&state=$2&limit=500" 2>/dev/null | jq '.items | length'; }
has() { # RUN STATE COUNT: at least so many are in this state
  local count
  count=$(listed "$1" "$2") && [ -n "$count" ] && [ "$count" -ge "$3" ]
}
all_ended() { # RUN COUNT
  local done_ failed cancelled
  done_=$(listed "$1" completed) && failed=$(listed "$1" failed) && cancelled=$(listed "$1" cancelled) || return 1
  [ $((${done_:-0} + ${failed:-0} + ${cancelled:-0})) -ge "$2" ]
}
await_run() { within "${3:-180}" "all $2 jobs of $1 have ended" all_ended "$1" "$2"; }

# every RUN PATH_BEHIND_ID: one answer for each job of the run, in one go
every() {
  awk -v url="$FLEET/api/v1/jobs/" -v rest="$2" '{printf "url = \"%s%s%s\"\n", url, $1, rest}' "$WORK/runs/$1.ids" >"$WORK/runs/$1.urls"
  in_net n1 curl -fsS --noproxy '*' --max-time 120 -H "@$WORK/auth" -K "$WORK/runs/$1.urls"
}

# Every job of the run completed with its own answer, and exactly one attempt of each counted. Answers say how often leases ended;
# more than ALLOWED failures of one job fail the check.
check_run() { # RUN COUNT [ALLOWED]
  local file=$WORK/runs/$1
  every "$1" '' | jq -s . >"$file.jobs"
  every "$1" /units | jq -s . >"$file.units"
  jq -e --arg run "$(label "$1")" --argjson count "$2" --argjson allowed "${3:-0}" '
    length == $count and all(.state == "completed" and .result.value.run == $run and .failures <= $allowed)
    and ([.[].result.value.n] | unique | length) == $count' "$file.jobs" >/dev/null || {
    jq -c '.[] | select(.state != "completed" or .failures > 0) | {id, state, failures, workers, error}' "$file.jobs" | head -n 5
    fail "jobs of $1 did not all complete with their own results and without failures"
  }
  jq -e --argjson count "$2" '
    length == $count and all(.items | length == 1 and ([.[0].attempts[] | select(.outcome == "completed")] | length) == 1)' "$file.units" >/dev/null ||
    fail "not every job of $1 has exactly one attempt that counted"
}
attempts_of() { jq -r '[.[].items[].attempts[]] | group_by(.outcome) | map("\(length) \(.[0].outcome)") | join(", ")' "$WORK/runs/$1.units"; }

metric() { # NAME_WITH_LABELS: its value, 0 where there is none
  in_net n1 curl -fsS --noproxy '*' -H "@$WORK/auth" "$FLEET/metrics" | awk -v name="$1" '$1 == name {value = $2} END {print value + 0}'
}
