# Hutch. `make demo` and `make test` do all their own set-up on a Debian
# machine with Go; everything else is for working on Hutch.

export CGO_ENABLED := 0
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

.DEFAULT_GOAL := bin
.PHONY: bin demo test packages unit guest race cross lint fuzz bench kernel agent base generate clean

# The hutch command (static), and the helper that gives machines without
# hardware virtualization an emulated KVM host.
bin:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/hutch ./cmd/hutch
	$(GO) build -trimpath -o bin/kvmhost ./cmd/kvmhost

# Boots a sandbox and runs a command in it, with the time of each phase.
demo: bin
	bin/kvmhost -- bin/hutch run --timings -- sh -c 'uname -sr; id; echo hello from the sandbox'

# Everything CI asks for: static checks, builds for other platforms, and every
# test. A test that needs KVM fails rather than skips.
test: bin lint cross packages
	HUTCH_REQUIRE_KVM=1 bash internal/ci/test.sh

# What the tests use of Debian's packages.
packages:
	bash internal/ci/packages.sh
	bash internal/ci/toolroot.sh

lint:
	bash internal/ci/lint.sh

# Other platforms compile, through stubs.
cross:
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	GOOS=linux GOARCH=arm64 $(GO) vet ./...

race:
	CGO_ENABLED=1 $(GO) test -race ./kvm ./virtio/... ./agent/... ./boot ./vmm ./rootfs/oci

# Thirty seconds of each fuzz target.
fuzz:
	bash internal/ci/fuzz.sh $(or $(FUZZTIME),30s)

bench: bin packages
	bash bench/virtiofsd.sh
	$(GO) test -exec "$(CURDIR)/bin/kvmhost --" ./bench ./bench/network -run '^$$' -bench .
	$(GO) test ./rootfs/oci -run '^$$' -bench . -benchtime 3x

# The embedded build products, rebuilt bit for bit from their sources.
kernel:
	kernel/build.sh
agent:
	$(GO) run ./initramfs/internal/build
base:
	$(GO) run ./rootfs/base/internal/build

clean:
	rm -rf bin .cache
