package sandbox

import "math"

// Resource names a resource limit of POSIX or Linux, as in setrlimit(2) without
// the prefix and in lower case.
type Resource string

// The resources that Linux limits.
const (
	RlimitAS         Resource = "as"         // bytes of address space
	RlimitCore       Resource = "core"       // bytes of a core dump
	RlimitCPU        Resource = "cpu"        // seconds of CPU time
	RlimitData       Resource = "data"       // bytes of data segment
	RlimitFSize      Resource = "fsize"      // bytes of a file
	RlimitLocks      Resource = "locks"      // file locks
	RlimitMemlock    Resource = "memlock"    // bytes of locked memory
	RlimitMsgQueue   Resource = "msgqueue"   // bytes of POSIX message queues
	RlimitNice       Resource = "nice"       // 20 minus the lowest nice value
	RlimitNoFile     Resource = "nofile"     // file descriptors
	RlimitNProc      Resource = "nproc"      // processes of a user
	RlimitRSS        Resource = "rss"        // bytes of resident memory
	RlimitRTPrio     Resource = "rtprio"     // real-time priority
	RlimitRTTime     Resource = "rttime"     // microseconds of real-time CPU
	RlimitSigPending Resource = "sigpending" // queued signals
	RlimitStack      Resource = "stack"      // bytes of stack
)

// resourceNumbers are Linux' RLIMIT_ constants on x86-64.
var resourceNumbers = map[Resource]uint8{
	RlimitCPU: 0, RlimitFSize: 1, RlimitData: 2, RlimitStack: 3, RlimitCore: 4, RlimitRSS: 5,
	RlimitNProc: 6, RlimitNoFile: 7, RlimitMemlock: 8, RlimitAS: 9, RlimitLocks: 10,
	RlimitSigPending: 11, RlimitMsgQueue: 12, RlimitNice: 13, RlimitRTPrio: 14, RlimitRTTime: 15,
}

// RlimitInfinity is no limit.
const RlimitInfinity = math.MaxUint64

// Rlimit is a soft limit and the hard limit up to which a process may raise it.
type Rlimit struct {
	Soft, Hard uint64
}

// Limit makes an Rlimit of one value for both.
func Limit(v uint64) Rlimit { return Rlimit{Soft: v, Hard: v} }

func checkRlimits(option string, limits map[Resource]Rlimit) error {
	for r, l := range limits {
		if _, ok := resourceNumbers[r]; !ok {
			return invalid(option, "unknown resource %q", r)
		}
		if l.Soft > l.Hard {
			return invalid(option, "%s: soft limit %d is above the hard limit %d", r, l.Soft, l.Hard)
		}
	}
	return nil
}
