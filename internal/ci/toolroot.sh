#!/bin/bash
# Makes .cache/toolroot: a root directory with Debian's network tools and all that
# they need, for the sandbox of sandbox/nettest's TestDebianTools. The packages are
# unpacked and not set up; nothing of it touches what is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD/.cache/toolroot

packages=(
	dash coreutils
	curl iperf3 bind9-dnsutils netcat-openbsd python3
	usr-is-merged # or its alternative comes, with all of perl
)
version=$({ cat /etc/debian_version "$0"; } | sha256sum)
[ "$(cat "$root/.version" 2>/dev/null)" != "$version" ] || exit 0

tmp=$(mktemp -d)
trap 'rm -rf "$tmp" "$root.new"' EXIT
mkdir -p "$tmp/archives/partial"

# As if nothing were installed: everything that the packages depend on comes too.
download() {
	apt-get install -qq -y --no-install-recommends --download-only -o Dir::State::status=/dev/null -o Dir::Cache::archives="$tmp/archives" \
		-o Debug::NoLocking=1 -o APT::Sandbox::User=root "${packages[@]}" >"$tmp/log" 2>&1
}
if ! download && ! { apt-get update -qq && download; }; then
	cat "$tmp/log" >&2
	exit 1
fi

rm -rf "$root.new"
mkdir -p "$root.new"/{usr/{bin,sbin,lib,lib64},dev,etc,proc,root,run,sys,tmp,var}
for d in bin sbin lib lib64; do
	ln -s "usr/$d" "$root.new/$d"
done
for p in "$tmp"/archives/*.deb; do
	dpkg-deb --fsys-tarfile "$p" | tar -x -C "$root.new" --keep-directory-symlink # which dpkg-deb -x does not
done
rm -rf "$root.new"/usr/share/{doc,locale,man}
ln -sf dash "$root.new/usr/bin/sh"
ln -sf nc.openbsd "$root.new/usr/bin/nc"
chmod 1777 "$root.new/tmp"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root.new/etc/passwd"
echo 'root:x:0:' >"$root.new/etc/group"
echo 'hosts: files dns' >"$root.new/etc/nsswitch.conf"
# Python keeps what it compiles, which takes long in an emulated host.
[ "$(id -u)" != 0 ] || env -u PYTHONDONTWRITEBYTECODE chroot "$root.new" python3 -c 'import http.client, http.server, hashlib'
echo "$version" >"$root.new/.version"
rm -rf "$root"
mv "$root.new" "$root"
