// Package guest is the inside of an emulated KVM host: the first process, which
// runs one command and reports on it, and the program that the kernel calls to
// load a module.
//
// Both live in the same executable as the outer side; [Main] recognises by the
// name it was called with which of them it is to be.
package guest

// Paths and names inside the initial root file system, which the outer side
// builds and this package reads.
const (
	InitPath   = "/init"           // the executable
	BootDir    = "/boot"           // the modules that are needed before the root is there
	BootList   = "/boot/list"      // their file names in loading order, one a line
	BootIndex  = "/boot/index"     // a copy of the module tree's index
	RuntimeDir = "/run/hutch-host" // the init's own directory in the final root
)
