package guest

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// command is an Exec request with all defaults filled in.
type command struct {
	argv   []string
	env    []string
	path   string // PATH of env
	cwd    string
	id     identity
	limits []proto.Rlimit
	tty    bool
}

var (
	errNoCommand = errors.New("no command")
	errNUL       = errors.New("NUL byte")
	errRelative  = errors.New("not an absolute path")
)

// prepare checks a request and completes it. Nothing is started.
func (s *Server) prepare(req *proto.Exec) (*command, error) {
	if len(req.Argv) == 0 || req.Argv[0] == "" {
		return nil, startError(proto.StageRequest, "", errNoCommand)
	}
	for _, list := range [][]string{req.Argv, req.Env} {
		for _, v := range list {
			if strings.IndexByte(v, 0) >= 0 {
				return nil, startError(proto.StageRequest, "arguments or environment", errNUL)
			}
		}
	}
	c := &command{argv: req.Argv, tty: req.TTY}
	var err error
	if c.limits, err = mergeRlimits(s.defaults.Rlimits, req.Rlimits); err != nil {
		return nil, startError(proto.StageRlimit, "", err)
	}
	spec := req.User
	if spec == "" {
		spec = s.defaults.User
	}
	if c.id, err = s.accounts.resolve(spec); err != nil {
		return nil, startError(proto.StageUser, spec, err)
	}
	c.cwd = req.Cwd
	if c.cwd == "" {
		c.cwd = s.defaults.Workdir
	}
	if c.cwd == "" {
		c.cwd = "/"
	}
	if c.cwd[0] != '/' || strings.IndexByte(c.cwd, 0) >= 0 {
		return nil, startError(proto.StageCwd, c.cwd, errRelative)
	}
	var env environment
	env.add(s.defaults.Env)
	env.add(req.Env)
	env.fallback("PATH", defaultPath)
	if first := s.defaults.PathFirst; first != "" {
		path, _ := env.get("PATH")
		if path != "" {
			first += ":" + path
		}
		env.add([]string{"PATH=" + first})
	}
	env.fallback("HOME", c.id.home)
	if req.TTY && req.Term != "" {
		env.fallback("TERM", req.Term)
	}
	c.env = env.list
	c.path, _ = env.get("PATH")
	return c, nil
}

// locate checks the working directory and finds the executable, both with the
// rights of the command's user.
func (c *command) locate() (exe string, err error) {
	if c.id.uid == 0 {
		return c.locateHere()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Linux keeps these per thread. The thread ends with the goroutine,
		// because it is not unlocked.
		runtime.LockOSThread()
		if err = becomeForFiles(c.id); err != nil {
			err = startError(proto.StageUser, "", err)
			return
		}
		exe, err = c.locateHere()
	}()
	<-done
	return exe, err
}

// becomeForFiles gives the calling thread the user's rights on files.
func becomeForFiles(id identity) error {
	groups := make([]int, len(id.groups))
	for i, g := range id.groups {
		groups[i] = int(g)
	}
	if err := unix.Setgroups(groups); err != nil {
		return err
	}
	if err := unix.Setfsgid(int(id.gid)); err != nil {
		return err
	}
	return unix.Setfsuid(int(id.uid))
}

func (c *command) locateHere() (string, error) {
	// Path resolution needs no rights on the directory itself, entering it
	// does: this is what chdir(2) checks.
	var st unix.Stat_t
	err := unix.Stat(c.cwd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err == nil {
		err = unix.Faccessat(unix.AT_FDCWD, c.cwd, unix.X_OK, unix.AT_EACCESS)
	}
	if err != nil {
		return "", startError(proto.StageCwd, c.cwd, err)
	}
	name := c.argv[0]
	if strings.IndexByte(name, '/') >= 0 {
		return name, nil // execve says what is wrong with it, relative to cwd
	}
	var denied error
	for dir := range strings.SplitSeq(c.path, ":") {
		path := name
		if dir != "" {
			path = dir + "/" + name
		}
		if path[0] != '/' { // an entry that is relative to the working directory
			path = c.cwd + "/" + path
		}
		err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
		if err == nil {
			if err = unix.Stat(path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
				return path, nil
			}
			err = unix.EACCES // a directory or the like
		}
		if err == unix.EACCES && denied == nil {
			denied = err
			// Missing rights on the directory look the same, and mean nothing
			// if a later one has the command: only the first is kept.
		}
	}
	if denied == nil {
		denied = unix.ENOENT
	}
	return "", startError(proto.StageLookup, name, denied)
}

// streams are a command's ends of its stdin, stdout and stderr.
type streams [3]*os.File

// launch starts a command, as the leader of a session and process group of
// its own.
func (s *Server) launch(c *command, std streams) (*child, error) {
	exe, err := c.locate()
	if err != nil {
		return nil, err
	}
	if len(c.limits) > 0 || s.defaults.Restricted {
		return s.launchLimited(exe, c, std)
	}
	attr := &syscall.ProcAttr{
		Dir:   c.cwd,
		Env:   c.env,
		Files: []uintptr{std[0].Fd(), std[1].Fd(), std[2].Fd()},
		Sys: &syscall.SysProcAttr{
			Setsid:     true,
			Setctty:    c.tty,
			Credential: &syscall.Credential{Uid: c.id.uid, Gid: c.id.gid, Groups: c.id.groups},
		},
	}
	kid, err := s.reaper.fork(func() (int, error) { return forkExec(exe, c.argv, attr) })
	runtime.KeepAlive(std)
	if err != nil {
		return nil, startError(proto.StageExec, c.argv[0], err)
	}
	return kid, nil
}
