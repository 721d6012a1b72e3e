// Command date prints the time, or sets the clock.
//
//	date [-u] [-d time|-r file] [-I[seconds]] [-R] [-s time] [+format]
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/when"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "date: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	t, utc, set := time.Now(), false, false
	format := "%a %b %e %H:%M:%S %Z %Y"
	var at, file string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		option, value := arg, ""
		if name, text, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(arg, "--") {
			option, value = name, text
		} else if len(arg) > 2 && strings.ContainsRune("drs", rune(arg[1])) && arg[0] == '-' {
			option, value = arg[:2], arg[2:]
		} else if arg == "-d" || arg == "-r" || arg == "-s" {
			if len(args) == 0 {
				return fmt.Errorf("%s needs a value", arg)
			}
			value, args = args[0], args[1:]
		}
		switch option {
		case "-u", "--utc", "--universal":
			utc = true
		case "-d", "--date":
			at = value
		case "-r", "--reference":
			file = value
		case "-s", "--set":
			at, set = value, true
		case "-R", "--rfc-email":
			format = "%a, %d %b %Y %H:%M:%S %z"
		case "-I", "-Idate", "--iso-8601":
			format = "%Y-%m-%d"
			if value == "seconds" {
				format = "%Y-%m-%dT%H:%M:%S%:z"
			}
		case "-Iseconds":
			format = "%Y-%m-%dT%H:%M:%S%:z"
		default:
			text, ok := strings.CutPrefix(arg, "+")
			if !ok {
				return fmt.Errorf("usage: date [-u] [-d time|-r file] [-I[seconds]] [-R] [-s time] [+format]")
			}
			format = text
		}
	}
	if file != "" {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		t = info.ModTime()
	}
	zone := time.Local
	if utc {
		zone = time.UTC
	}
	if at != "" {
		var err error
		if t, err = when.Parse(at, t, zone); err != nil {
			return err
		}
	}
	if set {
		ts := unix.NsecToTimespec(t.UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			return fmt.Errorf("set the clock: %w", err)
		}
	}
	fmt.Println(strftime(format, t.In(zone)))
	return nil
}

// forms are the conversions that Go's own formats can express.
var forms = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'c': "Mon Jan _2 15:04:05 2006", 'd': "02", 'D': "01/02/06",
	'e': "_2", 'F': "2006-01-02", 'H': "15", 'I': "03", 'j': "002", 'm': "01", 'M': "04", 'p': "PM", 'r': "03:04:05 PM", 'R': "15:04",
	'S': "05", 'T': "15:04:05", 'x': "01/02/06", 'X': "15:04:05", 'y': "06", 'Y': "2006", 'z': "-0700", 'Z': "MST",
}

func strftime(format string, t time.Time) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		plain := false // %-d: without padding
		if format[i] == '-' && i+1 < len(format) {
			plain = true
			i++
		}
		text := "%" + format[i:i+1]
		switch c := format[i]; c {
		case '%':
			text = "%"
		case 'n':
			text = "\n"
		case 't':
			text = "\t"
		case 's':
			text = strconv.FormatInt(t.Unix(), 10)
		case 'N':
			text = fmt.Sprintf("%09d", t.Nanosecond())
		case 'u':
			text = strconv.Itoa((int(t.Weekday())+6)%7 + 1)
		case 'w':
			text = strconv.Itoa(int(t.Weekday()))
		case 'V', 'G':
			year, week := t.ISOWeek()
			text = fmt.Sprintf("%02d", week)
			if c == 'G' {
				text = strconv.Itoa(year)
			}
		case ':':
			if i+1 < len(format) && format[i+1] == 'z' {
				i++
				text = t.Format("-07:00")
			}
		default:
			if form, ok := forms[c]; ok {
				text = t.Format(form)
			}
		}
		if plain {
			if trimmed := strings.TrimLeft(text, "0 "); trimmed != "" {
				text = trimmed
			} else {
				text = "0"
			}
		}
		b.WriteString(text)
	}
	return b.String()
}
