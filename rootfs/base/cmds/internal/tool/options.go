package tool

import (
	"fmt"
	"strconv"
	"strings"
)

// Option is one option of a command line.
type Option struct {
	Letter byte
	Value  string
}

// Syntax says which options a command takes.
type Syntax struct {
	// Letters of the options; a colon follows those that have a value.
	Letters string
	// Long names: "name=letter name=letter".
	Long string
	// Usage is the text behind the command's name when an option is wrong.
	Usage string
	// Number is the letter that a bare number such as -3 stands for, if any.
	Number byte
	// Strict ends the options at the first operand.
	Strict bool
	// Min and Max operands; a Max of 0 is no limit.
	Min, Max int
}

// Parse takes a command line apart. When it is wrong it says so, with the exit
// status 2, and ok is false.
func (e *Env) Parse(s *Syntax, args []string) (options []Option, operands []string, ok bool) {
	options, operands, err := s.parse(args)
	if err == nil && (len(operands) < s.Min || s.Max > 0 && len(operands) > s.Max) {
		err = fmt.Errorf("%d operands", len(operands))
	}
	if err != nil {
		e.FailWith(2, fmt.Errorf("%w\nusage: %s %s", err, e.Name, s.Usage))
		return nil, nil, false
	}
	return options, operands, true
}

func (s *Syntax) parse(args []string) (options []Option, operands []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return options, append(operands, args...), nil
		case len(arg) < 2 || arg[0] != '-':
			operands = append(operands, arg)
			if s.Strict {
				return options, append(operands, args...), nil
			}
		case arg[1] == '-':
			var o Option
			if o, args, err = s.long(arg[2:], args); err != nil {
				return nil, nil, err
			}
			options = append(options, o)
		default:
			var some []Option
			if some, args, err = s.short(arg[1:], args); err != nil {
				return nil, nil, err
			}
			options = append(options, some...)
		}
	}
	return options, operands, nil
}

func (s *Syntax) long(word string, args []string) (Option, []string, error) {
	name, value, hasValue := strings.Cut(word, "=")
	for known := range strings.FieldsSeq(s.Long) {
		long, letter, _ := strings.Cut(known, "=")
		if long != name {
			continue
		}
		wants := strings.Contains(s.Letters, letter+":")
		switch {
		case wants && !hasValue && len(args) > 0:
			value, args = args[0], args[1:]
		case wants != hasValue:
			return Option{}, nil, fmt.Errorf("wrong use of option --%s", name)
		}
		return Option{letter[0], value}, args, nil
	}
	return Option{}, nil, fmt.Errorf("unknown option --%s", name)
}

// short reads one word of letters.
func (s *Syntax) short(word string, args []string) ([]Option, []string, error) {
	if s.Number != 0 && strings.Trim(word, "0123456789") == "" {
		return []Option{{s.Number, word}}, args, nil
	}
	var options []Option
	for i := 0; i < len(word); i++ {
		at := strings.IndexByte(s.Letters, word[i])
		if at < 0 || word[i] == ':' {
			return nil, nil, fmt.Errorf("unknown option -%c", word[i])
		}
		if at+1 == len(s.Letters) || s.Letters[at+1] != ':' {
			options = append(options, Option{Letter: word[i]})
			continue
		}
		value := word[i+1:]
		if value == "" {
			if len(args) == 0 {
				return nil, nil, fmt.Errorf("option -%c needs a value", word[i])
			}
			value, args = args[0], args[1:]
		}
		return append(options, Option{word[i], value}), args, nil
	}
	return options, args, nil
}

// Size reads a number of bytes or lines with an optional suffix: b is 512, k, M,
// G and T are powers of 1024, kB, MB, GB and TB of 1000.
func Size(text string) (int64, error) {
	digits := strings.TrimRight(text, "bBcwkKMGTi")
	unit := int64(1)
	switch suffix := text[len(digits):]; suffix {
	case "", "c":
	case "w":
		unit = 2
	case "b":
		unit = 512
	default:
		power := strings.IndexByte("kMGT", suffix[0])
		if suffix[0] == 'K' {
			power = 0
		}
		base := int64(1024)
		switch suffix[1:] {
		case "", "iB":
		case "B":
			base = 1000
		default:
			power = -1
		}
		if power < 0 {
			return 0, fmt.Errorf("not a size: %q", text)
		}
		for range power + 1 {
			unit *= base
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n*unit/unit != n {
		return 0, fmt.Errorf("not a size: %q", text)
	}
	return n * unit, nil
}

// Human shows a number of bytes in at most four letters and a unit.
func Human(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	v := float64(n)
	for _, unit := range "KMGTPE" {
		if v /= 1024; v < 1024 {
			if v < 10 {
				return fmt.Sprintf("%.1f%c", v, unit)
			}
			return fmt.Sprintf("%.0f%c", v, unit)
		}
	}
	return strconv.FormatInt(n, 10)
}
