#!/usr/bin/env bash
# Installs what is missing, and says what and how large before it does. Quick when all is there.
#
#   scripts/setup.sh PART…     parts: build (Rust, C compiler), lint, page (Node), test (broker, browser, Python), swarm (Docker)
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# What Vite 8 runs on: 20.19 and up, but neither 21 nor the first of 22.
NODE_WANTED=20.19
NODE_MAJOR=22
NODE_MAJOR_WANTED=22.12
VENV="$TOOLS/python"

missing_packages=()
need() { missing_packages+=("$@"); }

c_toolchain_missing() { ! { have cc && have c++ && have make && [ -e /usr/include/stdlib.h ]; }; }
node_fits() {
  have node && have npm || return 1
  local version
  version=$(version_of node)
  case $version in
  20.*) version_ge "$version" "$NODE_WANTED" ;;
  *) version_ge "$version" "$NODE_MAJOR_WANTED" ;;
  esac
}
cargo_fits() { have cargo && version_ge "$(version_of cargo)" "$(rust_wanted)"; }
venv_fits() { cmp -s tests/simple_worker/requirements.txt "$VENV/installed.txt"; }

# What Debian has new enough.
collect_packages() {
  local part
  for part in "$@"; do
    case $part in
    build)
      if c_toolchain_missing; then need gcc g++ libc6-dev make; fi
      have cmake || need cmake make
      if ! cargo_fits && ! have rustup; then
        have curl || need curl
      fi
      ;;
    lint) have shellcheck || need shellcheck ;;
    page)
      if ! node_fits; then have npm || need npm; fi
      ;;
    test)
      have mosquitto || [ -x /usr/sbin/mosquitto ] || need mosquitto
      have mosquitto_sub || need mosquitto-clients
      have openssl || need openssl
      # For the chaos harness: networks to cut, and a clock to set wrong.
      have ip || [ -x /usr/sbin/ip ] || need iproute2
      compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || need libfaketime
      have monerod || need monero
      [ -n "$(chromium_path)" ] || need chromium
      if ! venv_fits && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then need python3 python3-venv; fi
      ;;
    swarm)
      { [ -x /usr/bin/docker ] && have dockerd; } || need docker.io
      have docker-compose || docker compose version >/dev/null 2>&1 || need docker-compose
      have docker-registry || need docker-registry
      have mmdebstrap || need mmdebstrap
      [ -x /usr/sbin/iptables ] || need iptables
      have ip || need iproute2
      have curl || need curl
      have jq || need jq
      have mosquitto_sub || need mosquitto-clients
      ;;
    *) die "no part '$part': there are build, lint, page, test and swarm" ;;
    esac
  done
  [ -e /etc/ssl/certs/ca-certificates.crt ] || need ca-certificates
}

chromium_path() {
  if [ -n "${FLOTA_CHROMIUM:-}" ]; then printf '%s\n' "$FLOTA_CHROMIUM"; else command -v chromium || true; fi
}

install_packages() {
  local packages
  mapfile -t packages < <(printf '%s\n' "$@" | sort -u)
  have apt-get || die "this machine lacks: ${packages[*]} (Debian's names), and has no apt-get" \
    "install them with its own package manager and start again."
  if [ "$(id -u)" != 0 ] && ! have sudo; then
    die "this machine lacks: ${packages[*]}" \
      "they are installed by apt, which needs root: there is no sudo here. As root, type" \
      "  apt-get install --no-install-recommends ${packages[*]}" "and start again."
  fi
  step "Debian packages: ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -o DPkg::Lock::Timeout=300)
  as_root "${apt[@]}" -qq update || say "apt-get update failed; going on with the lists that are there"
  # apt's own figures; it answers its own question with no.
  LC_ALL=C "${apt[@]}" install --no-install-recommends --assume-no "${packages[@]}" 2>/dev/null |
    grep -E '^(Need to get|After this operation|[0-9]+ upgraded)' || true
  local policy=''
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    # Debian starts what it installs (mosquitto on 1883): not for us.
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    # shellcheck disable=SC2064
    trap "as_root rm -f $policy" EXIT
  fi
  as_root env DEBIAN_FRONTEND=noninteractive "${apt[@]}" -y -q install --no-install-recommends "${packages[@]}" </dev/null ||
    die "apt could not install: ${packages[*]}" "its own message is above; mend that and start again."
  if [ -n "$policy" ]; then
    as_root rm -f "$policy"
    trap - EXIT
  fi
  local package
  for package in "${packages[@]}"; do
    case $package in
    mosquitto | docker-registry) disable_service "$package" ;;
    docker.io) disable_service docker.socket docker ;;
    esac
  done
}

# A service that came with a package of ours: neither now nor at the next start of the machine.
disable_service() { # SERVICE…
  local service
  for service in "$@"; do disable_one "$service"; done
}
disable_one() {
  if [ -d /run/systemd/system ]; then
    as_root systemctl disable --now "$1" >/dev/null 2>&1 || true
  elif have systemctl; then
    as_root systemctl disable "$1" >/dev/null 2>&1 || true
  elif have update-rc.d; then
    as_root update-rc.d "$1" disable >/dev/null 2>&1 || true
  fi
  say "$1 is installed; its service is stopped and switched off: Flota starts its own"
}

install_rust() {
  use_tools
  if cargo_fits; then return; fi
  local pinned
  pinned=$(rust_pinned)
  if ! have rustup; then
    step "Rust $pinned by rustup: about 200 MB to fetch, 600 MB in ~/.rustup and ~/.cargo"
    have cargo && say "(the cargo that is here is $(version_of cargo); Flota needs $(rust_wanted))"
    local installer
    installer=$(mktemp)
    curl --proto '=https' --tlsv1.2 -fsSL https://sh.rustup.rs -o "$installer" || rust_unreachable
    sh "$installer" -y --no-modify-path --profile minimal --default-toolchain none || rust_unreachable
    rm -f "$installer"
    PATH="$HOME/.cargo/bin:$PATH"
  else
    step "Rust $pinned by rustup: about 200 MB to fetch, 600 MB in ~/.rustup"
  fi
  rustup toolchain install "$pinned" --profile minimal -c clippy -c rustfmt || rust_unreachable
  use_tools
  cargo_fits || die "Rust $pinned is installed but 'cargo --version' answers '$(version_of cargo)'" \
    "is another cargo before ~/.cargo/bin in the PATH?"
}

rust_unreachable() {
  die "Rust $(rust_wanted) or newer is needed, and its download could not be had" \
    "(rustup's own message is above). Install Rust another way, from https://rustup.rs or a package" \
    "of your system, so that 'cargo --version' says $(rust_wanted) or newer, and start again."
}

# rustfmt and clippy, which a minimal toolchain may lack.
install_lints() {
  if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then return; fi
  step "rustfmt and clippy: about 10 MB"
  have rustup || die "cargo fmt and cargo clippy are missing" "install rustfmt and clippy for the Rust that is here and start again."
  rustup component add rustfmt clippy || die "rustup could not add rustfmt and clippy (its message is above)"
}

install_node() {
  if node_fits; then return; fi
  step "Node.js $NODE_MAJOR by npm (Flota's page needs $NODE_WANTED; here: $(version_of node || true)): about 60 MB to fetch, 200 MB in .tools"
  mkdir -p "$TOOLS"
  npm install --prefix "$TOOLS" --no-fund --no-audit --no-save "node@$NODE_MAJOR" npm@11 ||
    die "npm could not fetch Node.js (its message is above)"
  use_tools
  hash -r
  node_fits || die "Node.js was fetched but 'node --version' answers '$(version_of node)', needed is $NODE_WANTED" \
    "is npm set to run no install scripts (ignore-scripts)? Install Node.js $NODE_WANTED or newer yourself and start again."
}

install_python() {
  if venv_fits; then return; fi
  step "Python packages for the tests (tests/simple_worker/requirements.txt): about 20 MB, in .tools/python"
  rm -rf "$VENV"
  python3 -m venv "$VENV"
  "$VENV/bin/pip" install --quiet --disable-pip-version-check -r tests/simple_worker/requirements.txt ||
    die "pip could not install the Python packages (its message is above)"
  cp tests/simple_worker/requirements.txt "$VENV/installed.txt"
}

main() {
  collect_packages "$@"
  if [ ${#missing_packages[@]} -gt 0 ]; then install_packages "${missing_packages[@]}"; fi
  local part
  for part in "$@"; do
    case $part in
    build) install_rust ;;
    lint) install_lints ;;
    page) install_node ;;
    test) install_python ;;
    esac
  done
}

main "$@"
