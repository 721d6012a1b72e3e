#!/bin/bash
# Unpacks the peer of BenchmarkShareVersusVirtiofsd, Debian's virtiofsd, into the
# user's cache: that of the package of its name, or of QEMU 7.2, which had it
# within. Nothing is installed.
set -euo pipefail
dir=${XDG_CACHE_HOME:-$HOME/.cache}/hutch-bench/virtiofsd
[ -d "$dir/usr" ] && exit 0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
version=$(apt-cache madison qemu-system-common | awk '$3 ~ /^1:7\.2/ {print $3; exit}')
apt-get download virtiofsd 2>/dev/null || apt-get download "qemu-system-common=$version"
mkdir -p "$dir"
dpkg-deb -x ./*.deb "$dir"
