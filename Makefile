# `make help` lists the targets. Every one works from a clean checkout: scripts/setup.sh installs what
# the machine lacks.

# Where rustup puts cargo when the shell's profile has not been read since.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO := cargo
LOCKED := --locked

.PHONY: help demo test check lint bench setup fresh-machine

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## import a small NetCDF file, slice it, reduce it, verify it, serve it
	@scripts/setup.sh build
	$(CARGO) build --release $(LOCKED) -p service -p quarr-tests --bins
	@QUARR_BIN=target/release scripts/demo.sh

test: ## set the machine up, then everything CI runs
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory check

check: lint ## everything CI runs, on a machine that is set up
	$(CARGO) build $(LOCKED) -p service -p quarr-tests --bins
	$(CARGO) test --workspace $(LOCKED)
	QUARR_BIN=target/debug scripts/demo.sh </dev/null
	scripts/test-python.sh target/debug

lint: ## format, clippy and documentation, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets $(LOCKED) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps $(LOCKED) --document-private-items

bench: ## benchmarks and the long tests, optimised
	@scripts/setup.sh test
	$(CARGO) build --release $(LOCKED) -p service -p quarr-tests --bins
	$(CARGO) bench $(LOCKED) -p quarr-benches
	$(CARGO) test --release $(LOCKED) -p quarr-tests --test it -- --ignored --nocapture
	scripts/test-python.sh target/release -m long

setup: ## only install what building and testing need
	@scripts/setup.sh test

fresh-machine: ## prove demo and test on a bare Debian 12 (root, debootstrap; slow)
	scripts/prove-fresh-machine.sh
