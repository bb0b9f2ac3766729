# Everything a fresh Debian machine with Go and Python needs is set up by the
# targets themselves. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# gVisor starts copies of fsbd in an empty root, so it must be a static program.
export CGO_ENABLED := 0
export FSB_TEST_CACHE ?= $(CURDIR)/.cache
GO_FILES := $(shell git ls-files -co --exclude-standard '*.go' 2>/dev/null) go.mod go.sum
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: build
build: bin/fsbd bin/fsb ## Build bin/fsbd (the daemon) and bin/fsb (the command line).

bin/fsbd: $(GO_FILES)
	go build -ldflags '$(LDFLAGS)' -o $@ ./cmd/fsbd

bin/fsb: $(GO_FILES)
	go build -ldflags '$(LDFLAGS)' -o $@ ./cmd/fsb

.PHONY: demo
demo: build ## Start the daemon on embedded gVisor and run the quick start on a real image.
	./demo/run.sh

.PHONY: test
test: ## Everything that CI checks, with its own set-up.
	./test/run.sh

.PHONY: lint
lint: ## go vet, golangci-lint, govulncheck, shellcheck, generated files, mypy.
	./test/run.sh lint

.PHONY: bench
bench: build ## Measure this and its alternatives in one interleaved run.
	go run ./bench

.PHONY: generate
generate: ## Make generated code, golden files and reference pages anew.
	./proto/generate.sh
	go test ./internal/config ./internal/api/... ./cmd/fsb -update

.PHONY: clean
clean: ## Remove what was built here, caches included.
	rm -rf bin .cache
