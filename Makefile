# What there is to do, one target each; the work is in scripts/. Nothing has to be installed before: every target that needs
# something says what and how large, and installs it.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help run up build page test check e2e e2e-swarm e2e-embeddings fmt nightly bench bench-ai chaos fuzz setup clean distclean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## install what is missing, build page and program in release, start all on this machine (ARGS="…" goes to flota up)
	@scripts/run.sh $(ARGS)

test: ## install what is missing, then everything that CI runs: lints, unit and simulation tests, real broker, real browser
	@scripts/test.sh

check: ## the quick part for every day: format, lints, tests of the core (a minute when warm)
	@scripts/check.sh

e2e: ## only the tests with real processes (ONLY=name runs the file tests/tests/name.rs)
	@scripts/e2e.sh $(ONLY)

e2e-swarm: ## images, Swarm of three nodes on this machine, deployment scripts, faults (as root; ARGS=--keep leaves it running)
	@scripts/e2e-swarm.sh $(ARGS)

e2e-embeddings: ## a real sentence model through the fleet, its vectors beside its own library's (fetches 3.5 GB of Python packages)
	@scripts/embeddings.sh

build: ## page and program in release: target/release/flota
	@scripts/compile.sh

page: ## only the page: web/dist
	@scripts/page.sh build

fmt: ## format the Rust sources
	@cargo fmt --all

bench: ## measure jobs a second and latency, with the embedded broker and with Mosquitto (ARGS="…" goes to flota bench dispatch)
	@scripts/bench.sh $(ARGS)

bench-ai: ## measure what the fleet adds to an AI's answer: first text, many streams, Stop (ARGS="…" goes to ai-bench)
	@scripts/bench-ai.sh $(ARGS)

chaos: ## break a real fleet for MINUTES (10) and compare every job with a ledger; as root also networks, disk and clock
	@scripts/chaos.sh $(ARGS)

fuzz: ## throw bytes at all that reads from outside, SECONDS_EACH (60) a target (cargo-fuzz's libFuzzer, no nightly compiler)
	@scripts/fuzz.sh "$${SECONDS_EACH:-60}"

nightly: ## what takes too long for every day: 20,000 simulated seeds, a search of 20,000 nonces with a killed worker
	@scripts/nightly.sh

setup: ## only install what run, check and test need
	@scripts/setup.sh build lint page test

clean: ## remove what was built (data and installed tools stay)
	@rm -rf target web/dist

distclean: clean ## also remove the page's packages and the tools in .tools (data stays)
	@rm -rf .tools web/node_modules tests/browser/node_modules
