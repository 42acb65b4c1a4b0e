# shellcheck shell=bash
# Sourced by the other scripts: where the tree is, how to speak, how to become root, which tools are used.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT
cd "$ROOT"

# Tools that no package manager of the machine has new enough are kept here, outside git.
TOOLS="$ROOT/.tools"
export TOOLS

if [ -t 1 ]; then BOLD=$'\e[1m' RED=$'\e[31m' PLAIN=$'\e[0m'; else BOLD='' RED='' PLAIN=''; fi

say() { printf '%s\n' "${BOLD}flota:${PLAIN} $*"; }
step() { printf '\n%s\n' "${BOLD}── $*${PLAIN}"; }
die() {
  printf '%s\n' "${RED}flota: $1${PLAIN}" >&2
  shift
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# version_ge A B: is version A at least B?
version_ge() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# as_root COMMAND…: as it is for root, else by sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

rust_wanted() { sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml; }
rust_pinned() { sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml; }

# The number of `TOOL --version`, empty where it does not run.
version_of() { "$@" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' | head -n 1 || true; }

# toolchain_fits NAME: has the rustup toolchain NAME a rustc that is new enough?
toolchain_fits() {
  local version
  version=$(version_of rustup run "$1" rustc)
  [ -n "$version" ] && version_ge "$version" "$(rust_wanted)"
}

# Prints the rustup toolchain to build with: the one that the project is linted with where it is installed, else the newest
# other release that is new enough. Nothing where there is none.
toolchain_choice() {
  local name
  for name in "$(rust_pinned)" $(rustup toolchain list 2>/dev/null | awk '{print $1}' | grep -v nightly | sort -rV); do
    if toolchain_fits "$name"; then
      printf '%s\n' "$name"
      return
    fi
  done
}

# Puts the tools on the path. An installed toolchain that is new enough is named to rustup, so that rust-toolchain.toml makes it
# fetch nothing.
use_tools() {
  [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
  [ -d "$TOOLS/node_modules/.bin" ] && PATH="$TOOLS/node_modules/.bin:$PATH"
  export PATH
  # Node carries certificates of its own; where a network has others, the machine knows them.
  if [ -z "${NODE_EXTRA_CA_CERTS:-}" ] && [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
  fi
  if have rustup && [ -z "${RUSTUP_TOOLCHAIN:-}" ]; then
    local choice
    choice=$(toolchain_choice)
    [ -z "$choice" ] || export RUSTUP_TOOLCHAIN="$choice"
  fi
}

# Lints change with every release of Rust: they are errors only with the release that the project is linted with.
lints_are_errors() { [ "$(version_of rustc)" = "$(rust_pinned)" ]; }

use_tools
