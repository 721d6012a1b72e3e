package guest

import "strings"

// defaultPath is the PATH of a command whose environment has none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is a list of KEY=value in which every key occurs once.
type environment struct {
	list []string
	at   map[string]int
}

// add sets the variables of more; later ones win.
func (e *environment) add(more []string) {
	if e.at == nil {
		e.at = make(map[string]int, len(more)+4)
	}
	for _, kv := range more {
		key, _, _ := strings.Cut(kv, "=")
		if i, ok := e.at[key]; ok {
			e.list[i] = kv
			continue
		}
		e.at[key] = len(e.list)
		e.list = append(e.list, kv)
	}
}

func (e *environment) get(key string) (string, bool) {
	i, ok := e.at[key]
	if !ok {
		return "", false
	}
	_, value, _ := strings.Cut(e.list[i], "=")
	return value, true
}

// fallback sets a variable that is not there.
func (e *environment) fallback(key, value string) {
	if _, ok := e.at[key]; !ok {
		e.add([]string{key + "=" + value})
	}
}
