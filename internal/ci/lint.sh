#!/bin/bash
# Static checks, with the tools that tools/go.mod pins.
set -euo pipefail
cd "$(dirname "$0")/../.."
go=${GO:-go}

unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
	printf 'not gofmted:\n%s\n' "$unformatted" >&2
	exit 1
fi
$go vet ./...
$go -C tools build -o ../bin/tools/ honnef.co/go/tools/cmd/staticcheck
bin/tools/staticcheck ./...
