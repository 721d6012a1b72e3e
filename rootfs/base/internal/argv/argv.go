// Package argv turns the command lines that people write into those that
// u-root's programs take, which parse them with Go's flag package: that knows
// neither "-sr" for "-s -r", nor "-n3".
//
// The build program copies this file into the executables.
package argv

// options says what a program takes: letters without and with a value, and
// letters that are accepted and dropped.
type options struct {
	flags, values, ignored string
}

var programs = map[string]options{
	"cmp":      {flags: "lLs"},
	"comm":     {flags: "123h"},
	"free":     {flags: "hbkmgt"},
	"hexdump":  {ignored: "C"},
	"pidof":    {flags: "sq"},
	"readlink": {flags: "fnv", ignored: "e"},
	"realpath": {flags: "q", ignored: "es"},
	"seq":      {flags: "w", values: "fs"},
	"truncate": {flags: "co", values: "rs"},
	"umount":   {flags: "fl"},
	"uname":    {flags: "asnrvmp", ignored: "io"},
	"uniq":     {flags: "udci", values: "f"},
	"which":    {flags: "av"},
}

// normalize rewrites the arguments of the named program, without its name.
// What it does not understand stays as it is.
func normalize(name string, args []string) []string {
	o, ok := programs[name]
	if !ok {
		return args
	}
	var out []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		if len(arg) < 2 || arg[0] != '-' || arg[1] == '-' {
			out = append(out, arg)
			continue
		}
		split, wantsValue, ok := o.split(arg[1:])
		if !ok {
			out = append(out, arg)
			continue
		}
		out = append(out, split...)
		if wantsValue && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out
}

// split takes a word of options apart. wantsValue says that the value of the
// last one is the next argument.
func (o options) split(word string) (out []string, wantsValue, ok bool) {
	for i := 0; i < len(word); i++ {
		c := word[i]
		switch {
		case has(o.flags, c):
			out = append(out, "-"+word[i:i+1])
		case has(o.ignored, c):
		case has(o.values, c):
			out = append(out, "-"+word[i:i+1])
			if i+1 < len(word) {
				return append(out, word[i+1:]), false, true
			}
			return out, true, true
		default:
			return nil, false, false
		}
	}
	return out, false, true
}

func has(set string, c byte) bool {
	for i := 0; i < len(set); i++ {
		if set[i] == c {
			return true
		}
	}
	return false
}
