#!/usr/bin/env bash
# Builds the images flota-master and flota-worker, tags them with the version and with `latest`, and pushes them where REGISTRY is set.
#
#   build.sh [--example] [--binary FILE] [--no-cache]
#
#   --example       also the image of the example worker in Python (flota-simple-worker)
#   --binary FILE   (or DEPLOY_BINARY) put this flota into the images instead of compiling one; it must have been built for the Debian release of
#                   RUNTIME_IMAGE, and needs BuildKit (docker buildx, or Docker 20.10 to 22)
#   --no-cache      build every layer anew
#
# Environment: REGISTRY (such as registry.example.org:5000), DEPLOY_VERSION (default: what git calls this tree), and the base images
# RUST_IMAGE, NODE_IMAGE, RUNTIME_IMAGE, PYTHON_IMAGE.
# Exit codes: 0 done, 1 failed, 2 wrong usage, 3 Docker can't be reached.
# shellcheck source=scripts/swarm-lib.sh
. "$(dirname "$(readlink -f "$0")")/swarm-lib.sh"

targets=(master worker) binary=${DEPLOY_BINARY:-} options=()
while [ $# -gt 0 ]; do
  case $1 in
  --example) targets+=(simple-worker) ;;
  --binary)
    [ $# -ge 2 ] || usage_error "--binary wants a file"
    binary=$(from_caller "$2")
    shift
    ;;
  --no-cache) options+=(--no-cache) ;;
  --help | -h) print_help && exit 0 ;;
  *) usage_error "no option '$1'" ;;
  esac
  shift
done

# A tree with changes is another version each time: a Swarm only looks at an image's name.
version_of_tree() { git describe --tags --always --dirty="-$(date +%Y%m%d%H%M%S)" 2>/dev/null || date +%Y%m%d%H%M%S; }
VERSION=${DEPLOY_VERSION:-$(version_of_tree)}
[[ $VERSION =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || usage_error "DEPLOY_VERSION is '$VERSION', which is no image tag"
REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)

need_docker
export DOCKER_BUILDKIT=1
# Newer clients have BuildKit only with the plugin buildx; without it the older builder does all but --binary.
if ! docker buildx version >/dev/null 2>&1 && version_ge "$(docker version --format '{{.Client.Version}}')" 23; then
  [ -z "$binary" ] || die "--binary needs BuildKit" "install Docker's plugin buildx"
  export DOCKER_BUILDKIT=0
fi

if [ -n "$binary" ]; then
  [ -x "$binary" ] || die "there is no program $binary"
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
  cp "$binary" "$context/flota"
  printf 'FROM scratch\nCOPY flota /flota\n' >"$context/Dockerfile"
  docker build -q -t "flota-program:$VERSION" "$context" >/dev/null
  options+=(--build-arg "PROGRAM=flota-program:$VERSION")
fi
for argument in RUST_IMAGE NODE_IMAGE RUNTIME_IMAGE PYTHON_IMAGE; do
  [ -z "${!argument:-}" ] || options+=(--build-arg "$argument=${!argument}")
done

for target in "${targets[@]}"; do
  name=${DEPLOY_IMAGE_PREFIX}flota-$target
  step "image $name:$VERSION"
  docker build --target "$target" --build-arg "VERSION=$VERSION" --build-arg "REVISION=$REVISION" ${options[@]+"${options[@]}"} \
    -t "$name:$VERSION" -t "$name:latest" .
done
if [ -n "$REGISTRY" ]; then
  for target in "${targets[@]}"; do
    step "pushing ${DEPLOY_IMAGE_PREFIX}flota-$target"
    for tag in "$VERSION" latest; do docker push "${DEPLOY_IMAGE_PREFIX}flota-$target:$tag"; done
  done
fi
say "built version $VERSION; deploy.sh deploys it, update.sh $VERSION brings a running stack to it"
