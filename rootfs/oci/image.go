package oci

import (
	"io"
	"os"
	"time"
)

// Limits on what a registry or an archive may ask of us. They are far above
// what real images need.
const (
	// MaxManifest bounds a manifest or an index, in bytes.
	MaxManifest = 4 << 20
	// MaxConfig bounds an image's configuration, in bytes.
	MaxConfig = 8 << 20
	// MaxLayers bounds the number of layers.
	MaxLayers = 512
	// MaxLayer bounds one layer as it is stored, in bytes.
	MaxLayer = 32 << 30
	// MaxImage bounds the layers of an image together, in bytes, both as they
	// are stored and uncompressed.
	MaxImage = 128 << 30
)

// Image is one image of a store. Its fields are not to be changed.
type Image struct {
	// Ref is the reference in its short form, such as "debian:12", "" for an
	// image that has none (any more).
	Ref string `json:"ref,omitempty"`
	// Digest is that of the image's manifest (for linux/amd64), "sha256:…". It
	// identifies the image for good: Pull, Get and Remove take it as a reference.
	Digest string `json:"digest"`
	// IndexDigest is that of the index that led to the image, "" if there was none.
	IndexDigest string `json:"index_digest,omitempty"`
	// ConfigDigest is that of the configuration, what Docker calls the image ID.
	ConfigDigest string `json:"config_digest"`
	// Size is what manifest, configuration and layers take as they are stored, in bytes.
	Size int64 `json:"size_bytes"`
	// RootSize is the size of the converted root file system in bytes.
	RootSize int64 `json:"root_size_bytes"`
	// Created is when the image was built, zero if it does not say.
	Created time.Time `json:"created,omitzero"`
	// Added is when it came into the store.
	Added  time.Time `json:"added"`
	Layers []Layer   `json:"layers"`
	Config Config    `json:"config"`

	store *Store
	root  root
}

// Layer is one layer of an image, the lowest first.
type Layer struct {
	Digest    string `json:"digest"`     // of the blob as it is stored
	DiffID    string `json:"diff_id"`    // of the uncompressed tar
	MediaType string `json:"media_type"` // as the manifest has it
	Size      int64  `json:"size_bytes"` // of the blob
}

// Config says how to run an image.
type Config struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"` // KEY=VALUE
	User         string            `json:"user,omitempty"`
	Workdir      string            `json:"workdir,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"` // such as "80/tcp", sorted
	Volumes      []string          `json:"volumes,omitempty"`       // directories, sorted
	StopSignal   string            `json:"stop_signal,omitempty"`
	Shell        []string          `json:"shell,omitempty"`
}

// PullPolicy says when Pull asks the registry.
type PullPolicy int

// The policies.
const (
	// PullIfMissing uses the store's image if there is one, without any network.
	PullIfMissing PullPolicy = iota
	// PullAlways asks the registry what the reference stands for now. Only what
	// the store lacks is transferred.
	PullAlways
	// PullNever uses the store's image and fails with ErrImageNotFound without one.
	PullNever
)

// PullOptions are the options of Pull; the zero value is fine.
type PullOptions struct {
	Policy PullPolicy
	// Username and Password are credentials for the registry; both or neither.
	// Without them those of Docker's configuration and its credential helpers
	// are used, else none.
	Username, Password string
	// Insecure allows plain HTTP, and TLS whose certificate is not verified.
	// Without it plain HTTP is only tried with a registry on this host.
	Insecure bool
	// CACerts are certificates in PEM that are trusted besides the system's.
	CACerts [][]byte
	// Progress, if not nil, is told how the pull goes. It is called from one
	// goroutine at a time and holds up the pull while it runs.
	Progress func(Event)
}

// EventKind tells what an Event is about.
type EventKind int

// The kinds of events, in the order in which they come. Of an image that is in
// the store already there are only EventResolving, EventResolved and EventComplete.
const (
	// EventResolving: the reference is being looked up.
	EventResolving EventKind = iota
	// EventResolved: the image is known. Image and Layers are set, Total is
	// the number of bytes that are to be fetched.
	EventResolved
	// EventLayer: a layer is being fetched. Layer is its index, Done and
	// Total are bytes; Done of a layer that is there already is Total at once.
	EventLayer
	// EventLayerVerified: a layer is complete and matches its digest.
	EventLayerVerified
	// EventConvert: layers are being converted, also while they are fetched. Done and Total are bytes of
	// the layers as they are stored, over all layers.
	EventConvert
	// EventComplete: the image can be used. It comes once, last, and only on success.
	EventComplete
)

var eventNames = [...]string{"resolving", "resolved", "layer", "verified", "convert", "complete"}

// String gives the kind's name: resolving, resolved, layer, verified, convert, complete.
func (k EventKind) String() string {
	if k < 0 || int(k) >= len(eventNames) {
		return "unknown"
	}
	return eventNames[k]
}

// Event is one step of a pull or load.
type Event struct {
	Kind   EventKind
	Ref    string  // the reference in its short form
	Digest string  // of the image; of the layer for the events of layers; "" while resolving
	Layers []Layer // EventResolved only
	Layer  int     // index of the layer
	Done   int64   // bytes
	Total  int64   // bytes
	Cached bool    // EventResolved: the store has the image; EventLayer: it has the layer
}

// LoadOptions are the options of Load; the zero value is fine.
type LoadOptions struct {
	// Ref names the image, whatever the archive says; the archive must then
	// hold exactly one.
	Ref      string
	Progress func(Event)
}

// RemoveOptions are the options of Remove.
type RemoveOptions struct {
	// Force removes the image although a sandbox needs it, and with all its
	// references. A running sandbox is not disturbed: it keeps what it has open.
	Force bool
	// InUse, if not nil, tells who else than running sandboxes needs the image of a digest,
	// such as the name of a stopped sandbox; "" is nobody.
	InUse func(digest string) string
}

// PruneOptions are the options of Prune.
type PruneOptions struct {
	// All removes every image that no sandbox needs, not only those without a reference.
	All bool
	// InUse is as in RemoveOptions.
	InUse func(digest string) string
}

// Removed tells what Remove and Prune did.
type Removed struct {
	Refs   []string `json:"refs,omitempty"`   // references, in their short form
	Images []string `json:"images,omitempty"` // digests of images that are gone
	Bytes  int64    `json:"bytes"`            // disk space given back
}

// Lease is the right to use an image's root file system: as long as it is open,
// nobody removes the image (but by force, which leaves File usable).
type Lease struct {
	// File is the EROFS image, open for reading. It belongs to the lease.
	File *os.File
	// Size is that of File in bytes.
	Size int64
}

// Close ends the lease and closes File. It is idempotent.
func (l *Lease) Close() error {
	if l == nil || l.File == nil {
		return nil
	}
	f := l.File
	l.File = nil
	return f.Close() // the flock goes with it
}

var _ io.Closer = (*Lease)(nil)
