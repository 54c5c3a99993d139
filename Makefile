# Tulle. `make` lists the targets; each is short enough to be run by hand.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILD   := go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"
LAB     := bin/tulle lab run --hosts 3 --containers 2 --family dual

TULLE_SOAK ?= 1h

# What is tested is what ships: static binaries, made without a C compiler.
export CGO_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help demo build test sim test-web test-docker test-vm chaos soak race fuzz check fmt vet fix staticcheck tidy arch lab generate bench bench-path bench-scale clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: need-netns build ## three hosts with two containers each, over VXLAN and over host-gw, IPv4 and IPv6
	$(LAB) --backend vxlan
	$(LAB) --backend host-gw
	@echo PASS

build: need-go ## static binaries in bin/
	@mkdir -p bin
	$(BUILD) -o bin/ ./cmd/...

test: ## every test, in network namespaces and against a real etcd
	@hack/need go root ip iptables nft systemd-networkd chromium-headless-shell
	@echo '# 1 of 3: go vet, a minute at most'
	go vet ./...
	@echo '# 2 of 3: the tests, some four fifths of the time, three at once on two cores, for they mostly wait, those that take longest first'
	hack/test -p=$$(($$(nproc) + 1)) -count=1 -timeout=30m ./internal/lab ./ip/kernel/fastpath ./subnet/etcd ./...
	@echo '# 3 of 3: whole agents in memory, half as many seeds as make sim, some fifth of the time'
	@$(MAKE) --no-print-directory sim SEEDS=$(or $(SEEDS),1000)

sim: need-go ## whole agents in memory through 2,000 seeds of faults; SEED=n replays one, SEEDS=n runs so many, FIRST=n from there
	TULLE_SIM_SEED=$(SEED) TULLE_SIM_SEEDS=$(or $(SEEDS),2000) TULLE_SIM_FIRST=$(FIRST) hack/test -count=1 -timeout=40m $(if $(SEED),-v) -run '^TestSeeds$$' ./internal/sim

test-web: ## the part of them that clicks through the page in a real browser; pictures of it are in bin/web, and it is held to its time
	@hack/need go chromium-headless-shell
	TULLE_WEB_QUICK=1 TULLE_WEB_SCREENSHOTS=$(CURDIR)/bin/web go test -count=1 -timeout=10m ./internal/web/...

test-docker: ## the part of them that runs real Dockers
	@hack/need go root ip iptables dockerd busybox nsenter
	go test -count=1 -timeout=10m ./internal/docker/...

test-vm: ## what needs another kernel: ipip, and the fast path without tcx, on Debian's in a virtual machine without hardware's help
	@hack/need go qemu-system-x86_64 dpkg-deb
	hack/vm-kernel bin/vm
	TULLE_VM_KERNEL=$(CURDIR)/bin/vm go test -tags vm -count=1 -v -timeout=15m ./internal/lab/vmtest

chaos: ## the part of them that breaks real parts under traffic; the report is bin/chaos.md
	@hack/need go root ip nft systemd-networkd
	@mkdir -p bin
	TULLE_CHAOS_REPORT=$(CURDIR)/bin/chaos.md go test -count=1 -v -timeout=10m ./internal/chaos

soak: ## the same in random order for TULLE_SOAK, 1h unless told otherwise; TULLE_SOAK_SEED=n repeats one
	@hack/need go root ip nft systemd-networkd
	@mkdir -p bin
	TULLE_SOAK=$(TULLE_SOAK) TULLE_CHAOS_REPORT=$(CURDIR)/bin/soak.md go test -count=1 -v -timeout=0 ./internal/chaos

race: ## every test under the race detector, and with it the daemon that they run
	@hack/need go root ip iptables nft systemd-networkd chromium-headless-shell gcc
	hack/race

fuzz: need-go ## every parser for FUZZTIME each, 30s unless told otherwise
	hack/fuzz $(FUZZTIME)

check: fmt vet fix staticcheck tidy arch ## what a change must pass besides the tests

fmt: need-go
	@bad=$$(gofmt -l .) && [ -z "$$bad" ] || { printf 'gofmt -w would change:\n%s\n' "$$bad"; exit 1; }

vet: need-go
	go vet ./...
	go vet -tags flanneld ./internal/lab
	go vet -tags vm ./internal/lab/vmtest
	GOOS=darwin go vet ./...

fix: need-go
	go fix -diff ./...

staticcheck: need-go
	go tool staticcheck ./...

tidy: need-go
	go mod tidy -diff

arch: need-go
	go test -count=1 ./internal/archtest

lab: need-root build ## a lab to play with, until `bin/tulle lab down`
	bin/tulle lab up --hosts 3 --containers 2 --family dual
	@echo 'Try: bin/tulle lab exec h1 -- tulle status. A container: bin/tulle lab exec h1/c1 -- sh. Remove it all: bin/tulle lab down.'

generate: ## rewrite generated files, the programs of the fast path among them: with clang, which it installs on Debian
	@hack/need go clang llvm-strip /usr/include/bpf/bpf_helpers.h
	go generate ./...

bench: need-root ## every benchmark
	go test -run='^$$' -bench=. -benchmem -timeout=20m ./...

bench-path: need-root build ## what docs/performance.md quotes, into docs/bench, beside FLANNELD=/path/to/flanneld; in some hour
	hack/bench-path $(or $(FLANNELD),$(error FLANNELD is empty: name a flanneld, as in make bench-path FLANNELD=/usr/local/bin/flanneld))

bench-scale: need-root build ## what docs/scale.md quotes, into docs/bench; in some 50 minutes
	hack/bench

clean: ## remove what was built
	rm -rf bin

need-%:
	@hack/need go $*
