#!/bin/bash
# Builds the guest kernel from Debian's source package, bit for bit the same
# every time, and writes into this folder:
#
#   vmlinux.zst            the stripped image, compressed
#   config/vmlinux.config  the complete configuration
#   image.gen.go           what the Go package must know of the image
#   SHA256SUMS             what went in and what came out
#   SOURCE, COPYING        source package and licence
#
#   build.sh            build if an input changed since the last build
#   build.sh --force    build in any case
#   build.sh --check    only say whether the image is up to date (exit 1 if not)
#   build.sh --config   only make the configuration and check the fragment
#   build.sh --verify   build anew elsewhere and compare with what is here
#
# HUTCH_KERNEL_TREE names the build directory (default: .cache/kernel of the repository);
# HUTCH_KERNEL_JOBS the number of parallel jobs (default: all CPUs).
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022

package=linux-source-6.1
version=6.1.192-2
tarball_sha256=4d415b3d364834fd818270e88813e90323bbfce4f519a0e6bd4940ddcd7df693
release=6.1.192-hutch

here=$(cd "$(dirname "$0")" && pwd)
cd "$here" # the patterns in inputs
tree=${HUTCH_KERNEL_TREE:-$(dirname "$here")/.cache/kernel}
jobs=${HUTCH_KERNEL_JOBS:-$(nproc)}
inputs=(build.sh config/hutch.fragment patches/*.patch)
outputs=(config/vmlinux.config vmlinux.zst image.gen.go COPYING SOURCE)

die() { echo "build.sh: $*" >&2; exit 1; }

# Every file that SHA256SUMS names is as it was when the image was built.
check() { (cd "$here" && [[ -f SHA256SUMS ]] && sha256sum --check --strict --quiet SHA256SUMS); }

# The tools that the bytes depend on. Another version may well make a kernel
# just as good, but not the same bytes.
toolchain() {
    gcc --version | sed -n 1p
    ld --version | sed -n 1p
    zstd --version | grep -o 'v[0-9][0-9.]*' | sed 's/^/zstd /'
}

install_tools() {
    local want=(gcc make patch flex bison bc libelf-dev zstd xz-utils perl libc6-dev libssl-dev) missing=() p
    for p in "${want[@]}"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || die "missing packages, install them as root: ${missing[*]}"
    apt-get -q update >&2
    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}" >&2
}

# Downloads and unpacks the source package; it is never installed.
fetch_source() {
    local tar=$tree/deb/usr/src/$package.tar.xz p
    mkdir -p "$tree"
    if ! echo "$tarball_sha256  $tar" | sha256sum --check --status 2>/dev/null; then
        if ! (cd "$tree" && apt-get -q -o APT::Sandbox::User=root download "$package=$version" >&2); then
            ((EUID == 0)) && apt-get -q update >&2
            (cd "$tree" && apt-get -q -o APT::Sandbox::User=root download "$package=$version" >&2) ||
                die "$package $version is not to be had from the configured package sources"
        fi
        rm -rf "$tree/deb" "$tree/src"
        dpkg-deb -x "$tree/${package}_${version}_all.deb" "$tree/deb"
        echo "$tarball_sha256  $tar" | sha256sum --check --quiet >&2 || die "$package: wrong content"
    fi
    local patches
    patches=$(cat "$here"/patches/*.patch | sha256sum)
    if [[ $(cat "$tree/src/.unpacked" 2>/dev/null) != "$patches" ]]; then
        rm -rf "$tree/src"
        mkdir -p "$tree/src"
        tar -xJf "$tar" -C "$tree/src" --strip-components=1
        for p in "$here"/patches/*.patch; do
            patch -s -p1 -d "$tree/src" <"$p" || die "$p does not apply"
        done
        echo "$patches" >"$tree/src/.unpacked"
    fi
}

kmake() { make -s -C "$tree/src" O="$tree/out" ARCH=x86_64 "$@"; }

# Applies the fragment and compares the result with it line by line: Kconfig
# drops an option whose dependencies are not met without a word.
configure() {
    local lost=() line name
    rm -rf "$tree/out"
    mkdir -p "$tree/out"
    kmake KCONFIG_ALLCONFIG="$here/config/hutch.fragment" allnoconfig >&2
    while read -r line; do
        case $line in
        CONFIG_*) grep -qxF -- "$line" "$tree/out/.config" || lost+=("$line") ;;
        '# CONFIG_'*' is not set')
            name=${line#\# } name=${name%% *}
            ! grep -q "^$name=" "$tree/out/.config" || lost+=("$line")
            ;;
        esac
    done <"$here/config/hutch.fragment"
    ((${#lost[@]} == 0)) || die "options that did not survive:$(printf '\n  %s' "${lost[@]}")"
}

# Builds into $1, a folder laid out like this one.
build() {
    local dest=$1 date
    # The date of the source package stands for the date of the build.
    date=$(zcat "$tree/deb/usr/share/doc/$package/changelog.Debian.gz" | sed -n '0,/^ -- /s/^ -- .*>  //p')
    export SOURCE_DATE_EPOCH KBUILD_BUILD_TIMESTAMP
    SOURCE_DATE_EPOCH=$(date -d "$date" +%s)
    KBUILD_BUILD_TIMESTAMP=$(date -u -d "@$SOURCE_DATE_EPOCH")
    export KBUILD_BUILD_USER=hutch KBUILD_BUILD_HOST=hutch KBUILD_BUILD_VERSION=1
    configure
    kmake -j"$jobs" vmlinux >&2
    [[ $(cat "$tree/out/include/config/kernel.release") == "$release" ]] || die "release is not $release"
    strip --strip-all --remove-section=.comment -o "$tree/out/vmlinux.stripped" "$tree/out/vmlinux"

    mkdir -p "$dest/config"
    cp "$tree/out/.config" "$dest/config/vmlinux.config"
    zstd -q -f --single-thread -19 --check --no-progress -o "$dest/vmlinux.zst" "$tree/out/vmlinux.stripped"
    write_go >"$dest/image.gen.go"
    (cd "$tree/src" && cat COPYING LICENSES/preferred/GPL-2.0 LICENSES/exceptions/Linux-syscall-note) >"$dest/COPYING"
    write_source >"$dest/SOURCE"
    cp "$here/build.sh" "$dest/"
    cp "$here/config/hutch.fragment" "$dest/config/"
    mkdir -p "$dest/patches"
    cp "$here"/patches/*.patch "$dest/patches/"
    chmod 644 "$dest/vmlinux.zst" "$dest/config/vmlinux.config" "$dest/COPYING"
    (cd "$dest" && write_sums >SHA256SUMS)
}

# The loadable segments of an ELF file: physical address, bytes in the file,
# bytes in memory.
segments() { readelf -lW "$1" | awk '$1 == "LOAD" { print $4, $5, $6 }'; }

# What the Go package needs to know of the image without unpacking it. The flat
# image is made by objcopy here and by the package's own code there; its digest
# makes the two check each other.
write_go() {
    local elf=$tree/out/vmlinux.stripped flat=$tree/out/vmlinux.flat
    local base=$((1 << 62)) file_end=0 mem_end=0 paddr filesz memsz
    while read -r paddr filesz memsz; do
        ((paddr >= base)) || base=$((paddr))
        ((filesz == 0 || paddr + filesz <= file_end)) || file_end=$((paddr + filesz))
        ((paddr + memsz <= mem_end)) || mem_end=$((paddr + memsz))
    done < <(segments "$elf")
    objcopy -O binary "$elf" "$flat"
    truncate -s $(((file_end - base + 4095) / 4096 * 4096)) "$flat"
    cat <<GO
// Code generated by build.sh. DO NOT EDIT.

package kernel

const (
	imageRelease = "$release"
	imageVersion = "$package $version"
	imageDigest  = "$(sha256sum <"$dest/vmlinux.zst" | cut -d' ' -f1)"

	elfSize   = $(stat -c %s "$elf")
	elfDigest = "$(sha256sum <"$elf" | cut -d' ' -f1)"

	flatSize   = $(stat -c %s "$flat")
	flatDigest = "$(sha256sum <"$flat" | cut -d' ' -f1)"

	imageBase    = $(printf '%#x' "$base")
	imageMemSize = $(printf '%#x' $(((mem_end - base + 4095) / 4096 * 4096)))
	imageEntry   = $(readelf -hW "$elf" | sed -n 's/.*Entry point address: *//p')
)
GO
}

write_source() {
    cat <<TEXT
vmlinux.zst is the Linux kernel, built by build.sh from

    Debian source package    linux $version
    packaged source tree     $package $version (usr/src/$package.tar.xz)
    SHA-256 of that tree     $tarball_sha256
    configuration            config/hutch.fragment, complete: config/vmlinux.config
    changes to the source    patches/

It is under the GNU General Public License, version 2, with the system call
note; see COPYING. The corresponding source is the tree above together with
the patches, the configuration and build.sh. On a Debian system whose package sources
offer it:

    apt-get source linux=$version          # upstream source and Debian's patches
    apt-get download $package=$version     # the patched tree, as build.sh uses it

Debian keeps every version that it ever published in its snapshot archive.
TEXT
}

write_sums() {
    echo "# Written by build.sh. Check with: build.sh --check"
    echo "# source: $package $version, $package.tar.xz $tarball_sha256"
    toolchain | sed 's/^/# tool: /'
    echo "# inputs"
    sha256sum "${inputs[@]}"
    echo "# outputs"
    sha256sum "${outputs[@]}"
}

# Copies a finished build here. The sums go last: an interrupted copy is stale.
install_outputs() {
    local from=$1 f
    rm -f "$here/SHA256SUMS"
    for f in "${outputs[@]}" SHA256SUMS; do
        install -m 644 "$from/$f" "$here/$f.tmp"
        mv "$here/$f.tmp" "$here/$f"
    done
}

main() {
    case ${1:-} in
    --check)
        check || { echo "build.sh: the embedded kernel is stale, run kernel/build.sh" >&2; return 1; }
        return 0
        ;;
    --config | --verify | --force) ;;
    '') ! check >/dev/null 2>&1 || { echo "build.sh: up to date" >&2; return 0; } ;;
    *) die "unknown argument $1" ;;
    esac

    install_tools
    fetch_source
    case ${1:-} in
    --config)
        configure
        echo "build.sh: every option of the fragment holds, see $tree/out/.config" >&2
        ;;
    --verify)
        # Another directory, so that a path that leaks into the image shows.
        local first=$tree f
        tree=$first/verify-$$
        trap 'rm -rf "$tree"' EXIT
        mkdir -p "$tree"
        ln -s "$first/deb" "$tree/deb"
        fetch_source
        build "$tree/result"
        for f in "${outputs[@]}" SHA256SUMS; do
            cmp "$tree/result/$f" "$here/$f" || die "the second build differs in $f"
        done
        echo "build.sh: the same bytes again" >&2
        ;;
    *)
        rm -rf "$tree/result"
        build "$tree/result"
        install_outputs "$tree/result"
        ;;
    esac
}

main "$@"
