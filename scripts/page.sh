#!/usr/bin/env bash
# The page: `page.sh build` makes web/dist, `page.sh test` also checks types and runs its tests. Does nothing twice.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh page
use_tools

packages_of() { # DIRECTORY: install what its lock file names, unless that is what is there
  if cmp -s "$1/package-lock.json" "$1/node_modules/.installed-lock.json"; then return; fi
  step "packages of $1: $(grep -c '"node_modules/' "$1/package-lock.json") from the npm registry"
  npm ci --prefix "$1" --no-fund --no-audit
  cp "$1/package-lock.json" "$1/node_modules/.installed-lock.json"
}

newer_sources() { # is anything of the page newer than what was built?
  [ ! -e web/dist/index.html ] ||
    [ -n "$(find web -path web/node_modules -prune -o -path web/dist -prune -o -newer web/dist/index.html -type f -print -quit)" ]
}

case ${1:-build} in
build)
  packages_of web
  if newer_sources; then
    step "page: building web/dist"
    npm --prefix web run build
  fi
  ;;
test)
  packages_of web
  step "page: types and tests"
  npm --prefix web run check
  npm --prefix web test
  ;;
packages) packages_of "${2:?a directory}" ;;
*) die "usage: page.sh build | test | packages DIRECTORY" ;;
esac
