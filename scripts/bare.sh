#!/usr/bin/env bash
# Proves `make run` and `make test` on a bare Debian: a chroot made by mmdebstrap (minbase: no curl, git, cc, cmake), a fresh clone
# of what is committed, nothing else typed. Needs root and Debian's mmdebstrap.
#
#   scripts/bare.sh test|run [--host-rust]
#
# --host-rust lends the chroot this machine's ~/.cargo and ~/.rustup (copied where written to): for places where rustup's own
# download is not reachable.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

SUITE=${FLOTA_BARE_SUITE:-bookworm}
BARE=${FLOTA_BARE_DIR:-/var/tmp/flota-bare}
what=${1:?usage: bare.sh test|run [--host-rust]}
lend=${2:-}
[ "$(id -u)" = 0 ] || die "a chroot needs root"
have mmdebstrap || die "mmdebstrap is missing: apt-get install mmdebstrap"

step "a bare $SUITE in $BARE"
[ ! -e "$BARE" ] || die "$BARE is there already: remove it first (nothing may be left from another run)"
TMPDIR=/dev/shm mmdebstrap -q --variant=minbase --aptopt='Acquire::Languages "none"' --include=make "$SUITE" "$BARE"
cp /etc/resolv.conf "$BARE/etc/resolv.conf"
# Certificates that this machine was given beside Debian's (a proxy's own, say) are part of its network, not of the project.
if compgen -G '/usr/local/share/ca-certificates/*' >/dev/null; then
  mkdir -p "$BARE/usr/local/share/ca-certificates"
  cp -r /usr/local/share/ca-certificates/. "$BARE/usr/local/share/ca-certificates/"
fi
git clone -q --no-local --depth 1 "file://$ROOT" "$BARE/root/flota"

inside=(env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
if [ "$lend" = --host-rust ]; then
  step "lending ~/.rustup and ~/.cargo/bin (without the registry's cache)"
  mkdir -p "$BARE/root/.cargo"
  cp -a "$HOME/.rustup" "$BARE/root/.rustup"
  cp -a "$HOME/.cargo/bin" "$BARE/root/.cargo/bin"
  inside+=(RUSTUP_AUTO_INSTALL=0)
fi

# shellcheck disable=SC2016
script='
  mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/tmp" || exit 1
  root=$0; shift 0
  exec chroot "$root" "$@"
'
step "make $what"
command=(make -C /root/flota "$what")
if [ "$what" = run ]; then
  # Until the page answers from outside (the network is shared), then Ctrl-C's signal.
  unshare --mount --propagation private --pid --fork --kill-child bash -c "$script" "$BARE" "${inside[@]}" "${command[@]}" </dev/null &
  pid=$!
  until curl -fsS http://127.0.0.1:8888/readyz >/dev/null 2>&1; do
    kill -0 "$pid" 2>/dev/null || die "make run ended before the page was there"
    sleep 2
  done
  curl -fsS http://127.0.0.1:8888/ | head -c 400
  say "the page answers on a bare machine"
  kill "$pid"
else
  unshare --mount --propagation private --pid --fork --kill-child bash -c "$script" "$BARE" "${inside[@]}" "${command[@]}" </dev/null
fi
