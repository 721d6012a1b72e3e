// Package oci keeps container images: it pulls them from registries, loads and
// saves archives, and turns each image into one EROFS file that sandboxes use
// as their read-only root.
//
//	s, err := oci.Open(home)
//	img, err := s.Pull(ctx, "debian:12", oci.PullOptions{})
//	lease, err := img.Acquire()       // lease.File is the EROFS image
//	defer lease.Close()
//
// # On disk
//
// Everything is below $HUTCH_HOME/images:
//
//	lock                    held shared while something is added, exclusively while garbage is removed
//	refs/KEY.json           a reference (KEY is its SHA-256) and the digest it stands for
//	manifests/HEX.json      one image: its configuration, layers and root file system
//	blobs/sha256/HEX        manifests, configurations and layers as they came, by digest
//	blobs/sha256/HEX.part   one on its way; flocked by whoever fetches it
//	roots/KEY.erofs         a converted root; flocked shared by every sandbox that uses it
//	roots/KEY.erofs.part    one in the making; flocked by whoever makes it
//
// A name without ".part" stands for complete content, because it comes into
// being by a rename. What a killed process leaves are .part files, which the
// next one continues, and blobs that no image needs; a pull that comes a day
// later removes them, Prune at once.
// KEY of a root is a digest over the converter's version and the digests of the
// uncompressed layers in their order, so images that differ only in
// configuration or compression share it.
//
// # Trust
//
// A registry's answers, archives and all that is in them are hostile. Every
// blob is verified against its digest while it arrives, every layer against its
// digest of uncompressed content while it is converted, and only then gets a
// name. All sizes are bounded, see the Max constants. Registry types do not
// leave this package.
//
// # Concurrency
//
// All methods may be called from any goroutine, and any number of processes may
// use one directory at once. What two of them need at the same time is fetched
// and converted once.
package oci
