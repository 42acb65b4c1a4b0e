#!/usr/bin/env bash
# Lighthouse on the pages of a fleet that this starts: the score for accessibility must be 0.95 or more on each. Fetches Lighthouse
# (200 packages, 185 MB) from the npm registry by npx.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build page test
use_tools

VERSION=12.8.2
LEAST=0.95
scripts/page.sh build
cargo build --locked -p flota

directory=$(mktemp -d)
stop() {
  if [ -n "${fleet:-}" ]; then kill "$fleet" 2>/dev/null || true; fi
  rm -rf "$directory"
}
trap stop EXIT
FLOTA_WEB_LISTEN=127.0.0.1:0 FLOTA_GRPC_LISTEN=127.0.0.1:0 FLOTA_MQTT_LISTEN=127.0.0.1:0 FLOTA_DATA_DIR="$directory/data" \
  target/debug/flota up >"$directory/log" 2>&1 &
fleet=$!
url=''
for _ in $(seq 120); do
  url=$(sed -n 's/^ *page *\(http[^ ]*\).*/\1/p' "$directory/log" | head -n 1)
  [ -z "$url" ] || break
  kill -0 "$fleet" 2>/dev/null || die "the fleet did not start" "$(cat "$directory/log")"
  sleep 0.5
done
[ -n "$url" ] || die "the fleet did not say where its page is" "$(cat "$directory/log")"

for page in ask jobs jobs/failed jobs/new fleet fleet/mining fleet/usage logs; do
  CHROME_PATH=${FLOTA_CHROMIUM:-$(command -v chromium)} npx --yes "lighthouse@$VERSION" "$url/#/$page" --quiet \
    --only-categories=accessibility --output=json --output-path="$directory/report.json" \
    --chrome-flags='--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage'
  node tests/browser/score.mjs "$directory/report.json" "$page" "$LEAST"
done
