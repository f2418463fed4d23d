# Two commands: `make demo` and `make test`. The rest are their parts.

export CARGO_TARGET_DIR ?= $(CURDIR)/target
PAGE := dashboard/dist/index.html
PAGE_SOURCES := $(wildcard dashboard/*.json dashboard/*.html dashboard/*.ts dashboard/public/* dashboard/src/* dashboard/src/*/*)
TAKTLINE := $(CARGO_TARGET_DIR)/debug/taktline

.PHONY: demo test tools lint unit fuzz page-test browser dashboard bench torture clean

# Builds, runs the demo pipeline, prints the page's address. The dev profile: dependencies are optimised, the build is short.
demo: tools $(PAGE)
	cargo build --locked --workspace --bins
	$(TAKTLINE) demo $(DEMO)

# Everything CI checks, with real brokers and a real browser.
test: tools servers lint page-test unit browser
	@echo "all checks passed"

tools:
	@.ci/require cc build-essential
	@.ci/library openssl libssl-dev
	@.ci/require node nodejs
	@.ci/require npm

.PHONY: servers
servers:
	@.ci/require mosquitto
	@.ci/require java default-jre-headless
	@.ci/kafka >/dev/null
	@.ci/require chromium
	@.ci/require promtool prometheus

lint: $(PAGE)
	cargo fmt --all --check
	.ci/house
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

unit: $(PAGE)
	cargo test --locked --workspace
	cargo build --locked --workspace --bins
	$(CARGO_TARGET_DIR)/debug/torture --taktline $(TAKTLINE) --short

# Changed payloads through every decoder, FUZZ_SECS seconds each; FUZZ_SEED chooses others.
fuzz: $(PAGE)
	cargo test --locked --workspace --lib payloads_changed_for_a_while -- --ignored --nocapture

dashboard: $(PAGE)

dashboard/node_modules/.package-lock.json: dashboard/package-lock.json
	.ci/npm ci --no-audit --no-fund

$(PAGE): dashboard/node_modules/.package-lock.json $(PAGE_SOURCES)
	.ci/npm run --silent build

page-test: $(PAGE)
	.ci/npm run --silent check
	.ci/npm test --silent

# The demo in a real browser: cycles appear, the fault's signal is ranked first, its alert opens.
browser: $(PAGE)
	cargo build --locked --workspace --bins
	.ci/browser $(TAKTLINE)


bench:
	cargo build --locked --release --workspace --bins
	$(CARGO_TARGET_DIR)/release/bench --taktline $(CARGO_TARGET_DIR)/release/taktline

# By hand, for an hour: kills at random times and at every fault point, and what is in history after them (docs/FAULTS.md).
# `make torture SEED=N` repeats one that failed.
RELEASE := $(CARGO_TARGET_DIR)/release
TORTURE := $(RELEASE)/torture --taktline $(RELEASE)/taktline $(if $(SEED),--seed $(SEED))
torture: $(PAGE)
	cargo build --locked --release --workspace --bins
	$(TORTURE) --kills 1000
	$(TORTURE) --kills 200 --processes 3
	$(TORTURE) --kills 300 --failpoints
	$(TORTURE) --kills 200 --mqtt
	$(TORTURE) --kills 100 --mqtt --failpoints
	$(TORTURE) --kills 100 --kafka
	$(TORTURE) --kills 100 --mqtt --kafka
	$(TORTURE) --kills 100 --http --sinks
	$(TORTURE) --kills 100 --mqtt --kafka --http --sinks --failpoints

clean:
	cargo clean
	rm -rf dashboard/dist dashboard/node_modules
