# make demo   boots three machines and shows the main job
# make test   every test, on real systemd, etcd, podman
# make check  the quick gate: fmt, clippy, docs, unit and simulation tests, a minute of two fuzzers
# make fuzz   the fuzzers alone, FUZZ_SECONDS=60
# make man    man pages and shell completions, into target/dist
# make deb    the Debian packages fleetd and fleetctl, into target/deb
# make sim    SEEDS=N BASE=B: simulated clusters, seeds B to B+N-1; KEEP= and PLANTED= as a failure prints them
# make bench  the figures of docs/performance.md
# Each installs what it needs (Debian packages, as root) before it starts.

CARGO ?= cargo
FUZZ_SECONDS ?= 60
STEP := @sh tests/step.sh
.PHONY: all demo test check fuzz man deb bench setup packages sim

all:
	$(CARGO) build --workspace

# Only what compiling needs; the lab's packages and image are `setup`.
packages:
	@sh tests/lab/setup.sh --packages-only >/dev/null

setup:
	@sh tests/lab/setup.sh >/dev/null

demo: setup
	@bash tests/demo.sh

check: packages
	$(STEP) fmt $(CARGO) fmt --all --check
	$(STEP) clippy $(CARGO) clippy --workspace --all-targets -- -D warnings
	$(STEP) docs env RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	$(STEP) "unit tests" $(CARGO) test --package fleet-core --package fleet-tls --package fleetd --package fleetctl --package fleet-fuzz --package fleet-sim --lib --bins --tests
	$(STEP) simulation $(MAKE) --no-print-directory sim SEEDS=300
	$(STEP) fuzz bash tests/fuzz.sh $(FUZZ_SECONDS)

fuzz: packages
	@bash tests/fuzz.sh $(FUZZ_SECONDS)

test: setup
	$(STEP) "build programs" $(CARGO) build --workspace --bins
	$(STEP) "build tests" $(CARGO) test --workspace --lib --bins --tests --no-run
	$(STEP) "all tests" env FLEET_TEST_ETCD="$$(sh tests/lab/setup.sh)/root/usr/bin/etcd" $(CARGO) test --workspace --lib --bins --tests -- --test-threads=2

# target/dist/man/*.[18]; target/dist/completions/fleetctl (bash), _fleetctl (zsh), fleetctl.fish.
man: packages
	$(CARGO) run --quiet --package fleet-tests --bin man target/dist

# target/deb/fleetd_*.deb and fleetctl_*.deb, and nothing of an earlier version.
deb: packages
	$(CARGO) build --release --package fleetd --package fleetctl --package fleet-tests \
		$$(sh packaging/deb.sh --programs | sed 's/[^ ]*/--bin &/g')
	@rm -rf target/deb
	@sh packaging/deb.sh $${CARGO_TARGET_DIR:-target}/release target/deb

sim: packages
	$(CARGO) run --quiet --package fleet-sim -- --seeds $(or $(SEEDS),300) --base $(or $(BASE),1) $(if $(KEEP),--keep $(KEEP)) $(if $(PLANTED),--planted $(PLANTED))

bench: setup
	@bash tests/bench.sh
