# make demo    real HTTP across the appliance, its servers swapped under load, a pair that fails over (root; about a minute)
# make test    everything that proves the project (the lab tests need root)
# make bench   the measurements of docs/performance.md
# make deb     the Debian package, into target/deb
# make fuzz    the fuzzers, for a while

CARGO ?= cargo
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

BUILD_TOOLS := cc=gcc
LAB_TOOLS := nginx=nginx-light|nginx ethtool=ethtool setpriv=util-linux
TEST_TOOLS := $(LAB_TOOLS) ip=iproute2 haproxy=haproxy keepalived=keepalived squid=squid tcpdump=tcpdump unbound=unbound \
    dig=bind9-dnsutils chromium=chromium systemctl=systemd
XDP_TOOLS := clang=clang llvm-strip=llvm llvm-objdump=llvm

.PHONY: deb demo test bench fuzz root lint unit xdp-objects licences short-demo

demo: root
	@.ci/need $(BUILD_TOOLS) '$(subst $() ,' ',$(LAB_TOOLS))'
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: https://rustup.rs"; exit 1; }
	$(CARGO) build --release --locked --bin evenkeel
	@target/release/evenkeel lab demo

test: lint xdp-objects licences unit short-demo
	@echo "make test: everything passed"

lint:
	@.ci/need $(BUILD_TOOLS)
	$(CARGO) fmt --check
	@# Their modules come from a list that only the compiler reads.
	rustfmt --check --edition 2024 src/dataplane/schedule/*.rs
	$(CARGO) clippy --locked --all-targets -- -D warnings

# The committed XDP objects must be what their sources build to.
xdp-objects:
	@.ci/need $(XDP_TOOLS)
	src/dataplane/xdp/build.sh --check

licences:
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
	    echo "SKIPPED: licences and advisories: cargo-deny is not installed (cargo install --locked cargo-deny)"; \
	elif $(CARGO) deny fetch >/dev/null 2>&1; then $(CARGO) deny check; \
	else \
	    echo "SKIPPED: advisories: their database cannot be fetched"; \
	    $(CARGO) deny check licenses bans sources; \
	fi

unit: lint
	@.ci/need '$(subst $() ,' ',$(TEST_TOOLS))' || { [ -z "$$CI" ] || exit 1; echo "the lab tests will be skipped"; }
	$(CARGO) test --locked --no-fail-fast

# The program that the tests built, in the demo's shortest form.
short-demo: unit
	@if [ "$$(id -u)" = 0 ]; then target/debug/evenkeel lab demo --short; \
	elif [ -n "$$CI" ]; then echo "the demo needs root"; exit 1; \
	else echo "SKIPPED: the demo needs root"; fi

bench:
	bench/run.sh

deb:
	$(CARGO) build --release --locked --bin evenkeel
	packaging/deb/build.sh target/release/evenkeel

fuzz:
	fuzz/run.sh

root:
	@[ "$$(id -u)" = 0 ] || { \
	    echo "The demo makes network namespaces, which needs root: sudo -E env PATH=\"$$PATH\" make demo"; exit 1; }
