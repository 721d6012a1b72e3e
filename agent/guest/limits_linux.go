package guest

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// Resource limits have to be set in the new process before it becomes the
// command: on the agent they would hit the agent, and after execve they come
// too late for the stack's layout. Go can do nothing between fork and execve,
// so a command with limits is started through this program once more, which
// takes on limits, user and directory and then becomes the command. That costs
// the start of a Go program; commands without limits do not go this way.

// limiterName is the program name (argv[0]) that makes this program a limiter.
const limiterName = "hutch-limiter"

// rlimitCount is the number of resources that Linux knows.
const rlimitCount = 16

var (
	errBadResource = errors.New("no such resource")
	errSoftOverTop = errors.New("soft limit over hard limit")
)

// mergeRlimits puts more over base. Of each resource the last limit counts.
func mergeRlimits(base, more []proto.Rlimit) ([]proto.Rlimit, error) {
	var limits [rlimitCount]*proto.Rlimit
	n := 0
	for _, list := range [][]proto.Rlimit{base, more} {
		for i, l := range list {
			name := "rlimit " + strconv.Itoa(int(l.Resource))
			if l.Resource >= rlimitCount {
				return nil, startError(proto.StageRlimit, name, errBadResource)
			}
			if l.Soft > l.Hard {
				return nil, startError(proto.StageRlimit, name, errSoftOverTop)
			}
			if limits[l.Resource] == nil {
				n++
			}
			limits[l.Resource] = &list[i]
		}
	}
	merged := make([]proto.Rlimit, 0, n)
	for _, l := range limits {
		if l != nil {
			merged = append(merged, *l)
		}
	}
	return merged, nil
}

// launchLimited starts a command by way of the limiter. The two talk over a
// socket: the agent sends the command, and the limiter answers with a
// StartError, or with nothing when execve has closed its end.
func (s *Server) launchLimited(exe string, c *command, std streams) (*child, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, startError(proto.StageIO, "", err)
	}
	unix.SetNonblock(fds[0], true)
	ours, theirs := os.NewFile(uintptr(fds[0]), "limiter"), os.NewFile(uintptr(fds[1]), "limiter")
	defer ours.Close()
	groups := make([]string, len(c.id.groups))
	for i, g := range c.id.groups {
		groups[i] = strconv.FormatUint(uint64(g), 10)
	}
	argv := []string{limiterName, exe, strconv.FormatUint(uint64(c.id.uid), 10), strconv.FormatUint(uint64(c.id.gid), 10), strings.Join(groups, ","), strconv.FormatBool(s.defaults.Restricted)}
	frame, err := proto.AppendFrame(nil, &proto.Exec{Argv: c.argv, Env: c.env, Cwd: c.cwd, Rlimits: c.limits})
	if err != nil {
		theirs.Close()
		return nil, startError(proto.StageRequest, "", err)
	}
	attr := &syscall.ProcAttr{
		Env:   []string{"GOGC=off"}, // it lives too briefly to collect anything
		Files: []uintptr{std[0].Fd(), std[1].Fd(), std[2].Fd(), theirs.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: c.tty},
	}
	kid, err := s.reaper.fork(func() (int, error) { return forkExec("/proc/self/exe", argv, attr) })
	theirs.Close()
	if err != nil {
		return nil, startError(proto.StageRlimit, "limiter", err)
	}
	if _, err = ours.Write(frame); err == nil {
		var t proto.Type
		var payload []byte
		t, payload, err = proto.NewReader(ours).Next()
		if err == io.EOF {
			return kid, nil
		}
		failed := new(proto.StartError)
		if err == nil && t == proto.TypeStartError && proto.Unmarshal(payload, failed) == nil {
			<-kid.exited
			return nil, failed
		}
	}
	s.reaper.kill(kid, unix.SIGKILL)
	<-kid.exited
	if err == nil {
		err = proto.ErrMalformed
	}
	return nil, startError(proto.StageRlimit, "limiter", err)
}

// runLimiter is the program that launchLimited starts. It returns only when
// something failed and has been reported.
func runLimiter(args []string) {
	pipe := os.NewFile(3, "limiter")
	unix.CloseOnExec(3)
	if err := limitAndExec(args, pipe); err != nil {
		var failed *proto.StartError
		if !errors.As(err, &failed) {
			failed = startError(proto.StageRlimit, "limiter", err)
		}
		frame, err := proto.AppendFrame(nil, failed)
		if err == nil {
			pipe.Write(frame)
		}
	}
}

func limitAndExec(args []string, pipe *os.File) error {
	t, payload, err := proto.NewReader(pipe).Next()
	if err != nil {
		return err
	}
	if t != proto.TypeExec || len(args) != 6 {
		return proto.ErrUnexpected
	}
	req := new(proto.Exec)
	if err := proto.Unmarshal(payload, req); err != nil {
		return err
	}
	exe := args[1]
	uid, ok1 := parseID(args[2])
	gid, ok2 := parseID(args[3])
	if !ok1 || !ok2 {
		return proto.ErrMalformed
	}
	var groups []int
	if args[4] != "" {
		for g := range strings.SplitSeq(args[4], ",") {
			n, ok := parseID(g)
			if !ok {
				return proto.ErrMalformed
			}
			groups = append(groups, int(n))
		}
	}
	if limitsMemory(req.Rlimits) {
		reserve(len(payload))
	}
	// Raising a limit takes root's rights, so the limits come before the user.
	for _, l := range req.Rlimits {
		err := syscall.Setrlimit(int(l.Resource), &syscall.Rlimit{Cur: l.Soft, Max: l.Hard})
		if err != nil {
			return startError(proto.StageRlimit, "rlimit "+strconv.Itoa(int(l.Resource)), err)
		}
	}
	if args[5] == "true" {
		if err := restrict(); err != nil {
			return startError(proto.StageUser, "restriction", err)
		}
	}
	if err := syscall.Setgroups(groups); err != nil {
		return startError(proto.StageUser, "", err)
	}
	if err := syscall.Setgid(int(gid)); err != nil {
		return startError(proto.StageUser, "", err)
	}
	if err := syscall.Setuid(int(uid)); err != nil {
		return startError(proto.StageUser, "", err)
	}
	if err := syscall.Chdir(req.Cwd); err != nil {
		return startError(proto.StageCwd, req.Cwd, err)
	}
	return startError(proto.StageExec, req.Argv[0], syscall.Exec(exe, req.Argv, req.Env))
}

// restrict keeps the calling thread, and so what it will execute, from gaining
// privileges and from CAP_SYS_ADMIN, which execve gives to root only as far as
// the bounding set goes.
func restrict() error {
	runtime.LockOSThread() // until execve
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

func limitsMemory(limits []proto.Rlimit) bool {
	for _, l := range limits {
		if l.Resource == unix.RLIMIT_AS || l.Resource == unix.RLIMIT_DATA {
			return true
		}
	}
	return false
}

// reserve makes the heap large enough, with free space in it, for what is
// still to be allocated: under the limit it could not grow. The largest part
// is the copy of arguments and environment that syscall.Exec makes.
func reserve(size int) {
	reserved := make([]byte, 4*size+4<<20)
	runtime.KeepAlive(reserved)
	runtime.GC()
}
