# Everything that a person or CI does with this repository.
GO ?= go
FUZZTIME ?= 20000x

.PHONY: all jackdaw demo test unit lint fuzz bench pgo bench-certs servers dist deb image boot-test clean

all: jackdaw

# What is only tested or looked at need not be compiled once more for cmd/jackdaw/default.pgo.
test unit lint fuzz: export GOFLAGS += -pgo=off

# Go knows by itself whether something has changed.
jackdaw:
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./cmd/jackdaw

# Two stores in memory, a throw-away CA and jackdaw in front of them. Ctrl-C ends it.
demo: jackdaw
	./jackdaw demo

# The whole suite. Where the real servers can be installed, they are, and the integration tests run against them.
# Results are not taken from the cache: it does not know what is installed.
test: servers
	$(GO) test -race -count=1 -timeout 25m ./...

# The suite without the real servers.
unit:
	$(GO) test -race $$($(GO) list ./... | grep -v /integration)

servers:
	integration/install-servers.sh

lint:
	@test -z "$$(gofmt -l .)" || { echo "gofmt is needed on:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	.ci/govulncheck

# Each fuzz test for a number of runs, beyond its seeds; a time, such as FUZZTIME=10s, is taken, too.
fuzz:
	.ci/fuzz $(FUZZTIME)

# jackdaw beside the proxies that it replaces, under the same load; see docs/performance.md. BENCH takes flags.
bench: jackdaw servers
	$(GO) run ./integration/bench $(BENCH)

# The profile by which the compiler knows what jackdaw does most: the work of the bench that costs processor time.
pgo: jackdaw
	rm -rf .cache/pgo
	$(GO) run ./integration/bench -jackdaw ./jackdaw -only none -rounds 1 -modes hs,login,noop-64,down-8,up-8 \
		-profiles .cache/pgo
	$(GO) tool pprof -proto .cache/pgo/*.pprof >.cache/pgo/all
	mv .cache/pgo/all cmd/jackdaw/default.pgo

# jackdaw beside HAProxy with thousands of certificates, in about ten minutes; see docs/benchmarks.md. BENCH takes flags.
bench-certs: jackdaw servers
	$(GO) run ./integration/benchcerts $(BENCH)

# What is released: static binaries with checksums and bills of materials; and Debian's packages of those for Linux.
dist:
	packaging/dist dist

deb: dist
	packaging/deb dist

# A container's image of the program alone.
image: dist
	packaging/image dist

# The package on a Debian of its own, whose first process is systemd; see docs/install.md.
boot-test:
	packaging/boot-test

clean:
	rm -f jackdaw
	rm -rf dist
