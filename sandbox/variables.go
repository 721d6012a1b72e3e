package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// variables are an environment, or other texts by name, whose values may be
// any bytes. JSON has no strings of that kind, so values that are no UTF-8, and
// those that look like it, are saved with base64Prefix.
type variables map[string]string

const base64Prefix = "base64:"

// MarshalJSON makes an object of strings.
func (v variables) MarshalJSON() ([]byte, error) {
	m := make(map[string]string, len(v))
	for k, s := range v {
		if !utf8.ValidString(s) || strings.HasPrefix(s, base64Prefix) {
			s = base64Prefix + base64.StdEncoding.EncodeToString([]byte(s))
		}
		m[k] = s
	}
	return json.Marshal(m)
}

// UnmarshalJSON is the reverse of MarshalJSON.
func (v *variables) UnmarshalJSON(b []byte) error {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for k, s := range m {
		if enc, ok := strings.CutPrefix(s, base64Prefix); ok {
			raw, err := base64.StdEncoding.DecodeString(enc)
			if err != nil {
				return err
			}
			m[k] = string(raw)
		}
	}
	*v = m
	return nil
}
