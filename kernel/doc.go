// Package kernel holds the guest kernel: an uncompressed x86-64 Linux image,
// embedded compressed, and a cache that keeps it as a file ready to be mapped
// into guest memory.
//
// The image is built from Debian's linux-source package by build.sh with the
// options of config/hutch.fragment; both say why. Rebuilding gives the same
// bytes, SHA256SUMS records what went in and what came out, and SOURCE and
// COPYING say where the corresponding source is and under which licence it is.
//
// Nothing here knows of KVM or of a boot protocol. [Open] returns a flat image
// of physical memory: whoever loads it maps the file at guest address
// [Image.Base], leaves zeroes up to [Image.MemSize], and enters at [Image.Entry].
package kernel
