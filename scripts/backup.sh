#!/usr/bin/env bash
# Copies the store, as it is at one moment, and the broker's data into one file, while all runs. Run it on the node of the store.
#
#   backup.sh [FILE]        default: STACK-DATE.tar in DEPLOY_BACKUPS, which is backups in this folder unless set
#
# What is in it: every job that was accepted before, with its result. What is not: passwords and tokens, which are the Swarm's secrets.
# Exit codes: 0 done, 1 failed, 2 wrong usage, 3 Docker, the Swarm or the stack can't be reached.
# shellcheck source=scripts/swarm-lib.sh
. "$(dirname "$(readlink -f "$0")")/swarm-lib.sh"

file=''
while [ $# -gt 0 ]; do
  case $1 in
  --help | -h) print_help && exit 0 ;;
  -*) usage_error "no option '$1'" ;;
  *)
    [ -z "$file" ] || usage_error "one file"
    file=$(from_caller "$1")
    ;;
  esac
  shift
done
umask 077
if [ -z "$file" ]; then
  directory=$(from_caller "${DEPLOY_BACKUPS:-$ROOT/backups}")
  mkdir -p "$directory"
  file=$directory/$STACK-$(date +%Y%m%d-%H%M%S).tar
fi
[ ! -e "$file" ] || die "$file exists already"

need_stack
master=$(need_local_container master) || exit 3
broker=$(need_local_container mosquitto) || exit 3
work=$(mktemp -d "$(dirname "$file")/.backup.XXXXXX")
copy=/var/lib/flota/backup-$$.db
clean() {
  rm -rf "$work"
  docker exec "$master" rm -f "$copy" >/dev/null 2>&1 || true
}
trap clean EXIT

docker exec "$master" flota backup --to "$copy" >/dev/null || die "the store could not be copied (flota's message is above)"
docker cp "$master:$copy" "$work/store.db"
# Mosquitto writes it anew every five seconds, beside the old one, so that a copy is always whole. A broker that was never told to keep
# anything has none.
docker cp "$broker:/mosquitto/data/mosquitto.db" "$work/broker.db" 2>/dev/null || true
printf 'stack %s\nimage %s\ndate %s\n' "$STACK" "$(service_image master)" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$work/about.txt"
(cd "$work" && tar -cf ../"$(basename "$work").tar" -- *)
mv "$work.tar" "$file"
say "backed up to $file ($(du -h "$file" | cut -f 1))"
