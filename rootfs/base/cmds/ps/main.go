// Command ps lists processes: all of them, unless told which.
//
//	ps [-AaedfFlwx] [-p pid,...] [-u user] [-o column,...] [aux]
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("ps", run) }

const (
	plainColumns = "pid,tty,time,comm"
	fullColumns  = "user:UID,pid,ppid,c,stime,tty,time,args:CMD"
	userColumns  = "user,pid,pcpu,pmem,vsz,rss,tty,stat,start,time,args"
)

func run(e *tool.Env, args []string) {
	// BSD's options have no dash.
	columns := plainColumns
	if len(args) > 0 && args[0] == "-aux" { // not the processes of a user x
		args[0] = "aux"
	}
	if len(args) > 0 && args[0] != "" && strings.Trim(args[0], "aAuxwefl") == "" {
		switch {
		case strings.Contains(args[0], "u"):
			columns = userColumns
		case strings.Contains(args[0], "f"), strings.Contains(args[0], "l"):
			columns = fullColumns
		default:
			columns = "pid,tty,stat,time,args"
		}
		args = args[1:]
	}
	options, _, ok := e.Parse(&tool.Syntax{
		Letters: "AaedfFjlwxTo:p:u:U:C:", Long: "pid=p format=o user=u", Usage: "[-ef] [-p pid,...] [-u user] [-o column,...] [aux]", Max: 1,
	}, args)
	if !ok {
		return
	}
	var wanted func(p *process) bool
	for _, o := range options {
		list := strings.FieldsFunc(o.Value, func(c rune) bool { return c == ',' || c == ' ' })
		switch o.Letter {
		case 'f', 'F', 'l', 'j':
			columns = fullColumns
		case 'o':
			columns = strings.Join(list, ",")
		case 'p':
			wanted = func(p *process) bool { return slices.Contains(list, strconv.Itoa(p.pid)) }
		case 'C':
			wanted = func(p *process) bool { return slices.Contains(list, p.comm) }
		case 'u', 'U':
			wanted = func(p *process) bool {
				return slices.Contains(list, userName(p.uid)) || slices.Contains(list, strconv.Itoa(p.uid))
			}
		}
	}
	t, err := newTable(columns)
	if err != nil {
		e.Fail(err)
		return
	}
	sys, err := machine("/proc")
	if err != nil {
		e.Fail(err)
		return
	}
	found := false
	for _, p := range processes("/proc") {
		if wanted == nil || wanted(p) {
			t.add(sys, p)
			found = true
		}
	}
	if !found {
		e.Status = 1
	}
	t.print(e)
}

type column struct {
	title string
	right bool
	value func(sys *system, p *process) string
}

// columnsByName are what -o takes.
var columnsByName = map[string]column{
	"pid":   {"PID", true, func(_ *system, p *process) string { return strconv.Itoa(p.pid) }},
	"ppid":  {"PPID", true, func(_ *system, p *process) string { return strconv.Itoa(p.ppid) }},
	"pgid":  {"PGID", true, func(_ *system, p *process) string { return strconv.Itoa(p.pgrp) }},
	"sid":   {"SID", true, func(_ *system, p *process) string { return strconv.Itoa(p.session) }},
	"uid":   {"UID", true, func(_ *system, p *process) string { return strconv.Itoa(p.uid) }},
	"user":  {"USER", false, func(_ *system, p *process) string { return userName(p.uid) }},
	"c":     {"C", true, func(s *system, p *process) string { return fmt.Sprintf("%.0f", s.cpu(p)) }},
	"pcpu":  {"%CPU", true, func(s *system, p *process) string { return fmt.Sprintf("%.1f", s.cpu(p)) }},
	"pmem":  {"%MEM", true, func(s *system, p *process) string { return fmt.Sprintf("%.1f", s.mem(p)) }},
	"vsz":   {"VSZ", true, func(_ *system, p *process) string { return strconv.FormatInt(p.vsize>>10, 10) }},
	"rss":   {"RSS", true, func(_ *system, p *process) string { return strconv.FormatInt(p.rss>>10, 10) }},
	"ni":    {"NI", true, func(_ *system, p *process) string { return strconv.Itoa(p.nice) }},
	"nlwp":  {"NLWP", true, func(_ *system, p *process) string { return strconv.Itoa(p.threads) }},
	"tty":   {"TTY", false, func(_ *system, p *process) string { return p.terminal() }},
	"stat":  {"STAT", false, func(_ *system, p *process) string { return p.stat() }},
	"s":     {"S", false, func(_ *system, p *process) string { return p.state }},
	"stime": {"STIME", true, func(s *system, p *process) string { return s.start(p) }},
	"start": {"START", true, func(s *system, p *process) string { return s.start(p) }},
	"time":  {"TIME", true, func(_ *system, p *process) string { return clock(p.ticks / hz) }},
	"etime": {"ELAPSED", true, func(s *system, p *process) string { return clock(int64(time.Since(s.began(p)).Seconds())) }},
	"comm":  {"CMD", false, func(_ *system, p *process) string { return p.comm }},
	"args":  {"COMMAND", false, func(_ *system, p *process) string { return p.args }},
}

var otherNames = map[string]string{
	"cmd": "args", "command": "args", "ucmd": "comm", "%cpu": "pcpu", "%mem": "pmem", "tt": "tty", "tname": "tty",
	"state": "s", "uname": "user", "euser": "user", "euid": "uid", "rssize": "rss", "vsize": "vsz", "nice": "ni", "cputime": "time",
}

type table struct {
	columns []column
	rows    [][]string
	titles  bool
}

// newTable reads names of columns; "name=title" or "name:title" gives another title.
func newTable(names string) (*table, error) {
	t := &table{}
	for item := range strings.SplitSeq(names, ",") {
		at := strings.IndexAny(item, "=:")
		name, title := item, ""
		if at >= 0 {
			name, title = item[:at], item[at+1:]
		}
		if other, ok := otherNames[name]; ok {
			name = other
		}
		c, ok := columnsByName[name]
		if !ok {
			return nil, errors.New("unknown column " + name)
		}
		if at >= 0 {
			c.title = title
		}
		t.titles = t.titles || c.title != ""
		t.columns = append(t.columns, c)
	}
	return t, nil
}

func (t *table) add(sys *system, p *process) {
	row := make([]string, len(t.columns))
	for i, c := range t.columns {
		row[i] = c.value(sys, p)
	}
	t.rows = append(t.rows, row)
}

func (t *table) print(e *tool.Env) {
	widths := make([]int, len(t.columns))
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
	}
	rows := t.rows
	if t.titles {
		rows = append([][]string{titles}, rows...)
	}
	for _, row := range rows {
		for i, text := range row {
			widths[i] = max(widths[i], len(text))
		}
	}
	for _, row := range rows {
		for i, text := range row {
			switch {
			case t.columns[i].right:
				text = fmt.Sprintf("%*s", widths[i], text)
			case i+1 < len(row):
				text = fmt.Sprintf("%-*s", widths[i], text)
			}
			if i > 0 {
				text = " " + text
			}
			e.Out.WriteString(text)
		}
		e.Out.WriteByte('\n')
	}
}

func clock(seconds int64) string {
	text := fmt.Sprintf("%02d:%02d:%02d", seconds/3600%24, seconds/60%60, seconds%60)
	if days := seconds / 86400; days > 0 {
		text = fmt.Sprintf("%d-%s", days, text)
	}
	return text
}

func processes(proc string) []*process {
	entries, _ := os.ReadDir(proc)
	var list []*process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, err := read(proc, pid); err == nil { // else it is gone already
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *process) int { return a.pid - b.pid })
	return list
}
