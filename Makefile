# Isthmus: `make lab` shows it, `make test` proves it. Both install what they need from Debian's archive.
SHELL := /bin/bash
CARGO ?= cargo
TARGET ?= $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/release
LAB ?= demo

.PHONY: help build lab test check unit e2e bpf bench fuzz clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## the daemons and meshctl, optimised
	@tests/setup build
	$(CARGO) build --release --locked --bins

lab: ## build, then two clusters, meshed, at a BGP router, and the demo
	@tests/setup lab
	$(CARGO) build --release --locked --bins
	$(BIN)/meshctl lab down --name $(LAB)
	$(BIN)/meshctl lab up --name $(LAB)
	$(BIN)/meshctl lab demo --name $(LAB)

test: ## everything: format, lints, layers, unit, property, replay, namespaces, interop, the demo
	@tests/setup test
	tests/run

check: ## the quick part of `make test`: format, lints, layers, eBPF sums
	@tests/setup test
	tests/run check

bpf: ## rebuild the eBPF object from its sources
	bpf/build

bench: ## side-by-side benchmarks; prints ratios with their spread
	@tests/setup test
	$(CARGO) build --release --locked --bins
	benches/run

fuzz: ## each fuzz target for a minute (needs nightly and cargo-fuzz)
	fuzz/run

clean: ## what the build made
	$(CARGO) clean
