package proto

// BootStamps tell how the guest's boot went, each in nanoseconds of the
// guest's CLOCK_MONOTONIC, which starts with its kernel.
type BootStamps struct {
	Init      uint64 // the agent's first instruction of its own
	Mounted   uint64 // /proc, /sys, /dev and the like are mounted
	Connected uint64 // the control connection stands
}

func (m *BootStamps) fields(c *codec) {
	number(c, 1, &m.Init)
	number(c, 2, &m.Mounted)
	number(c, 3, &m.Connected)
}

// Hello is the first message of the control connection: the agent is ready to
// be set up. Nothing in the guest depends on image, names, environment or
// secrets at this point.
type Hello struct {
	Build string // which build of the agent this is
	Boot  BootStamps
}

// Type implements Message.
func (*Hello) Type() Type { return TypeHello }

func (m *Hello) fields(c *codec) {
	c.str(1, &m.Build)
	one(c, 2, &m.Boot, (*BootStamps).fields)
}

// Disk names a block device of the guest and what is on it. Either Device or
// Serial is given.
type Disk struct {
	Device string // such as "/dev/vda"
	Serial string // the serial of a virtio-blk device
	FSType string // such as "erofs" or "ext4"
	// Dir is the directory in it that counts, such as "/root"; "" is all. For a
	// virtio-fs device it is the export; of a mount it may be a file.
	Dir string
}

func (m *Disk) fields(c *codec) {
	c.str(1, &m.Device)
	c.str(2, &m.Serial)
	c.str(3, &m.FSType)
	c.str(4, &m.Dir)
}

// Root is the guest's root: an overlay of a writable layer on read-only ones,
// or one file system that is written to itself.
type Root struct {
	// Base is the lowest layer. A virtio-fs share has its tag as Device,
	// "virtiofs" as FSType, and the name of the export as Dir.
	Base Disk
	// Upper is the disk of the writable layer. When it is zero the layer lives
	// in memory, in a tmpfs of UpperSize bytes (0: half of the memory).
	Upper     Disk
	UpperSize uint64
	// Layers are read-only layers between Base and the writable one, the
	// lowest first.
	Layers []Disk
	// Direct says that Base is the whole root and is mounted for writing. If
	// its FSType is empty, those that the kernel knows are tried, on the disk
	// and on its partitions.
	Direct bool
}

func (m *Root) zero() bool {
	return m.Base == (Disk{}) && m.Upper == (Disk{}) && m.UpperSize == 0 && len(m.Layers) == 0 && !m.Direct
}

func (m *Root) fields(c *codec) {
	one(c, 1, &m.Base, (*Disk).fields)
	one(c, 2, &m.Upper, (*Disk).fields)
	number(c, 3, &m.UpperSize)
	many(c, 4, &m.Layers, (*Disk).fields)
	c.flag(5, &m.Direct)
}

// MountKind says what a Mount mounts.
type MountKind uint8

// The kinds of mounts.
const (
	MountTmpfs MountKind = 1 // in the guest's memory
	MountShare MountKind = 2 // an export of a virtio-fs device, a directory or a file
	MountDisk  MountKind = 3 // a file system on a disk
)

// Mount is a further mount in the guest's root. Mounts are made in the order
// given; a missing mount point is created.
type Mount struct {
	Kind   MountKind
	Target string // absolute path in the guest
	Size   uint64 // of a tmpfs in bytes; 0: half of the memory
	// Source is what a disk or share mounts. A share has the device's tag as
	// Device and the export as Dir; a disk whose FSType is empty is tried for
	// those that the kernel knows.
	Source   Disk
	ReadOnly bool
	NoExec   bool
	NoSuid   bool
	NoDev    bool
}

func (m *Mount) fields(c *codec) {
	number(c, 1, &m.Kind)
	c.str(2, &m.Target)
	number(c, 3, &m.Size)
	c.flag(4, &m.ReadOnly)
	c.flag(5, &m.NoExec)
	c.flag(6, &m.NoSuid)
	c.flag(7, &m.NoDev)
	one(c, 8, &m.Source, (*Disk).fields)
}

// RlimitInfinity is no limit.
const RlimitInfinity = ^uint64(0)

// Rlimit is a resource limit by Linux's number of the resource.
type Rlimit struct {
	Resource uint8
	Soft     uint64
	Hard     uint64
}

func (m *Rlimit) fields(c *codec) {
	number(c, 1, &m.Resource)
	number(c, 2, &m.Soft)
	number(c, 3, &m.Hard)
}

// Script is an executable of the sandbox's own.
type Script struct {
	Name    string // a file name
	Content string
}

func (m *Script) fields(c *codec) {
	c.str(1, &m.Name)
	c.str(2, &m.Content)
}

// DiskSize is the size of a block device.
type DiskSize struct{ Sectors uint64 } // of 512 bytes

func (m *DiskSize) fields(c *codec) { number(c, 1, &m.Sectors) }

// Setup tells the agent everything that makes this guest a particular
// sandbox. It comes once.
type Setup struct {
	Hostname string
	Root     Root
	// Mounts beyond the root. Unless one of them is /tmp, that becomes a tmpfs
	// of a quarter of the memory, 512 MiB at most.
	Mounts []Mount
	// Env ("KEY=value"), Workdir, User and Rlimits are the defaults of every
	// command. Workdir ("" is "/") must be a directory and User ("" is root)
	// must resolve, or the setup fails.
	Env     []string
	Workdir string
	User    string
	Rlimits []Rlimit
	// Time is the host's clock in nanoseconds since 1970. The guest's clock is
	// set only when it is far off.
	Time int64
	// Scripts are executables that every command finds first on its PATH.
	Scripts []Script
	// MakeWorkdir has Workdir made when it is missing.
	MakeWorkdir bool
	// Restricted has every command run with no_new_privs and without
	// CAP_SYS_ADMIN.
	Restricted bool
	// Entropy is mixed into the guest's random generator before anything else
	// happens: guests that are copies of each other have the same state of it.
	Entropy string
	// Disks, when not empty, says that this guest is a copy whose disks may be
	// others than the original's: these are /dev/vda, /dev/vdb and so on.
	Disks []DiskSize
	// Network is what the network card is set up with.
	Network Network
}

// Type implements Message.
func (*Setup) Type() Type { return TypeSetup }

func (m *Setup) fields(c *codec) {
	c.str(1, &m.Hostname)
	if c.field(2, !m.Root.zero()) {
		c.group(m.Root.fields)
	}
	many(c, 3, &m.Mounts, (*Mount).fields)
	c.strs(4, &m.Env)
	c.str(5, &m.Workdir)
	c.str(6, &m.User)
	many(c, 7, &m.Rlimits, (*Rlimit).fields)
	number(c, 8, &m.Time)
	many(c, 9, &m.Scripts, (*Script).fields)
	c.flag(10, &m.MakeWorkdir)
	c.str(11, &m.Entropy)
	many(c, 12, &m.Disks, (*DiskSize).fields)
	c.flag(13, &m.Restricted)
	if c.field(20, !m.Network.zero()) {
		c.group(m.Network.fields)
	}
}

// SetupDone answers Setup: operations are taken from now on. The stamps are
// nanoseconds of the guest's CLOCK_MONOTONIC.
type SetupDone struct {
	Received uint64 // the Setup message was read
	Rooted   uint64 // the agent lives in the new root
	Done     uint64 // everything is in place
}

// Type implements Message.
func (*SetupDone) Type() Type { return TypeSetupDone }

func (m *SetupDone) fields(c *codec) {
	number(c, 1, &m.Received)
	number(c, 2, &m.Rooted)
	number(c, 3, &m.Done)
}

// SetupErrorKind is what a SetupError is about.
type SetupErrorKind uint8

// The kinds of SetupError.
const (
	SetupOther    SetupErrorKind = 1 // none of the below
	SetupInvalid  SetupErrorKind = 2 // the message itself, or a second one
	SetupHostname SetupErrorKind = 3
	SetupRoot     SetupErrorKind = 4 // the root could not be put together
	SetupMount    SetupErrorKind = 5
	SetupWorkdir  SetupErrorKind = 6 // not there, or not a directory
	SetupUser     SetupErrorKind = 7 // does not resolve
	SetupRlimit   SetupErrorKind = 8
	SetupScript   SetupErrorKind = 9
	SetupNetwork  SetupErrorKind = 20
)

// SetupError answers a Setup that failed. The guest is of no further use.
type SetupError struct {
	Kind    SetupErrorKind
	Field   string // the field of Setup at fault, such as "Workdir" or "Mounts[2]"
	Message string
}

// Type implements Message.
func (*SetupError) Type() Type { return TypeSetupError }

func (m *SetupError) fields(c *codec) {
	number(c, 1, &m.Kind)
	c.str(2, &m.Field)
	c.str(3, &m.Message)
}

func (m *SetupError) Error() string {
	if m.Field == "" {
		return "setup: " + m.Message
	}
	return "setup: " + m.Field + ": " + m.Message
}

// Ping asks for a Pong with the same ID.
type Ping struct{ ID uint64 }

// Type implements Message.
func (*Ping) Type() Type { return TypePing }

func (m *Ping) fields(c *codec) { number(c, 1, &m.ID) }

// Pong answers Ping.
type Pong struct{ ID uint64 }

// Type implements Message.
func (*Pong) Type() Type { return TypePong }

func (m *Pong) fields(c *codec) { number(c, 1, &m.ID) }

// Shutdown asks the agent to end every process, write everything to the disks
// and turn the machine off.
type Shutdown struct {
	// Grace is how long, in nanoseconds, processes have between SIGTERM and SIGKILL.
	Grace uint64
}

// Type implements Message.
func (*Shutdown) Type() Type { return TypeShutdown }

func (m *Shutdown) fields(c *codec) { number(c, 1, &m.Grace) }

// ShutdownDone says that no process is left and all data is on the disks. The
// machine goes down once the host has closed the control connection, or
// shortly after.
type ShutdownDone struct {
	// Killed says that some process did not end by itself in time.
	Killed bool
}

// Type implements Message.
func (*ShutdownDone) Type() Type { return TypeShutdownDone }

func (m *ShutdownDone) fields(c *codec) { c.flag(1, &m.Killed) }

// Fault tells the peer why the connection is being closed.
type Fault struct{ Message string }

// Type implements Message.
func (*Fault) Type() Type { return TypeFault }

func (m *Fault) fields(c *codec) { c.str(1, &m.Message) }

func (m *Fault) Error() string { return "peer: " + m.Message }
