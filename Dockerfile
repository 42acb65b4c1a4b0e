# The images of Flota: targets `master` and `worker`, and `simple-worker`, an example in Python. scripts/build.sh builds them;
# `docker build --target master .` does too. Every base image is a build argument.

ARG RUST_IMAGE=rust:1.95-bookworm
ARG NODE_IMAGE=node:22-bookworm-slim
ARG RUNTIME_IMAGE=debian:bookworm-slim
ARG PYTHON_IMAGE=python:3.13-slim-bookworm
# Where the program comes from: the stage below, or an image with /flota in it (`build.sh --binary FILE` makes one).
ARG PROGRAM=compiled

FROM ${PYTHON_IMAGE} AS simple-worker
COPY tests/simple_worker/requirements.txt /app/tests/simple_worker/
RUN pip install --no-cache-dir -r /app/tests/simple_worker/requirements.txt && useradd --uid 10001 --create-home flota
COPY tests/simple_worker/simple_worker.py /app/tests/simple_worker/
COPY proto/proto /app/proto/proto
USER 10001
ENTRYPOINT ["python", "/app/tests/simple_worker/simple_worker.py"]

FROM ${NODE_IMAGE} AS page
WORKDIR /src/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-fund --no-audit
COPY web ./
RUN npm run build

FROM ${RUST_IMAGE} AS compiled
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# First the dependencies, from the manifests alone: this layer stays as long as no manifest changes.
COPY Cargo.toml Cargo.lock ./
COPY proto/Cargo.toml proto/
COPY common/Cargo.toml common/
COPY randomx/Cargo.toml randomx/
COPY master/Cargo.toml master/
COPY worker/Cargo.toml worker/
COPY cli/Cargo.toml cli/
COPY tests/Cargo.toml tests/
COPY fuzz/Cargo.toml fuzz/
COPY fuzz/Cargo.toml fuzz/
COPY fuzz/fuzz_targets fuzz/fuzz_targets
RUN for crate in */Cargo.toml; do mkdir -p "${crate%/*}/src" && touch "${crate%/*}/src/lib.rs"; done \
    && echo 'fn main() {}' > cli/src/main.rs \
    && cargo build --release --locked --bin flota
COPY proto proto
COPY common common
COPY randomx randomx
COPY master master
COPY worker worker
COPY cli cli
COPY --from=page /src/web/dist web/dist
# Cargo goes by times: what was copied must be newer than the empty sources that were built.
RUN find proto common randomx master worker cli -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin flota \
    && cp target/release/flota /flota

FROM ${PROGRAM} AS program

FROM ${RUNTIME_IMAGE} AS runtime
RUN if [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*; fi \
    && useradd --uid 10001 --user-group --home-dir /var/lib/flota --shell /usr/sbin/nologin flota \
    && mkdir -p /var/lib/flota && chown flota:flota /var/lib/flota && chmod 700 /var/lib/flota
COPY --from=program /flota /usr/local/bin/flota
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Flota" \
    org.opencontainers.image.description="A fleet of workers for RandomX computations and questions to an AI" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
WORKDIR /var/lib/flota
ENV FLOTA_DATA_DIR=/var/lib/flota
ENTRYPOINT ["flota"]

FROM runtime AS master
ENV FLOTA_WEB_LISTEN=0.0.0.0:8888 FLOTA_GRPC_LISTEN=0.0.0.0:50051
EXPOSE 8888 50051
VOLUME /var/lib/flota
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 CMD ["flota", "healthcheck"]
CMD ["master"]

# No volume: a container has a data directory of its own, so that two workers never share one.
FROM runtime AS worker
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=3 CMD ["flota", "healthcheck", "--worker"]
CMD ["worker"]
