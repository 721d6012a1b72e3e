#!/bin/bash
# Installs the Debian packages that tests use and that are missing: peers and
# checkers only, nothing that Hutch itself needs. One package a line.
set -euo pipefail

packages=(
	e2fsprogs  # e2fsck, debugfs, resize2fs: the checkers of rootfs/ext4; mke2fs: disk images as roots
	qemu-utils # qemu-img: the peer of rootfs/diskimage
	erofs-utils # fsck.erofs: the checker of rootfs/erofs
	umoci  # the peer of rootfs/layer
	skopeo # the peer of rootfs/oci
	libcap2-bin # setcap: a capability for an image
	iproute2   # ip: namespaces of the network tests
	iperf3     # a server for the one in a guest: sandbox/nettest
	passt      # a peer of bench/network
)

missing=()
for p in "${packages[@]}"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$p")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing Debian packages, install them as root: apt-get install ${missing[*]}" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && exit 0
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
