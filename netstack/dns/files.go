package dns

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hutchvm/hutch/netstack/policy"
)

const (
	// maxFile bounds what is read of the host's files.
	maxFile = 1 << 20
	// recheck is how often a file is looked at for a change.
	recheck = 5 * time.Second
	// maxSearch bounds the search domains, as the C library's resolver does.
	maxSearch = 6
)

// watched reads a file again when it has changed.
type watched struct {
	mu      sync.Mutex
	checked time.Time
	stamp   time.Time
	size    int64
}

// changed tells whether the file has to be read (again). Called with mu held.
func (w *watched) changed(path string, now time.Time) bool {
	if !w.checked.IsZero() && now.Sub(w.checked) < recheck {
		return false
	}
	first := w.checked.IsZero()
	w.checked = now
	st, err := os.Stat(path)
	if err != nil {
		same := w.size == -1
		w.size = -1
		return first || !same
	}
	if !first && st.ModTime().Equal(w.stamp) && st.Size() == w.size {
		return false
	}
	w.stamp, w.size = st.ModTime(), st.Size()
	return true
}

// lines calls f for the fields of each line of a file, without comments.
func lines(path, comments string, f func(fields []string)) {
	file, err := os.Open(path)
	if err != nil {
		return // as if it were empty
	}
	defer file.Close()
	s := bufio.NewScanner(io.LimitReader(file, maxFile))
	for s.Scan() {
		line := s.Text()
		if i := strings.IndexAny(line, comments); i >= 0 {
			line = line[:i]
		}
		if fields := strings.Fields(line); len(fields) > 0 {
			f(fields)
		}
	}
}

// resolvFile is a resolv.conf.
type resolvFile struct {
	path string
	watched
	servers []*server
}

// current are its resolvers. A server keeps its state when the file changes.
func (r *resolvFile) current(now time.Time) []*server {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.changed(r.path, now) {
		return r.servers
	}
	var list []*server
	lines(r.path, "#;", func(f []string) {
		if f[0] != "nameserver" || len(f) < 2 || len(list) >= maxServers {
			return
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			list = append(list, r.keep(a.Unmap()))
		}
	})
	if len(list) == 0 { // what resolv.conf(5) says
		list = append(list, r.keep(netip.AddrFrom4([4]byte{127, 0, 0, 1})))
	}
	r.servers = list
	return list
}

func (r *resolvFile) keep(a netip.Addr) *server {
	for _, s := range r.servers {
		if s.addr == a {
			return s
		}
	}
	return &server{addr: a, port: 53}
}

// Search are the search domains of a resolv.conf ("" is the host's).
func Search(path string) []string {
	var list []string
	lines(orElse(path, "/etc/resolv.conf"), "#;", func(f []string) {
		if f[0] == "search" || f[0] == "domain" {
			list = nil // the last one counts
			for _, name := range f[1:] {
				name = policy.NormalName(name)
				if policy.ToDomain(name).CheckName() == nil && len(list) < maxSearch {
					list = append(list, name)
				}
			}
		}
	})
	return list
}

// hostsFile is an /etc/hosts.
type hostsFile struct {
	path string
	watched
	names map[string][]netip.Addr
}

func (h *hostsFile) lookup(name string, now time.Time) []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed(h.path, now) {
		h.names = make(map[string][]netip.Addr)
		lines(h.path, "#", func(f []string) {
			a, err := netip.ParseAddr(f[0])
			if err != nil {
				return
			}
			a = policy.Normal(a)
			for _, n := range f[1:] {
				n = policy.NormalName(n)
				if !slices.Contains(h.names[n], a) {
					h.names[n] = append(h.names[n], a)
				}
			}
		})
	}
	return h.names[name]
}
