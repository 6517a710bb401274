# The library is installed into the user's cache, once; TFBERT_LIBTENSORFLOW names another one.

GO ?= go
BIN := bin/tfbert

.PHONY: demo test build lib lint vuln race fuzz bench e2e generate clean

build:
	$(GO) build -o $(BIN) ./cmd/tfbert

# lib makes sure that there is a TensorFlow library.
lib: build
	@$(BIN) lib path >/dev/null 2>&1 || $(BIN) lib install

# demo runs the whole way from a TF1 checkpoint to answers and scores.
demo: lib
	$(BIN) demo

# test runs every test. With TFBERT_SHARED set to the folder of the SQuAD sets, the tests that need
# them run too; TFBERT_REQUIRE names what must not be missing (see internal/testenv).
test: lib
	TFBERT_E2E=$${TFBERT_SHARED:+slice} $(GO) test ./...

race: lib
	$(GO) test -race ./...

# lint runs the linters at their pinned versions (tools/go.mod).
lint:
	test -z "$$(gofmt -l .)"
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...

# vuln looks for known vulnerabilities, in a database on the network.
vuln:
	$(GO) tool -modfile=tools/go.mod govulncheck ./...

# e2e runs the bundled model over the whole of SQuAD 1.1's dev set (about ten minutes).
e2e: lib
	TFBERT_E2E=all TFBERT_REQUIRE=shared,tensorflow $(GO) test ./tfbert -run TestEndToEnd -v -timeout 2h

# fuzz gives every fuzz target a fixed number of inputs.
FUZZTIME ?= 20000x
fuzz: build
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg >bin/fuzz.log 2>&1 || { cat bin/fuzz.log; exit 1; }; \
	  done; done

bench:
	$(GO) test -run '^$$' -bench . -cpu 1 ./...

generate:
	$(GO) generate ./...

clean:
	rm -rf bin tfbert-demo
