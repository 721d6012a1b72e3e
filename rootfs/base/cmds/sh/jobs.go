package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"
)

const (
	// startWait is how long $! is waited for: the first process of a job gives
	// the job its ID. A job that starts none gets a number that no process has.
	startWait = 100 * time.Millisecond
	// firstFake is above the kernel's highest process ID (PID_MAX_LIMIT, 2^22).
	firstFake = 1 << 22
)

// jobs are the background jobs of the shell and its subshells.
type jobs struct {
	mu  sync.Mutex
	all []*job
}

// job is one background list of commands. A nil job is the foreground.
type job struct {
	mu     *sync.Mutex
	id     int
	pid    int // of its first process, or a fake number once the job was asked for it
	text   string
	live   map[int]bool
	killed bool
	status int
	told   bool

	started chan struct{} // closed when pid is known
	done    chan struct{}
}

func (j *jobs) init() {}

func (j *jobs) get(id int) *job {
	j.mu.Lock()
	defer j.mu.Unlock()
	if id < 1 || id > len(j.all) {
		return nil
	}
	return j.all[id-1]
}

// of finds the job that a command belongs to.
func (j *jobs) of(hc interp.HandlerContext) *job {
	id, _ := strconv.Atoi(hc.Env.Get(jobVar).String())
	return j.get(id)
}

// find finds a job by process ID or by %number.
func (j *jobs) find(spec string) *job {
	if n, ok := strings.CutPrefix(spec, "%"); ok {
		id, _ := strconv.Atoi(n)
		return j.get(id)
	}
	pid, err := strconv.Atoi(spec)
	if err != nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, job := range j.all {
		if job.pid == pid {
			return job
		}
	}
	return nil
}

func (b *job) began(pid int, text string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.live[pid] = true
	if b.pid == 0 {
		b.pid, b.text = pid, text
		close(b.started)
	}
	if b.killed {
		unix.Kill(pid, unix.SIGTERM)
	}
}

func (b *job) ended(pid int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.live, pid)
}

func (b *job) cancelled() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.killed
}

// signal reaches the processes that the job runs now. A signal that means the
// end also keeps it from starting more.
func (b *job) signal(sig unix.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.done:
		return unix.ESRCH
	default:
	}
	switch sig {
	case unix.SIGTERM, unix.SIGKILL, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT:
		b.killed = true
	}
	for pid := range b.live {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

// jobNew runs in the parent: commands of the job find it by a variable.
func (s *shell) jobNew(ctx context.Context, hc interp.HandlerContext) error {
	s.jobs.mu.Lock()
	b := &job{
		mu: &s.jobs.mu, id: len(s.jobs.all) + 1, live: map[int]bool{},
		started: make(chan struct{}), done: make(chan struct{}),
	}
	s.jobs.all = append(s.jobs.all, b)
	s.jobs.mu.Unlock()
	outer := hc.Env.Get(jobVar).String()
	return hc.Builtin(ctx, []string{"eval", fmt.Sprintf("%s_outer=%s; %s=%d", jobVar, outer, jobVar, b.id)})
}

// jobStarted runs in the parent after the job was started: it sets $!.
func (s *shell) jobStarted(ctx context.Context, hc interp.HandlerContext) error {
	b := s.jobs.of(hc)
	if b == nil {
		return nil
	}
	timer := time.NewTimer(startWait)
	defer timer.Stop()
	select {
	case <-b.started:
	case <-b.done:
	case <-timer.C:
	}
	b.mu.Lock()
	if b.pid == 0 {
		b.pid = firstFake + b.id
		close(b.started)
	}
	pid := b.pid
	b.mu.Unlock()
	if s.interactive {
		fmt.Fprintf(hc.Stderr, "[%d] %d\n", b.id, pid)
	}
	outer := hc.Env.Get(jobVar + "_outer").String()
	return hc.Builtin(ctx, []string{"eval", fmt.Sprintf("%s=%s; %s=%d", jobVar, outer, lastVar, pid)})
}

// jobEnd is the last command of a job.
func (s *shell) jobEnd(hc interp.HandlerContext) error {
	b := s.jobs.of(hc)
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = hc.LastExitStatus
	close(b.done)
	if b.status != 0 {
		return interp.ExitStatus(b.status)
	}
	return nil
}

// wait waits for jobs; a signal that is trapped ends it early.
func (s *shell) wait(hc interp.HandlerContext, args []string) error {
	self := s.jobs.of(hc)
	var list []*job
	if len(args) == 0 {
		s.jobs.mu.Lock()
		list = append(list, s.jobs.all...)
		s.jobs.mu.Unlock()
	}
	for _, arg := range args {
		b := s.jobs.find(arg)
		if b == nil {
			fmt.Fprintf(hc.Stderr, "sh: wait: %s is not a child of this shell\n", arg)
			return interp.ExitStatus(127)
		}
		list = append(list, b)
	}
	status := 0
	for _, b := range list {
		if b == self {
			continue
		}
		select {
		case <-b.done:
			status = b.status
		case sig := <-s.traps.wake:
			return interp.ExitStatus(128 + sig)
		}
	}
	if len(args) > 0 && status != 0 {
		return interp.ExitStatus(status)
	}
	return nil
}

// list prints the jobs that run.
func (j *jobs) list(w io.Writer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, b := range j.all {
		select {
		case <-b.done:
		default:
			fmt.Fprintf(w, "[%d] %d Running  %s\n", b.id, b.pid, b.text)
		}
	}
}

// report tells an interactive user about jobs that ended.
func (j *jobs) report(w io.Writer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, b := range j.all {
		select {
		case <-b.done:
			if !b.told {
				b.told = true
				fmt.Fprintf(w, "[%d] Done(%d)  %s\n", b.id, b.status, b.text)
			}
		default:
		}
	}
}
