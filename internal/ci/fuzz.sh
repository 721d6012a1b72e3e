#!/bin/bash
# Runs each fuzz target of the tree for the given time.
set -euo pipefail
cd "$(dirname "$0")/../.."
for file in $(git grep -lE '^func Fuzz' -- '*_test.go'); do
	for target in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file"); do
		echo "$(dirname "$file") $target"
		${GO:-go} test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 10x
	done
done
