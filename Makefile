# What one does here. `make help` lists it; CONTRIBUTING.md tells the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# What the binaries call themselves. Without it, what the Go tool finds in git.
VERSION ?=
# Nodes of the local cluster.
NODES ?= 3
# Tiers of tests that `make test` leaves out, by name.
SKIP_TIERS ?=
# More flags for every `go test`, such as TESTFLAGS='-run TestDrain -v'.
TESTFLAGS ?=

# A file for what Ginkgo reports of each spec.
SPECS ?=

# The packages beside the code that have benchmarks.
PURE_BENCHMARKS = $$(git grep -l '^func Benchmark' -- 'internal/*_test.go' 'agent/*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|')
CLUSTER := hack/cluster/cluster
# Packages that start no goroutine and share nothing (the linter sees to it): the race detector has nothing to find there,
# and makes their properties and histories ten times as slow.
PURE := $(addsuffix /...,$(addprefix ./internal/,ipam model nft paths plan policy) ./agent/diff)

##@ General

.PHONY: help
help: ## Show this.
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: clean
clean: ## Remove what the targets below build in this tree.
	rm -rf bin

##@ Develop

.PHONY: generate
generate: ## Make everything that is made from API types and markers.
	@controller_gen=$$(hack/tools/build.sh controller-gen)
	crd_ref_docs=$$(hack/tools/build.sh crd-ref-docs)
	set -x
	rm -rf api/v1alpha1/applyconfiguration config/crd/bases
	"$$controller_gen" object:headerFile=hack/boilerplate.go.txt \
		applyconfiguration:headerFile=hack/boilerplate.go.txt paths=./api/v1alpha1
	"$$controller_gen" crd paths=./api/v1alpha1 output:crd:dir=config/crd/bases
	mkdir -p docs/reference
	"$$crd_ref_docs" --log-level=WARN --renderer=markdown --config=hack/tools/crd-ref-docs.yaml \
		--source-path=api/v1alpha1 --output-path=docs/reference/api.md
	hack/tools/chart-crds.sh
	"$$controller_gen" rbac:roleName=podnet-manager paths=./controllers/... output:rbac:dir=config/rbac
	hack/deploy-manifests.sh

.PHONY: fmt
fmt: ## Format the Go code and sort its imports.
	"$$(hack/tools/build.sh golangci-lint)" fmt

.PHONY: lint
lint: ## Run the linters, the import rules among them.
	"$$(hack/tools/build.sh golangci-lint)" run

.PHONY: verify
verify: ## Check generated files, modules, lint, scripts, chart; changes nothing.
	hack/verify.sh

.PHONY: vulncheck
vulncheck: ## Look the dependencies up in the Go vulnerability database (needs the internet).
	hack/vulncheck.sh

##@ Build

.PHONY: build
build: ## Build every command into bin/.
	CGO_ENABLED=0 go build -ldflags="-X github.com/podnet/podnet/internal/version.Version=$(VERSION)" -o bin/ ./cmd/...

.PHONY: image
image: ## Build the container image.
	hack/make-image.sh

.PHONY: release-check
release-check: ## Make all that a release has, here, and look at it; pushes nothing.
	hack/release-check.sh

##@ Test

.PHONY: deps
deps: ## Install the Debian packages that verify and test need (as root).
	hack/deps.sh

.PHONY: test
test: deps ## Run every tier below; SKIP_TIERS="netns cluster" leaves tiers out.
	@go build -o bin/tiers ./hack/tiers
	exec bin/tiers -skip "$(SKIP_TIERS)"

.PHONY: test-unit
test-unit: ## Tests that need nothing but Go (and gcc, for the race detector).
	@hack/tools/need.sh gcc
	pure=$$(go list $(PURE))
	others=$$(go list ./... | grep -v /test/ | grep -vxF "$$pure")
	failed=0
	set -x
	go test $(TESTFLAGS) $(PURE) || failed=1
	CGO_ENABLED=1 go test -race $(TESTFLAGS) $$others || failed=1
	exit $$failed

.PHONY: test-envtest
test-envtest: ## Tests against an API server and etcd.
	@KUBEBUILDER_ASSETS=$$($(CLUSTER) envtest-assets)
	export KUBEBUILDER_ASSETS
	failed=0
	set -x
	go test -count=1 $(TESTFLAGS) ./test/envtest/lifeline || failed=1
	go test -count=1 -timeout=30m $(TESTFLAGS) ./test/envtest $(SPECS:%=-ginkgo.json-report=%) || failed=1
	exit $$failed

.PHONY: test-netns
test-netns: ## Tests against the kernel, in network namespaces (as root).
	go test -count=1 -timeout=30m $(TESTFLAGS) ./test/netns/...

.PHONY: test-bench
test-bench: ## Every benchmark once, at its smallest size: that it works (as root).
	@KUBEBUILDER_ASSETS=$$($(CLUSTER) envtest-assets)
	export KUBEBUILDER_ASSETS
	pure=$(PURE_BENCHMARKS)
	set -x
	go test -short -run='^$$' -bench=. -benchtime=1x $(TESTFLAGS) $$pure
	go test -short -run='^$$' -bench=. -benchtime=1x $(TESTFLAGS) ./test/bench/...

.PHONY: test-cluster
test-cluster: image ## Tests on a cluster of their own, with NODES=3 nodes (as root); KEEP=1 leaves it up.
	@export CLUSTER_NAME=$${CLUSTER_NAME:-podnet-test} NODES=$(NODES)
	$(CLUSTER) down
	[[ -n "$${KEEP:-}" ]] || trap '$(CLUSTER) down' EXIT
	$(CLUSTER) up
	set -x
	go test -count=1 -timeout=60m $(TESTFLAGS) ./test/cluster $(SPECS:%=-ginkgo.json-report=%)

.PHONY: bench
bench: ## Benchmarks, in tables, as root (docs/benchmarks.md).
	@KUBEBUILDER_ASSETS=$$($(CLUSTER) envtest-assets)
	export KUBEBUILDER_ASSETS
	pure=$(PURE_BENCHMARKS)
	{
		go test -run='^$$' -bench=. -benchmem -timeout=30m $(TESTFLAGS) $$pure
		go test -run='^$$' -bench=. -benchtime=1x -timeout=30m $(TESTFLAGS) ./test/bench/...
	} | go run ./hack/bench

.PHONY: conformance
conformance: ## The conformance specs of Kubernetes that are about networks (as root).
	hack/conformance.sh

##@ Local cluster

.PHONY: cluster-up
cluster-up: ## Start a cluster of NODES=3 nodes, namespaces on this machine (as root).
	NODES=$(NODES) $(CLUSTER) up

.PHONY: cluster-down
cluster-down: ## Stop it and remove what it left.
	$(CLUSTER) down

.PHONY: cluster-shell
cluster-shell: ## Open a shell with kubectl set up for it.
	$(CLUSTER) shell

.PHONY: quickstart
quickstart: ## A cluster with podnet on it, from nothing (as root).
	hack/quickstart.sh
