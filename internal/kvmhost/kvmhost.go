// Package kvmhost runs a command on a machine that has hardware-style KVM, by
// emulating that machine where the real one has none.
//
// The emulated host is QEMU in software with AMD SVM emulated, running the
// distribution's kernel with kvm_amd. Its root file system is this machine's
// own, read-only, so a command finds everything where it is. The command gets
// the same arguments, environment, working directory, user and standard
// streams, and its exit status is passed on. A host takes a few seconds to
// start and ends with its command.
//
// What the command may write to:
//   - /tmp, /var/tmp, $TMPDIR and $HOME show this machine's content and take
//     changes in memory, which are lost at the end;
//   - the directory named by $HUTCH_KVMHOST_STATE is an empty ext4 disk with
//     extended attributes, also lost at the end;
//   - the directories in [Config.Share] are this machine's own, and so are those
//     that Go's testing flags name for profiles, coverage and the test log.
//
// The command runs on one of the host's CPUs unless [Config.Spread] is set, so a Go
// program's GOMAXPROCS is 1 there; the other CPU has the host's own work.
//
// Everything else is read-only. Files that change on this machine while the
// host runs may be seen in their old state inside. The only network is a
// loopback; network namespaces, tun, veth, bridges and nftables can be used,
// and the kernel loads the modules for them by itself.
package kvmhost

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// Environment variables.
const (
	// EnvMode forces a [Mode]. Inside an emulated host its value is "inside".
	EnvMode = "HUTCH_KVMHOST"
	// EnvState names the scratch directory; set inside an emulated host only.
	EnvState = "HUTCH_KVMHOST_STATE"
	// EnvCache names the directory for preparations.
	EnvCache = "HUTCH_KVMHOST_CACHE"
)

// Exit codes of Run's own, chosen like those of timeout(1) and env(1).
const (
	CodeTimeout    = 124 // the time limit was reached
	CodeHost       = 125 // the emulated host failed, not the command
	CodeCannotRun  = 126 // the command exists and cannot be started
	CodeNotFound   = 127 // there is no such command
	CodeSignalBase = 128 // plus the signal's number: a signal killed the command
)

// Defaults of [Config].
const (
	DefaultTimeout   = 20 * time.Minute
	DefaultHangAfter = 60 * time.Second
	DefaultMemory    = 6144 // MiB
	DefaultCPUs      = 2
)

var (
	// ErrTimeout is returned when the time limit was reached.
	ErrTimeout = errors.New("time limit reached")
	// ErrStopped is returned when the emulated host stopped answering.
	ErrStopped = errors.New("the emulated host stopped answering")
	// ErrDied is returned when the emulator or the kernel in it ended before the command did.
	ErrDied = errors.New("the emulated host died")
	// ErrStart is returned when the command could not be started inside.
	ErrStart = errors.New("command not started")
	// ErrConfig is returned for a configuration that makes no sense.
	ErrConfig = errors.New("bad configuration")
)

// Error is what Run returns when it cannot report an exit status.
type Error struct {
	Op  string
	Err error
	// Console is the end of the host's console, empty if it has nothing to say.
	Console string
}

func (e *Error) Error() string {
	if e.Console == "" {
		return fmt.Sprintf("kvmhost: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("kvmhost: %s: %v\n--- end of its console ---\n%s\n---", e.Op, e.Err, e.Console)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Config describes one command and the host for it. The zero value of each
// field but Args is a usable default.
type Config struct {
	// Args is the command and its arguments. A name without a slash is looked
	// up in this process's PATH.
	Args []string
	// Env is the command's environment; nil means this process's.
	Env []string
	// Dir is the working directory; empty means this process's.
	Dir string

	// Stdin is the command's input; nil is an empty one. It may have been read
	// further than the command did when Run returns, and a Read that is
	// under way then is not waited for.
	Stdin io.Reader
	// Stdout and Stderr take the command's output; nil discards it. When both are
	// the same *os.File, or two for the same open file, the order of the
	// command's writes is kept. Otherwise each is written by its own goroutine.
	Stdout, Stderr io.Writer
	// TTY gives the command a terminal even if this process has none.
	TTY bool
	// Signals forwards this process's INT, QUIT, TERM, HUP, USR1, USR2 and WINCH.
	Signals bool

	// Share lists directories in which the command's changes are kept.
	Share []string
	// Modules lists kernel modules to load before the command starts.
	Modules []string

	Timeout   time.Duration // from the call of Run; negative means none
	HangAfter time.Duration // silence after which a host counts as stopped
	Memory    int           // MiB
	CPUs      int
	// Spread lets the command run on all of the host's CPUs. Without it the command
	// and all that it starts have one of them to themselves: guests whose vCPUs are
	// interrupted by another emulated CPU now and then die of it (see RATIONALE.md).
	Spread bool

	// Boot makes the host boot even if the saved state of a booted one is there.
	Boot bool
	// Cache is the directory for preparations; empty means the value of EnvCache,
	// else hutch-kvmhost in the user's cache directory.
	Cache string
	// Init is a static executable whose main begins with guest.Main; empty means this
	// process's own executable.
	Init string
	// Log receives progress lines of slow preparations and warnings.
	Log io.Writer
	// Console, if not nil, receives the host's console as it comes.
	Console io.Writer
}

// Result is how a command ended and how long its host took.
type Result struct {
	// Code is the command's exit code, or 128 plus the number of a signal.
	Code int
	// Phases are the stages of the run, in order.
	Phases Phases
}

// Phases are measured from the call of Run.
type Phases struct {
	Prepared time.Duration // the emulator was about to be started
	Ordered  time.Duration // the guest had got its order
	Running  time.Duration // the command was started
	Ended    time.Duration // the command had ended and its output was here
	Down     time.Duration // the emulator was gone

	// Guest has stages by the guest's own clock: its init ran, was ready for an
	// order, got it, had mounted all file systems, had started the command.
	Guest [5]time.Duration
	// Resumed is true when the host started from a saved state.
	Resumed bool
}
