// Package share serves directories and single files of the host to a guest over
// FUSE, the protocol of virtio-fs, so that the guest cannot leave them.
//
// A [Server] has any number of exports, each a directory or a file with a name.
// The guest mounts the server once; its root is a directory that is not on any
// disk and holds the exports, which the guest then binds to where they belong.
// So one device serves all mounts of a machine, and an export may be added
// while the machine runs. Server.Serve takes requests as a virtio device has
// them; it fits virtio/fs.Handler.
//
// # What keeps the guest inside
//
// A name in a request is one component, without a slash, and neither "." nor
// "..". A name is looked up relative to a descriptor of its directory, and
// never followed if it is a link. A directory's descriptor is found from the
// export's by openat2 with RESOLVE_BENEATH, NO_SYMLINKS and NO_MAGICLINKS, and
// used only if device and inode number are those that the guest looked up. So a
// host process that moves things about or swaps them for links meanwhile makes
// requests fail with ESTALE at worst. Only regular files and directories are
// opened; their kind is checked on an O_PATH descriptor before.
//
// Numbers of nodes and handles that the server did not give out mean nothing to
// it. Descriptors, nodes, and bytes per request are bounded.
//
// # Ownership
//
// What the guest says of owner, mode and kind is kept in an extended attribute,
// "user.hutch.stat", where it differs from what the host's file would show: files
// of the server's own user look like root's. On the host all belong to the
// server's user, with permissions that let it work, and neither device nodes nor
// set-user-ID bits are ever made: a guest's device node, pipe or socket is an
// empty regular file with that attribute. Extended attributes of the guest
// outside "user." are kept under "user.hutch.x." too. On a file system without
// user attributes "trusted.hutch." serves if the process may use it; otherwise
// owners cannot be changed (EPERM). Symbolic links cannot carry user attributes:
// unless "trusted." may be used, changing their owner does nothing. With
// [Options].Mirror owner and mode go to the host's file itself.
//
// # A directory as a machine's root
//
// Export the directory read-only, give the machine the device, and let the agent
// mount the device and use the export's directory as the lower layer of the
// overlay that is its root. The kernel's overlayfs accepts it: directory entries
// carry their kind, and "trusted.overlay." attributes are kept as described above.
//
// # Caches
//
// The guest keeps attributes and names for a second, unless [Options].Cache says
// otherwise, and file data as long as size and time of change stay the same. So
// changes on the host are seen within a second, or at the next open.
package share
