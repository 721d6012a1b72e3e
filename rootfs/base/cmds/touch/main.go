// Command touch sets the times of files, and makes those that are not there.
//
//	touch [-a] [-m] [-c] [-h] [-d time | -t [[CC]YY]MMDDhhmm[.ss] | -r file] file...
package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/when"
)

func main() { tool.Main("touch", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "amcfhd:t:r:", Long: "no-create=c date=d reference=r no-dereference=h", Min: 1,
		Usage: "[-a] [-m] [-c] [-h] [-d time | -t [[CC]YY]MMDDhhmm[.ss] | -r file] file...",
	}, args)
	if !ok {
		return
	}
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	times := []unix.Timespec{now, now}
	var access, modify, keep bool
	flags := 0
	for _, o := range options {
		var t time.Time
		var err error
		switch o.Letter {
		case 'a':
			access = true
		case 'm':
			modify = true
		case 'c':
			keep = true
		case 'h':
			flags, keep = unix.AT_SYMLINK_NOFOLLOW, true
		case 'r':
			var st unix.Stat_t
			if err = unix.Stat(o.Value, &st); err == nil {
				times = []unix.Timespec{st.Atim, st.Mtim}
			} else {
				err = &fs.PathError{Op: "stat", Path: o.Value, Err: err}
			}
		case 'd':
			t, err = when.Parse(o.Value, time.Now(), time.Local)
		case 't':
			t, err = stamp(o.Value, time.Now())
		}
		if err != nil {
			e.Fail(err)
			return
		}
		if o.Letter == 'd' || o.Letter == 't' {
			ts := unix.NsecToTimespec(t.UnixNano())
			times = []unix.Timespec{ts, ts}
		}
	}
	if access && !modify {
		times[1].Nsec = unix.UTIME_OMIT
	}
	if modify && !access {
		times[0].Nsec = unix.UTIME_OMIT
	}
	for _, name := range files {
		err := unix.UtimesNanoAt(unix.AT_FDCWD, name, times, flags)
		if errors.Is(err, fs.ErrNotExist) {
			if keep {
				continue
			}
			var f *os.File
			if f, err = os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o666); err == nil {
				f.Close()
				err = unix.UtimesNanoAt(unix.AT_FDCWD, name, times, flags)
			}
		}
		if err != nil {
			e.Failf("%s: %w", name, cause(err))
		}
	}
}

func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// stamp reads [[CC]YY]MMDDhhmm[.ss].
func stamp(text string, now time.Time) (time.Time, error) {
	digits, seconds, ok := strings.Cut(text, ".")
	if !ok {
		seconds = "00"
	}
	switch len(digits) {
	case 8:
		digits = now.Format("2006") + digits
	case 10:
		century := "20"
		if digits[:2] >= "69" {
			century = "19"
		}
		digits = century + digits
	}
	return time.ParseInLocation("20060102150405", digits+seconds, time.Local)
}
