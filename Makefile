# TensorFlow's library is installed into the user's cache once. TFBERT_LIBTENSORFLOW names another one.

GO ?= go
BIN := bin/tfbert

.PHONY: demo test build lib grpcurl promtool lint vuln race fuzz soak check-native attack leaks check-versions locks release check-deploy program sbom licences verify bench bench-serve peers quality pictures e2e generate clean

build:
	$(GO) build -o $(BIN) ./cmd/tfbert

# lib installs TensorFlow's library if it is missing.
lib: build
	@$(BIN) lib path >/dev/null 2>&1 || $(BIN) lib install

# demo runs all steps from a TF1 checkpoint to answers and scores.
demo: lib
	$(BIN) demo

# grpcurl builds the tool into Go's build cache, where tests find it. With an empty cache this takes
# minutes, which should not count against a test's time limit.
grpcurl:
	@$(GO) tool -modfile=tools/go.mod -n grpcurl >/dev/null

# promtool builds Prometheus's tool for the tests of deploy/. It has a module of its own, because its dependencies are
# many, and leaves out those by which Prometheus finds servers in clouds.
promtool:
	@$(GO) build -modfile=tools/promtool.mod -tags remove_all_sd -o bin/promtool github.com/prometheus/prometheus/cmd/promtool

# test runs every test; TESTFLAGS=-short leaves out those that take long. TFBERT_SHARED names the folder
# of the SQuAD sets; without it, the tests that need them are skipped. TFBERT_REQUIRE names what must not
# be missing (see internal/testenv). A package takes less than 90 s on two cores; the time limit is
# longer, for a machine that is busy.
TESTFLAGS ?=
test: lib grpcurl promtool
	$(GO) test -timeout 15m $(TESTFLAGS) ./...

race: lib grpcurl promtool
	$(GO) test -race -timeout 30m ./...

# lint runs the linters at their pinned versions (tools/go.mod).
lint:
	test -z "$$(gofmt -l .)"
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...
	$(GO) -C tools vet ./...
	cd tools && $(GO) tool staticcheck ./...

# vuln looks for known vulnerabilities, in a database on the network.
vuln:
	$(GO) tool -modfile=tools/go.mod govulncheck ./...

# check-native tests the native boundary (docs/native.md). NATIVE_FLAGS=--short selects the shorter form
# that CI runs.
check-native: lib
	scripts/check_native.sh $(NATIVE_FLAGS)

# attack floods a server of fake models in the ways of docs/serving.md, and prints the figures. 'make test' runs the same.
attack:
	GO="$(GO)" scripts/attack.sh

# leaks checks that memory does not grow over 100,000 runs, 200 loads and 1,000 failed loads.
leaks: lib
	TFBERT_LEAKS=full $(GO) test -count 1 -run 'TestLeaks$$' -v ./tf

# check-versions runs the library's tests with other versions of TensorFlow, and installs each into the
# cache.
VERSIONS ?= 2.15.1 2.18.1 2.21.0
check-versions: build
	@set -e; for v in $(VERSIONS); do \
	  lib=$$($(BIN) lib install --tf_version $$v); echo "== TensorFlow $$v"; \
	  TFBERT_PYTHON= TFBERT_REQUIRE=tensorflow,model TFBERT_LIBTENSORFLOW=$$lib $(GO) test ./tf ./savedmodel ./tfbert; \
	done

# locks resolves the Python packages of the requirement lists again (pip install uv==0.13.9).
UV_COMPILE = UV_CUSTOM_COMPILE_COMMAND="make locks" uv pip compile --quiet --generate-hashes --no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_28
locks:
	$(UV_COMPILE) --no-emit-package tensorflow -o cmd/tfbert/clienttest/testdata/requirements.txt cmd/tfbert/clienttest/testdata/requirements.in
	$(UV_COMPILE) -o scripts/peers.txt scripts/peers.in

# release makes the archives of a release, for linux/amd64 and linux/arm64, in dist/.
release:
	scripts/release.sh

# check-deploy tests what deploy/ holds and the Dockerfile: the installer, the unit of systemd, the manifests of
# Kubernetes, and the steps of the image, without Docker.
check-deploy:
	TFBERT_DEPLOY=1 $(GO) test -count 1 -timeout 20m -v ./internal/deploytest
	$(GO) -C tools test -count 1 ./manifests

# program builds the command for a release. It contains its commit, and every build with the same Go and C
# compiler has the same bytes (scripts/reproducible.sh).
program:
	GOFLAGS=-mod=readonly CGO_ENABLED=1 $(GO) build -trimpath -buildvcs=true -o $(BIN) ./cmd/tfbert

# sbom lists the contents of a release in CycloneDX format, read from the program itself.
sbom: program
	$(GO) tool -modfile=tools/go.mod cyclonedx-gomod bin -json -std -noserial -notimestamp -output $(BIN).cdx.json $(BIN)

# licences lists the licences of the modules in a release, and fails if one is not allowed.
licences:
	$(GO) -C tools test ./licences
	$(GO) -C tools run ./licences

# verify compares the modules in the cache with go.sum.
verify:
	$(GO) mod verify
	$(GO) mod verify -modfile=tools/go.mod
	$(GO) mod verify -modfile=tools/promtool.mod

# e2e runs the bundled model over the whole of SQuAD 1.1's dev set (about ten minutes), or over every
# sixth question with E2E=slice.
E2E ?= all
e2e: lib
	TFBERT_E2E=$(E2E) TFBERT_REQUIRE=shared,tensorflow $(GO) test ./tfbert -run 'TestEndToEnd|TestDevGolden' -v -timeout 2h

# fuzz runs every fuzz target over a fixed number of inputs.
FUZZTIME ?= 20000x
fuzz: build
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg >bin/fuzz.log 2>&1 || { cat bin/fuzz.log; exit 1; }; \
	  done; done

# soak serves mixed traffic with faults for a while, and looks for leaks and mixed-up answers.
SOAK ?= 5m
soak:
	TFBERT_SOAK=$(SOAK) $(GO) test -run TestSoak -count 1 -v -timeout 1h ./serve

# bench-serve compares the server with the model offline, over the SQuAD set of TFBERT_SHARED.
bench-serve: lib
	python3 scripts/bench_serve.py --data $(TFBERT_SHARED)/data/dev-v1.1.json $(BENCH_SERVE_FLAGS)

bench:
	$(GO) test -run '^$$' -bench . -cpu 1 ./...

# peers runs tfbert, PyTorch, ONNX Runtime, OpenVINO and TensorFlow's Python in turn on the same work. It
# takes about an hour on two cores, with PEERS_FLAGS=--quick less than ten minutes, and 8 GB for a Python
# environment. PEERS_FLAGS are those of scripts/bench_peers.py.
PEERS_ENV ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tfbert/peers
peers: lib $(PEERS_ENV)/peers.txt
	$(PEERS_ENV)/bin/python scripts/bench_peers.py $(PEERS_FLAGS)

$(PEERS_ENV)/peers.txt: scripts/peers.txt
	python3 -m venv $(PEERS_ENV)
	$(PEERS_ENV)/bin/pip install --quiet --require-hashes -r $<
	cp $< $@

# quality scores every graph and precision over SQuAD 1.1's dev set (about 40 minutes).
quality: lib
	python3 scripts/quality.py $(QUALITY_FLAGS)

# pictures draws the pictures of the README from real runs. It needs Chromium.
pictures: lib
	$(GO) run ./scripts/pictures

generate:
	$(GO) generate ./...

clean:
	rm -rf bin dist tfbert-demo
