#!/bin/bash
# Runs every test. Packages whose tests need KVM (they import internal/kvmtest)
# run in the host that bin/kvmhost gives them: this machine when its KVM can run
# Linux, an emulated one otherwise. The others run right here.
set -euo pipefail
cd "$(dirname "$0")/../.."
go=${GO:-go}

mapfile -t guest < <($go list -f '{{range .TestImports}}{{if eq . "github.com/hutchvm/hutch/internal/kvmtest"}}{{$.ImportPath}}{{"\n"}}{{end}}{{end}}{{range .XTestImports}}{{if eq . "github.com/hutchvm/hutch/internal/kvmtest"}}{{$.ImportPath}}{{"\n"}}{{end}}{{end}}' ./... | sed '/^$/d' | sort -u)
mapfile -t plain < <($go list ./... | grep -vxF "$(printf '%s\n' "${guest[@]}")")

status=0
$go test -timeout 15m "${plain[@]}" || status=1
# One emulated host at a time has both of a small machine's CPUs to itself.
$go test -timeout 15m -p 1 -exec "$PWD/bin/kvmhost --" "${guest[@]}" || status=1
exit $status
