package proto

// Exec runs a command. It is the first message of its connection.
type Exec struct {
	// Argv is the command and its arguments. No shell sees it. A command
	// without a slash is looked for in the PATH of the final environment.
	Argv []string
	// Env ("KEY=value") adds to and replaces the defaults of Setup.
	Env []string
	// Cwd is the working directory; "" takes that of Setup.
	Cwd string
	// User is "name", "uid", "name:group" or "uid:gid"; "" takes that of Setup.
	User string
	// Rlimits add to and replace the defaults of Setup.
	Rlimits []Rlimit
	// Stdin says that the host will send stdin. Otherwise it is /dev/null.
	Stdin bool
	// TTY gives the command a terminal of Rows by Cols (0: 24 by 80); its
	// output comes as Stdout. Term is the TERM of the environment unless
	// Env or the defaults have one.
	TTY  bool
	Rows uint16
	Cols uint16
	Term string
}

// Type implements Message.
func (*Exec) Type() Type { return TypeExec }

func (m *Exec) fields(c *codec) {
	c.strs(1, &m.Argv)
	c.strs(2, &m.Env)
	c.str(3, &m.Cwd)
	c.str(4, &m.User)
	many(c, 5, &m.Rlimits, (*Rlimit).fields)
	c.flag(6, &m.Stdin)
	c.flag(7, &m.TTY)
	number(c, 8, &m.Rows)
	number(c, 9, &m.Cols)
	c.str(10, &m.Term)
}

// Started says that the command runs.
type Started struct {
	PID uint32 // in the guest; also its process group and session
}

// Type implements Message.
func (*Started) Type() Type { return TypeStarted }

func (m *Started) fields(c *codec) { number(c, 1, &m.PID) }

// StartErrorKind is why a command could not start.
type StartErrorKind uint8

// The kinds of StartError.
const (
	StartOther            StartErrorKind = 1
	StartNotFound         StartErrorKind = 2  // no such command, or its interpreter is missing
	StartPermissionDenied StartErrorKind = 3  // not executable for this user, or a directory
	StartNotExecutable    StartErrorKind = 4  // a file that the kernel cannot run
	StartBadCwd           StartErrorKind = 5  // the working directory is missing, not one, or closed to the user
	StartBadArgs          StartErrorKind = 6  // empty, with a NUL byte, or too large
	StartResourceLimit    StartErrorKind = 7  // out of processes or descriptors, or a bad limit
	StartUserSetup        StartErrorKind = 8  // the user does not resolve or cannot be taken on
	StartOutOfMemory      StartErrorKind = 9  // the guest's, or a limit's
	StartPTY              StartErrorKind = 10 // no terminal to be had
)

func (k StartErrorKind) String() string {
	names := [...]string{"other", "other", "not found", "permission denied", "not executable", "bad working directory",
		"bad arguments", "resource limit", "user setup", "out of memory", "pty"}
	if int(k) < len(names) {
		return names[k]
	}
	return "other"
}

// StartStage is the step of starting a command that failed.
type StartStage uint8

// The stages, in the order in which they happen.
const (
	StageRequest StartStage = 1 // checking the request
	StageUser    StartStage = 2 // resolving and becoming the user
	StageCwd     StartStage = 3 // changing to the working directory
	StageLookup  StartStage = 4 // finding the command
	StageIO      StartStage = 5 // pipes and terminal
	StageRlimit  StartStage = 6 // setting the limits
	StageExec    StartStage = 7 // making the process, execve
)

func (s StartStage) String() string {
	names := [...]string{"start", "request", "user", "cwd", "lookup", "io", "rlimit", "exec"}
	if int(s) < len(names) {
		return names[s]
	}
	return "start"
}

// StartError says that the command did not start. It is the last message.
type StartError struct {
	Kind    StartErrorKind
	Errno   uint32 // Linux's number of the error, or 0
	Stage   StartStage
	Message string // names what is at fault
}

// Type implements Message.
func (*StartError) Type() Type { return TypeStartError }

func (m *StartError) fields(c *codec) {
	number(c, 1, &m.Kind)
	number(c, 2, &m.Errno)
	number(c, 3, &m.Stage)
	c.str(4, &m.Message)
}

func (m *StartError) Error() string { return m.Stage.String() + ": " + m.Message }

// Exited is the last message of a command that ran: its leader has ended, and
// everything that the leader wrote has been sent before.
type Exited struct {
	Code   uint8 // exit status, when Signal is 0
	Signal uint8 // the signal that ended it
	Core   bool  // it dumped core
	// CPU time in nanoseconds and peak resident set in bytes of the leader and
	// of the descendants it waited for.
	UserTime   uint64
	SystemTime uint64
	MaxRSS     uint64
}

// Type implements Message.
func (*Exited) Type() Type { return TypeExited }

func (m *Exited) fields(c *codec) {
	number(c, 1, &m.Code)
	number(c, 2, &m.Signal)
	c.flag(3, &m.Core)
	number(c, 4, &m.UserTime)
	number(c, 5, &m.SystemTime)
	number(c, 6, &m.MaxRSS)
}

// StdinCredit lets the host send Bytes more of stdin.
type StdinCredit struct{ Bytes uint32 }

// Type implements Message.
func (*StdinCredit) Type() Type { return TypeStdinCredit }

func (m *StdinCredit) fields(c *codec) { number(c, 1, &m.Bytes) }

// StdinError says that the command takes no more stdin, most often because it
// has closed it (EPIPE). The command itself goes on. What the host still sends
// is dropped.
type StdinError struct{ Errno uint32 }

// Type implements Message.
func (*StdinError) Type() Type { return TypeStdinError }

func (m *StdinError) fields(c *codec) { number(c, 1, &m.Errno) }

// Signal sends a signal to the command's process group.
type Signal struct{ Number uint8 }

// Type implements Message.
func (*Signal) Type() Type { return TypeSignal }

func (m *Signal) fields(c *codec) { number(c, 1, &m.Number) }

// Resize changes the size of the command's terminal.
type Resize struct{ Rows, Cols uint16 }

// Type implements Message.
func (*Resize) Type() Type { return TypeResize }

func (m *Resize) fields(c *codec) {
	number(c, 1, &m.Rows)
	number(c, 2, &m.Cols)
}
