package policy

import "slices"

// None has no network at all, not even a device.
func None() Policy { return Policy{NoNetwork: true} }

// Public lets the guest reach public addresses, and nothing else; published
// ports are open.
func Public() Policy {
	return Policy{Rules: []Rule{{Action: Allow, Destination: ToGroup(GroupPublic)}}, Ingress: Allow}
}

// NonLocal is Public and private networks. The host, loopback, link-local,
// metadata and multicast addresses stay closed.
func NonLocal() Policy {
	p := Public()
	p.Rules = append(p.Rules, Rule{Action: Allow, Destination: ToGroup(GroupPrivate)})
	return p
}

// AllowAll lets everything through, to the host as well.
func AllowAll() Policy { return Policy{Egress: Allow, Ingress: Allow} }

// Preset is one of the above by its name: "none", "public", "non-local",
// "allow-all".
func Preset(name string) (Policy, error) {
	switch name {
	case "none":
		return None(), nil
	case "public":
		return Public(), nil
	case "non-local":
		return NonLocal(), nil
	case "allow-all":
		return AllowAll(), nil
	}
	return Policy{}, &FieldError{"preset", name, "want none, public, non-local or allow-all"}
}

// WithDenied puts denials of domains (each without its subdomains) and of
// suffixes (each with them) before everything else.
func (p Policy) WithDenied(domains, suffixes []string) Policy {
	var first []Rule
	for _, d := range domains {
		first = append(first, Rule{Action: Deny, Destination: ToDomain(d)})
	}
	for _, s := range suffixes {
		first = append(first, Rule{Action: Deny, Destination: ToSuffix(s)})
	}
	return p.WithRules(first...)
}

// WithRules puts rules before those that are there.
func (p Policy) WithRules(rules ...Rule) Policy {
	p = p.Clone()
	p.Rules = slices.Concat(rules, p.Rules)
	return p
}
