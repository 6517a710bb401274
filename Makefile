# The library is installed into the user's cache, once; TFBERT_LIBTENSORFLOW names another one.

GO ?= go
BIN := bin/tfbert

.PHONY: demo test build lib grpcurl lint vuln race fuzz soak check-native leaks check-versions locks release sbom licences verify bench bench-serve peers quality pictures e2e generate clean

build:
	$(GO) build -o $(BIN) ./cmd/tfbert

# lib makes sure that there is a TensorFlow library.
lib: build
	@$(BIN) lib path >/dev/null 2>&1 || $(BIN) lib install

# demo runs the whole way from a TF1 checkpoint to answers and scores.
demo: lib
	$(BIN) demo

# grpcurl builds the tool into Go's build cache, from where tests take it: in an empty cache that takes
# minutes, which no test's time limit should hold.
grpcurl:
	@$(GO) tool -modfile=tools/go.mod -n grpcurl >/dev/null

# test runs every test; TESTFLAGS=-short leaves out those that take long. With TFBERT_SHARED set to the
# folder of the SQuAD sets, the tests that need them run too; TFBERT_REQUIRE names what must not be
# missing (see internal/testenv). A package takes less than 90 s on two cores, and the time limit is for
# a machine that has other work.
TESTFLAGS ?=
test: lib grpcurl
	$(GO) test -timeout 5m $(TESTFLAGS) ./...

race: lib grpcurl
	$(GO) test -race -timeout 10m ./...

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

# check-native tries all that goes wrong at a native boundary (docs/native.md); with
# NATIVE_FLAGS=--short the form that CI takes.
check-native: lib
	scripts/check_native.sh $(NATIVE_FLAGS)

# leaks holds memory flat over 100,000 runs, 200 loads and 1,000 failed loads.
leaks: lib
	TFBERT_LEAKS=full $(GO) test -count 1 -run 'TestLeaks$$' -v ./tf

# check-versions runs the library's tests on other versions of TensorFlow, each installed into the cache.
VERSIONS ?= 2.15.1 2.18.1 2.21.0
check-versions: build
	@set -e; for v in $(VERSIONS); do \
	  lib=$$($(BIN) lib install --tf_version $$v); echo "== TensorFlow $$v"; \
	  TFBERT_PYTHON= TFBERT_REQUIRE=tensorflow,model TFBERT_LIBTENSORFLOW=$$lib $(GO) test ./tf ./savedmodel ./tfbert; \
	done

# locks settles the Python packages of the requirement lists anew (pip install uv==0.13.9).
UV_COMPILE = UV_CUSTOM_COMPILE_COMMAND="make locks" uv pip compile --quiet --generate-hashes --no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_28
locks:
	$(UV_COMPILE) --no-emit-package tensorflow -o cmd/tfbert/clienttest/testdata/requirements.txt cmd/tfbert/clienttest/testdata/requirements.in
	$(UV_COMPILE) -o scripts/peers.txt scripts/peers.in

# release builds the command as a release has it: with its commit in it, and the same bytes wherever it is
# built with the same Go and C compiler (scripts/reproducible.sh).
release:
	GOFLAGS=-mod=readonly CGO_ENABLED=1 $(GO) build -trimpath -buildvcs=true -o $(BIN) ./cmd/tfbert

# sbom lists what is in a release, in CycloneDX's form, as read from the program itself.
sbom: release
	$(GO) tool -modfile=tools/go.mod cyclonedx-gomod bin -json -std -noserial -notimestamp -output $(BIN).cdx.json $(BIN)

# licences lists the licences of what is in a release, and refuses those that are not allowed.
licences:
	$(GO) -C tools test ./licences
	$(GO) -C tools run ./licences

# verify compares the modules in the cache with go.sum.
verify:
	$(GO) mod verify
	$(GO) mod verify -modfile=tools/go.mod

# e2e runs the bundled model over the whole of SQuAD 1.1's dev set (about ten minutes), or with E2E=slice
# over every sixth question.
E2E ?= all
e2e: lib
	TFBERT_E2E=$(E2E) TFBERT_REQUIRE=shared,tensorflow $(GO) test ./tfbert -run 'TestEndToEnd|TestDevGolden' -v -timeout 2h

# fuzz gives every fuzz target a fixed number of inputs.
FUZZTIME ?= 20000x
fuzz: build
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg >bin/fuzz.log 2>&1 || { cat bin/fuzz.log; exit 1; }; \
	  done; done

# soak serves mixed traffic with faults for a while and looks for leaks and mixed answers.
SOAK ?= 5m
soak:
	TFBERT_SOAK=$(SOAK) $(GO) test -run TestSoak -count 1 -v -timeout 1h ./serve

# bench-serve measures the server against the model offline, with the SQuAD set of TFBERT_SHARED.
bench-serve: lib
	python3 scripts/bench_serve.py --data $(TFBERT_SHARED)/data/dev-v1.1.json $(BENCH_SERVE_FLAGS)

bench:
	$(GO) test -run '^$$' -bench . -cpu 1 ./...

# peers runs tfbert, PyTorch, ONNX Runtime and TensorFlow's Python on the same work, in turn (an hour on
# two cores, and 8 GB for an environment of their own). PEERS_FLAGS are those of scripts/bench_peers.py.
PEERS_ENV ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tfbert/peers
peers: lib $(PEERS_ENV)/peers.txt
	$(PEERS_ENV)/bin/python scripts/bench_peers.py $(PEERS_FLAGS)

$(PEERS_ENV)/peers.txt: scripts/peers.txt
	python3 -m venv $(PEERS_ENV)
	$(PEERS_ENV)/bin/pip install --quiet --require-hashes -r $<
	cp $< $@

# quality gives the scores of every graph and precision over SQuAD 1.1's dev set (about 40 minutes).
quality: lib
	python3 scripts/quality.py $(QUALITY_FLAGS)

# pictures draws the pictures of the README from real runs, with a Chromium.
pictures: lib
	$(GO) run ./scripts/pictures

generate:
	$(GO) generate ./...

clean:
	rm -rf bin tfbert-demo
