# `make help` lists the targets. Every one works from a clean checkout: scripts/setup.sh installs what
# the machine lacks.

# Where rustup puts cargo when the shell's profile has not been read since.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO := cargo
LOCKED := --locked

.PHONY: help demo build test check lint kernels deploy-check bench bench-peers bench-python bench-gpu fuzz wheel \
	setup fresh-machine

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## import a small NetCDF file, slice it, reduce it, verify it, serve it (a quick build, not an optimised one)
	@scripts/setup.sh build
	$(CARGO) build --profile demo $(LOCKED) -p service -p quarr-tests --bin quarr --bin sample-netcdf
	@QUARR_BIN=target/demo scripts/demo.sh
	@echo 'Built in a hurry. The quarr to work with, optimised: make build'

build: ## the quarr command, optimised, in target/release
	@scripts/setup.sh build
	$(CARGO) build --release $(LOCKED) -p service

test: ## set the machine up, then everything CI runs
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory check

check: lint ## everything CI runs, on a machine that is set up
	scripts/python-package.sh debug
	$(CARGO) test --workspace $(LOCKED) --lib --bins --tests
	$(CARGO) test --workspace $(LOCKED) --doc
	scripts/test-kernels.sh
	QUARR_BIN=target/debug scripts/demo.sh </dev/null
	scripts/test-python.sh target/debug
	scripts/test-deploy.sh target/debug

kernels: ## compile the CUDA kernels into what is committed of them (no GPU needed)
	@scripts/setup.sh test
	scripts/compile-kernels.py

deploy-check: ## everything about deploy/ and terraform/: Helm, checkov, the image in a chroot (root; slow)
	@scripts/setup.sh deploy
	$(CARGO) build --workspace $(LOCKED) --lib --bins
	scripts/test-deploy.sh target/debug -m "long or not long"

lint: ## format, clippy and documentation, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets $(LOCKED) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps $(LOCKED) --document-private-items

bench: ## benchmarks and the long tests, optimised
	@scripts/setup.sh test
	$(CARGO) build --release $(LOCKED) -p service -p quarr-tests --bins
	$(CARGO) build --release $(LOCKED) -p quarr-benches --example peers
	$(CARGO) bench $(LOCKED) -p quarr-benches
	RUSTFLAGS="--cfg quarr_unverified" $(CARGO) bench $(LOCKED) -p quarr-benches \
		--bench verification --target-dir target/unverified
	$(CARGO) test --release $(LOCKED) -p quarr-tests --test it -- --ignored --nocapture
	scripts/python-package.sh release
	scripts/test-python.sh target/release -m long -n 0
	scripts/bench-peers.sh target/release --report benches/RESULTS.md

bench-peers: ## only the comparison with what else reads arrays (PEERS=--quick: a few minutes)
	@scripts/setup.sh test
	$(CARGO) build --release $(LOCKED) -p service --bins
	$(CARGO) build --release $(LOCKED) -p quarr-benches --example peers
	scripts/bench-peers.sh target/release $(if $(PEERS),$(PEERS),--report benches/RESULTS.md)

bench-gpu: ## reductions on this machine's CUDA device, into benches/RESULTS-GPU.md
	@scripts/setup.sh build
	scripts/bench-gpu.sh

fuzz: ## run each fuzz target for 30 seconds, or as many as FUZZ says (needs nightly Rust and cargo-fuzz)
	@scripts/fuzz.sh $(or $(FUZZ),30)

wheel: ## the Python package, for this kind of machine, into target/wheels
	@scripts/setup.sh test
	cd python && $(firstword $(wildcard $(CURDIR)/.venv/*/bin/maturin)) build --release $(LOCKED) --out $(CURDIR)/target/wheels

bench-python: ## the direct mode of the Python package beside others (PEERS=--quick: a minute)
	@scripts/setup.sh test
	scripts/bench-python.sh $(PEERS)

setup: ## only install what building and testing need
	@scripts/setup.sh test

fresh-machine: ## prove demo and test on a bare Debian 12 (root, debootstrap; slow)
	scripts/prove-fresh-machine.sh
