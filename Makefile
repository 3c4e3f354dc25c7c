# Each target is a line or two; what they need of Debian they install themselves (root).

# rustup's toolchain, also under sudo.
export PATH := $(PATH):$(HOME)/.cargo/bin

CARGO := cargo
LAB := target/debug/lab
TOPOLOGY ?= four-nodes
NODE ?= n1
ROWS ?=
ARCHITECTURES ?=

.PHONY: help demo test test-core e2e kubernetes bench lab lab-shell lab-down cluster cluster-shell cluster-down build image release lab-cluster-image lab-image check lint fmt deny doc schema setup

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

demo: build ## four nodes in two subnets, every pair's path, proven reachability
	@$(LAB) demo

test: setup kubernetes lab-cluster-image ## every test, with the real kernel, etcd, API server and cluster; ends with the counts
	@integration/test.sh

test-core: setup ## what needs only Debian's packages and cargo: no etcd, no API server, no cluster
	@CORE=1 integration/test.sh

bench: setup ## speed beside the kernel's limit and others, half an hour: make bench ROWS="programming churn", ROWS=smoke
	@$(CARGO) build --locked --release --package node-agent --package integration --bins
	@target/release/lab bench $(if $(filter smoke,$(ROWS)),--smoke $(filter-out smoke,$(ROWS)),$(ROWS))

e2e: setup kubernetes lab-cluster-image ## the tests of a whole Kubernetes cluster alone
	@integration/test.sh --test it -- --include-ignored kubernetes::a_whole_cluster

kubernetes: ## etcd, Kubernetes and Helm for the tests, built from their Go modules if they are missing
	@integration/setup.sh containerd runc containernetworking-plugins busybox-static conntrack iptables curl
	@integration/kubernetes/programs.sh
	@integration/kubernetes/images.sh

lab: build ## bring a topology up and leave it: make lab TOPOLOGY=two-nodes
	@$(LAB) up $(TOPOLOGY)

lab-shell: ## a shell in a node of the lab: make lab-shell NODE=n1
	@$(LAB) shell $(NODE)

lab-down: ## end what `make lab` has left
	@$(LAB) down

cluster: build kubernetes lab-cluster-image ## a whole Kubernetes cluster with Pairway in it: `target/debug/lab kubectl get nodes`
	@$(LAB) cluster

cluster-shell: ## a shell in a node of the cluster: make cluster-shell NODE=n1
	@$(LAB) shell --lab kubernetes $(NODE)

cluster-down: ## end what `make cluster` has left
	@$(LAB) down kubernetes

build: setup ## the agent and the lab
	@$(CARGO) build --locked --package node-agent --package integration --bins

image: setup ## target/pairway.tar, the agent's image for `ctr images import`
	@integration/setup.sh ca-certificates jq git
	@integration/image.sh target/pairway.tar

lab-cluster-image: setup ## the same with the profile of the tests and of the build after it, for the cluster in the lab
	@integration/setup.sh ca-certificates jq git
	@integration/image.sh target/debug/pairway.tar "" dev
	@integration/image.sh target/debug/pairway-next.tar "" dev pairway-next

release: setup ## target/pairway-VERSION.tar for sites without a network: make release ARCHITECTURES="amd64 arm64"
	@integration/setup.sh ca-certificates jq git
	@integration/release.sh target $(ARCHITECTURES)

lab-image: build ## target/pairway-lab.tar for containerlab
	@integration/setup.sh mmdebstrap
	@integration/lab-image.sh target/debug/pairway target/pairway-lab.tar

check: ## the layers: pure parts build without sockets, dependencies point one way
	$(CARGO) check --locked --quiet --package bgp --package vxlan --no-default-features
	integration/layers.sh

lint: check ## formatting, clippy, layers, shell scripts
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --quiet --workspace --all-targets -- -D warnings
	bash -n .ci/run integration/*.sh integration/kubernetes/*.sh integration/vm/run.sh
	if command -v shellcheck >/dev/null; then shellcheck --severity=warning .ci/run integration/*.sh integration/kubernetes/*.sh integration/vm/*; fi

fmt: ## format the sources
	$(CARGO) fmt --all

deny: ## licences, bans and sources of the dependencies
	$(CARGO) deny --locked check --allow unused-wrapper bans licenses sources

doc: ## the crates' documentation, with no broken link
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --quiet --workspace --no-deps

schema: ## write what is generated anew: schemas, reference pages, error texts
	UPDATE_EXPECT=1 $(CARGO) test --locked --quiet --package config --package node-agent

setup: # the Debian packages, if some are missing
	@integration/setup.sh
