# Everything that is done with this checkout. `make run` and `make test` need nothing but Go, and what test needs it installs.

GO        ?= go
STATE_DIR ?= .state
FUZZTIME  ?= 20s
TOOLS     := $(CURDIR)/.tools
LINT      := $(TOOLS)/golangci-lint-2.15.0
FUMPT     := $(TOOLS)/gofumpt-0.12.0
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.PHONY: build run test lint bench fuzz peers deb container corpus clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/lazaret ./cmd/lazaret

run: build
	./bin/lazaret run --state-dir $(STATE_DIR)

# What the tests talk to: clamd, curl, Chromium, ... from Debian, installed where missing.
peers:
	./scripts/peers

# LAZARET_SOURCES is for go test, which remembers results: those of tests that run the program are true of these sources alone.
test: peers lint build
	LAZARET_SOURCES=$$(find cmd internal go.mod go.sum -type f ! -name '*_test.go' | LC_ALL=C sort | xargs cat | sha256sum | cut -c1-32) \
		$(GO) test -race -timeout 25m ./...

lint: $(LINT) $(FUMPT)
	@out=$$($(FUMPT) -l cmd internal test bench); if [ -n "$$out" ]; then echo "gofumpt would change:"; echo "$$out"; exit 1; fi
	$(LINT) run ./...

$(LINT):
	mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv $(TOOLS)/golangci-lint $@

$(FUMPT):
	mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install mvdan.cc/gofumpt@v0.12.0
	mv $(TOOLS)/gofumpt $@

# Side by side with what people use today; takes about ten minutes. See bench/README.md.
bench: peers build
	$(GO) run ./bench

# The odd and hostile answers of test/corpus, each fetched by every client; in test the clients take turns.
corpus: peers
	$(GO) test -timeout 30m -v ./test/corpus -args -every

# The Debian package, into dist/.
deb: build
	./packaging/deb/build bin/lazaret '$(VERSION)' dist

# The container's image, by buildah or podman, without any other image.
container: build
	./packaging/container/build bin/lazaret lazaret

# Every fuzz target for FUZZTIME.
fuzz:
	./scripts/fuzz $(FUZZTIME)

clean:
	rm -rf bin dist bench/out test/artefacts
