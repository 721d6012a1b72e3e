package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// hz is the unit of times in /proc, the same on all of Linux's architectures
// that Go knows (USER_HZ).
const hz = 100

// process is what /proc says of one.
type process struct {
	pid, ppid, pgrp, session, foreground, nice, threads, uid int
	tty                                                      uint64
	ticks, born, vsize, rss                                  int64
	state, comm, args                                        string
}

var errStat = errors.New("malformed stat file")

func read(proc string, pid int) (*process, error) {
	dir := proc + "/" + strconv.Itoa(pid)
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, err
	}
	p, err := parseStat(string(text))
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			p.uid = int(st.Uid)
		}
	}
	line, _ := os.ReadFile(dir + "/cmdline")
	p.args = strings.TrimRight(strings.ReplaceAll(string(line), "\x00", " "), " ")
	if p.args == "" {
		p.args = "[" + p.comm + "]" // a kernel thread, or a zombie
	}
	return p, nil
}

// parseStat reads a line of /proc/PID/stat. The name may hold anything.
func parseStat(text string) (*process, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return nil, errStat
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 22 {
		return nil, errStat
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text[:open]))
	if err != nil {
		return nil, errStat
	}
	// Fields are numbered from 3 in proc(5).
	number := func(field int) int64 {
		n, err2 := strconv.ParseInt(f[field-3], 10, 64)
		if err2 != nil {
			if u, err3 := strconv.ParseUint(f[field-3], 10, 64); err3 == nil {
				return int64(u)
			}
			err = errStat
		}
		return n
	}
	p := &process{
		pid: pid, comm: text[open+1 : end], state: f[0],
		ppid: int(number(4)), pgrp: int(number(5)), session: int(number(6)), tty: uint64(number(7)), foreground: int(number(8)),
		ticks: number(14) + number(15), nice: int(number(19)), threads: int(number(20)), born: number(22),
		vsize: number(23), rss: number(24) * int64(os.Getpagesize()),
	}
	return p, err
}

func (p *process) stat() string {
	s := p.state
	if p.nice < 0 {
		s += "<"
	}
	if p.nice > 0 {
		s += "N"
	}
	if p.session == p.pid {
		s += "s"
	}
	if p.threads > 1 {
		s += "l"
	}
	if p.foreground == p.pgrp {
		s += "+"
	}
	return s
}

// terminal names the controlling terminal by its device number.
func (p *process) terminal() string {
	major, minor := p.tty>>8&0xfff, p.tty&0xff|p.tty>>12&0xfff00
	switch {
	case p.tty == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8|minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	case major == 5 && minor == 1:
		return "console"
	case major == 229:
		return fmt.Sprintf("hvc%d", minor)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

// system is what is common to all processes.
type system struct {
	boot   time.Time
	memory int64
}

func machine(proc string) (*system, error) {
	s := &system{}
	text, err := os.ReadFile(proc + "/uptime")
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	up, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return nil, err
	}
	s.boot = time.Now().Add(-time.Duration(up * float64(time.Second)))
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		s.memory = int64(info.Totalram) * int64(info.Unit)
	}
	return s, nil
}

func (s *system) began(p *process) time.Time {
	return s.boot.Add(time.Duration(p.born) * (time.Second / hz))
}

func (s *system) cpu(p *process) float64 {
	life := time.Since(s.began(p)).Seconds()
	if life <= 0 {
		return 0
	}
	return float64(p.ticks) / hz / life * 100
}

func (s *system) mem(p *process) float64 {
	if s.memory == 0 {
		return 0
	}
	return float64(p.rss) / float64(s.memory) * 100
}

func (s *system) start(p *process) string {
	t := s.began(p)
	if time.Since(t) > 24*time.Hour {
		return t.Format("Jan02")
	}
	return t.Format("15:04")
}

func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
