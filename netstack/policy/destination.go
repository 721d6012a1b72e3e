package policy

import (
	"net/netip"
	"strings"
)

// Destination is the other end of the flows that a rule is about. Exactly one
// of the fields is set; none is every destination.
type Destination struct {
	// Prefix is an address (with all its bits) or a network.
	Prefix netip.Prefix
	Group  Group
	// Domain is a name, without its subdomains.
	Domain string
	// Suffix is a domain with all its subdomains, of two labels at least and
	// without a dot in front.
	Suffix string
}

// Anywhere is every destination.
func Anywhere() Destination { return Destination{} }

// To is one address.
func To(a netip.Addr) Destination {
	a = Normal(a)
	return Destination{Prefix: netip.PrefixFrom(a, a.BitLen())}
}

// ToPrefix is a network.
func ToPrefix(p netip.Prefix) Destination { return Destination{Prefix: p} }

// ToGroup is a class of addresses.
func ToGroup(g Group) Destination { return Destination{Group: g} }

// ToDomain is one domain name.
func ToDomain(name string) Destination { return Destination{Domain: NormalName(name)} }

// ToSuffix is a domain and everything below it.
func ToSuffix(name string) Destination {
	return Destination{Suffix: NormalName(strings.TrimPrefix(name, "."))}
}

// named says that the destination is told by a name and not by an address.
func (d Destination) named() bool { return d.Domain != "" || d.Suffix != "" }

// MatchName tells whether a name is the destination's. A destination that is
// no domain has no names.
func (d Destination) MatchName(name string) bool {
	name = NormalName(name)
	switch {
	case name == "":
		return false
	case d.Domain != "":
		return name == d.Domain
	case d.Suffix != "":
		rest, ok := strings.CutSuffix(name, d.Suffix)
		return ok && (rest == "" || strings.HasSuffix(rest, "."))
	}
	return false
}

func (d *Destination) matchAny(names []string) bool {
	for _, n := range names {
		if d.MatchName(n) {
			return true
		}
	}
	return false
}

// String writes the destination as ParseRule reads it.
func (d Destination) String() string {
	switch {
	case d.Domain != "":
		return d.Domain
	case d.Suffix != "":
		return "." + d.Suffix
	case d.Group != 0:
		return d.Group.String()
	case d.Prefix.IsValid():
		s := d.Prefix.String()
		if d.Prefix.IsSingleIP() {
			s = d.Prefix.Addr().String()
		}
		if d.Prefix.Addr().Is6() {
			return "[" + s + "]"
		}
		return s
	}
	return "any"
}

// NormalName is the form of a domain name that is compared: lower case, without
// the final dot.
func NormalName(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// Bounds of domain names, RFC 1035.
const (
	maxName  = 253
	maxLabel = 63
)

// checkName says what is wrong with a normalised name, "" if nothing.
func checkName(name string) string {
	if name == "" {
		return "empty name"
	}
	if len(name) > maxName {
		return "longer than 253 bytes"
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "an address, not a name"
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return "a label is empty or longer than 63 bytes"
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return "a label begins or ends with a hyphen"
		}
		for _, c := range []byte(label) {
			switch {
			case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			case c >= 0x80:
				return "write international names in their ASCII form (xn--…)"
			default:
				return "want letters, digits, '-' and '_'"
			}
		}
	}
	return ""
}

// CheckName says what is wrong with the name of a domain or suffix as a host
// name: a *[FieldError], or nil.
func (d Destination) CheckName() error {
	name := d.Domain + d.Suffix
	if problem := checkName(name); problem != "" {
		return &FieldError{"name", name, problem}
	}
	return nil
}

// check says what is wrong with a destination, "" if nothing.
func (d Destination) check() (field, problem string) {
	set := 0
	for _, is := range []bool{d.Prefix != netip.Prefix{}, d.Group != 0, d.Domain != "", d.Suffix != ""} {
		if is {
			set++
		}
	}
	switch {
	case set > 1:
		return "", "more than one of address, group, domain and suffix"
	case d.Prefix != netip.Prefix{}:
		switch p := d.Prefix; {
		case !p.IsValid():
			return ".Prefix", "not a network"
		case p != p.Masked():
			return ".Prefix", "bits set beyond the prefix; want " + p.Masked().String()
		case p.Addr().Is4In6():
			return ".Prefix", "write IPv4 networks as IPv4"
		}
	case d.Group != 0 && !d.Group.valid():
		return ".Group", "unknown group"
	case d.Domain != "":
		if _, is := parseGroup(d.Domain); is || d.Domain == "any" {
			return ".Domain", "the name of a group; use Group"
		}
		if d.Domain != NormalName(d.Domain) {
			return ".Domain", "want lower case without a final dot"
		}
		return ".Domain", checkName(d.Domain)
	case d.Suffix != "":
		if d.Suffix != NormalName(d.Suffix) {
			return ".Suffix", "want lower case without a final dot"
		}
		if problem := checkName(d.Suffix); problem != "" {
			return ".Suffix", problem
		}
		if !strings.Contains(d.Suffix, ".") {
			return ".Suffix", "one label is too wide; want two at least"
		}
	}
	return "", ""
}
