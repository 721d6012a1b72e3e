package policy

// MarshalText writes an action as "allow" or "deny".
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (a *Action) UnmarshalText(b []byte) error {
	switch string(b) {
	case "allow":
		*a = Allow
	case "deny":
		*a = Deny
	default:
		return &FieldError{"action", string(b), "want allow or deny"}
	}
	return nil
}

// MarshalText writes a rule as ParseRule reads it.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), r.Check() }

// UnmarshalText is ParseRule.
func (r *Rule) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRule(string(b))
	return err
}
