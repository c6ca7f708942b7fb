# make demo   boots three machines and shows the main job
# make test   every test, on real systemd, etcd, podman
# make check  the quick gate: fmt, clippy, docs, unit and simulation tests, the fuzzers for a short while
# make soak   the long trials: thousands of simulated clusters, fuzzing, a long outage; an hour and more
# make fuzz   the fuzzers alone, FUZZ_SECONDS=60
# make man    man pages and shell completions, into target/dist
# make deb    the Debian packages fleetd and fleetctl, into target/deb
# make sim    SEEDS=N BASE=B: simulated clusters, seeds B to B+N-1; KEEP= and PLANTED= as a failure prints them
# make bench  the figures of docs/performance.md
# Each installs what it needs (Debian packages, as root) before it starts. A part that failed keeps no other from running with
# `make --keep-going`; `make check test` runs what both have once.

CARGO ?= cargo
FUZZ_SECONDS ?= 60
STEP := @bash tests/step.sh
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Every test program is in one of these: those that boot hosts or need a server of their own, one that takes minutes and needs no
# clock, and the others.
HOST_TESTS := $(basename $(notdir $(wildcard tests/tests/*)))
UNIT_TESTS := $(filter-out planted,$(basename $(notdir $(wildcard fleetd/tests/* fleetctl/tests/* tests/fuzz/tests/* tests/sim/tests/*))))

.PHONY: all demo test check soak fuzz man deb bench setup packages sim
.PHONY: fmt pages clippy docs programs tests unit planted hosts short-sim short-fuzz

all:
	$(CARGO) build --workspace

# Only what compiling needs; the lab's packages and image are `setup`.
packages:
	@sh tests/lab/setup.sh --packages-only >/dev/null

setup:
	@sh tests/lab/setup.sh >/dev/null

demo: setup
	@bash tests/demo.sh

# DONE= names parts that have been run already, as .ci/run has.
check: $(filter-out $(DONE),fmt pages clippy docs unit planted short-sim short-fuzz)

test: $(filter-out $(DONE),unit planted hosts)

fmt:
	$(STEP) fmt $(CARGO) fmt --all --check

pages:
	$(STEP) pages sh tests/docs.sh

clippy: packages
	$(STEP) clippy $(CARGO) clippy --workspace --all-targets -- -D warnings

docs: packages
	$(STEP) docs env RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

# Always the whole workspace: a part of it would have other features of its dependencies, and build them once more.
programs: packages
	$(STEP) "build programs" $(CARGO) build --workspace --bins

# Where cargo put each test program is kept for tests/hosts.sh.
tests: $(filter-out $(DONE),programs)
	$(STEP) "build tests" bash -o pipefail -c \
		'$(CARGO) test --workspace --lib --bins --tests --no-run 2>&1 | tee $(TARGET)/test-programs >&2'

unit: $(filter-out $(DONE),tests)
	$(STEP) "unit tests" $(CARGO) test --no-fail-fast --workspace --lib --bins $(UNIT_TESTS:%=--test %)

planted: $(filter-out $(DONE),tests)
	$(STEP) "planted bugs" $(CARGO) test --workspace --test planted

hosts: setup $(filter-out $(DONE),tests)
	$(STEP) "tests on hosts" env FLEET_TEST_ETCD="$$(sh tests/lab/setup.sh)/root/usr/bin/etcd" bash tests/hosts.sh $(TARGET)/test-programs $(HOST_TESTS)

short-sim: $(filter-out $(DONE),programs)
	$(STEP) simulation $(TARGET)/debug/fleet-sim --seeds 200 --base 1

short-fuzz: packages
	$(STEP) fuzz bash tests/fuzz.sh 20

soak: setup programs tests
	$(STEP) simulation $(TARGET)/debug/fleet-sim --seeds $(or $(SEEDS),3000) --base $(or $(BASE),1)
	$(STEP) fuzz bash tests/fuzz.sh 600
	$(STEP) "outage of ten minutes" env FLEET_TEST_OUTAGE_S=600 $(CARGO) test --workspace --test faults control_plane

fuzz: packages
	@bash tests/fuzz.sh $(FUZZ_SECONDS)

# target/dist/man/*.[158]; target/dist/completions/fleetctl (bash), _fleetctl (zsh), fleetctl.fish.
man: packages
	$(CARGO) run --quiet --package fleet-tests --bin man target/dist

# target/deb/fleetd_*.deb and fleetctl_*.deb, and nothing of an earlier version.
deb: packages
	$(CARGO) build --release --package fleetd --package fleetctl --package fleet-tests \
		$$(sh packaging/deb.sh --programs | sed 's/[^ ]*/--bin &/g')
	@rm -rf target/deb
	@sh packaging/deb.sh $(TARGET)/release target/deb

sim: packages
	$(CARGO) build --quiet --workspace --bin fleet-sim
	$(TARGET)/debug/fleet-sim --seeds $(or $(SEEDS),300) --base $(or $(BASE),1) $(if $(KEEP),--keep $(KEEP)) $(if $(PLANTED),--planted $(PLANTED))

bench: setup
	@bash tests/bench.sh
