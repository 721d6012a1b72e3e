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
(cd rootfs/base/cmds && $go vet ./... && $go test ./...) || status=1

# The emulator itself dies now and then (see RATIONALE.md); bin/kvmhost says so,
# and that is no result of a test: the package runs again, four times at most.
in_host() {
	local package=$1 log=$logs/${1//\//_} try
	for try in 1 2 3 4 5; do
		if $go test -timeout 15m -parallel 1 -exec "$PWD/bin/kvmhost --" "$package" >"$log" 2>&1; then
			cat "$log"
			return 0
		fi
		grep -qE '^kvmhost: run: the emulated host (died|stopped answering)' "$log" || break
		echo "the emulated host broke down under $package, try $try:"
		grep -E '^kvmhost: run:|^\[.*(BUG|Oops|Kernel panic)' "$log" || true
	done
	cat "$log"
	return 1
}

# Two at a time: a command in the emulated host has one emulated CPU, which is
# one of this machine's. In this order the longest come first.
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export -f in_host
export go logs
printf '%s\n' "${guest[@]}" | sort -r | xargs -P 2 -I{} bash -c 'set -uo pipefail; in_host {}' || status=1
exit $status
