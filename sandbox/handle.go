package sandbox

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Handle tells about a sandbox by its record, whichever process it runs in or
// ran in. It is a picture of one moment: [Get] another one to see what changed.
type Handle struct {
	home   string
	info   *info
	status Status
	reason string
}

// Get finds the sandbox of a name. Of opts only [WithHome] counts. The error is
// ErrNotFound when there is none.
func Get(ctx context.Context, name string, opts ...Option) (*Handle, error) {
	home, err := homeOf(ctx, name, opts)
	if err != nil {
		return nil, newOpError("get", name, err)
	}
	h, err := look(home, name)
	if err != nil {
		return nil, newOpError("get", name, err)
	}
	return h, nil
}

// List finds all sandboxes, sorted by name. Of opts only [WithHome] counts. A
// record that cannot be read is left out of the list and is part of the error,
// which comes with the others.
func List(ctx context.Context, opts ...Option) ([]*Handle, error) {
	return ListWith(ctx, nil, opts...)
}

// ListWith is List of the sandboxes that have all the given labels.
func ListWith(ctx context.Context, labels map[string]string, opts ...Option) ([]*Handle, error) {
	home, err := homeOf(ctx, "list", opts)
	if err != nil {
		return nil, newOpError("list", "", err)
	}
	entries, err := os.ReadDir(recordsOf(home))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, newOpError("list", "", err)
	}
	var all []*Handle
	var bad []error
	for _, e := range entries {
		if checkName(e.Name()) != nil {
			continue
		}
		h, err := look(home, e.Name())
		switch {
		case err == nil && h.hasAll(labels):
			all = append(all, h)
		case err != nil && !errors.Is(err, ErrNotFound):
			bad = append(bad, newOpError("list", e.Name(), err))
		}
	}
	return all, errors.Join(bad...)
}

func (h *Handle) hasAll(labels map[string]string) bool {
	for k, v := range labels {
		if got, ok := h.info.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// homeOf checks a name and finds the directory that opts say.
func homeOf(ctx context.Context, name string, opts []Option) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	c := &config{}
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
	return c.Home, errors.Join(checkName(name), c.checkPaths())
}

// look reads a record as it is now.
func look(home, name string) (*Handle, error) {
	dir := filepath.Join(recordsOf(home), name)
	for {
		alive := held(dir)
		i, err := readInfo(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotFound
		}
		if err != nil {
			return nil, err
		}
		if !alive && !i.over() && held(dir) {
			continue // it was being started just now
		}
		if !alive && i.remnant() {
			return nil, ErrNotFound
		}
		status, reason := i.current(alive)
		return &Handle{home: home, info: i, status: status, reason: reason}, nil
	}
}

// openNamed takes the lock of the record of a sandbox that does not run.
func openNamed(home, name string) (*record, *info, error) {
	dir := filepath.Join(recordsOf(home), name)
	rec, err := openRecord(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, nil, err
	}
	i, err := readInfo(dir)
	if err == nil && i.remnant() {
		return nil, nil, errors.Join(ErrNotFound, rec.remove())
	}
	if err != nil {
		return nil, nil, errors.Join(err, rec.close())
	}
	i.Status, i.Reason = i.current(false)
	return rec, i, nil
}

// Remove deletes a sandbox that does not run: its record and its writable disk,
// never images. Of opts only [WithHome] counts. The error is ErrNotFound when
// there is none, ErrStillRunning when it runs.
func Remove(ctx context.Context, name string, opts ...Option) error {
	home, err := homeOf(ctx, name, opts)
	if err == nil {
		err = removeNamed(home, name)
	}
	return newOpError("remove", name, err)
}

func removeNamed(home, name string) error {
	// A record that cannot be read can be removed all the same.
	rec, err := openRecord(filepath.Join(recordsOf(home), name))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	return rec.remove()
}

// Name is the sandbox's name.
func (h *Handle) Name() string { return h.info.Name }

// Status is where in its life the sandbox was at the moment of the picture. One
// whose process ended without stopping it is crashed.
func (h *Handle) Status() Status { return h.status }

// Reason says why a crashed sandbox crashed.
func (h *Handle) Reason() string { return h.reason }

// PID is the process that the sandbox runs in, 0 when it does not run.
func (h *Handle) PID() int {
	if h.status == StatusStopped || h.status == StatusCrashed {
		return 0
	}
	return h.info.PID
}

// Ports are the published ports, with the host's addresses and ports as they
// are; none when it does not run.
func (h *Handle) Ports() []PortBinding {
	if h.status == StatusStopped || h.status == StatusCrashed {
		return nil
	}
	return slices.Clone(h.info.Ports)
}

// Labels are the sandbox's labels; the map is the caller's own.
func (h *Handle) Labels() map[string]string { return maps.Clone(h.info.Labels) }

// CreatedAt is when the sandbox was created.
func (h *Handle) CreatedAt() time.Time { return h.info.Created }

// StartedAt is when it last came up, zero if it has not yet.
func (h *Handle) StartedAt() time.Time { return h.info.Started }

// EndedAt is when it last ended, zero while it runs or when nobody knows.
func (h *Handle) EndedAt() time.Time { return h.info.Ended }

// ImageDigest is the digest ("sha256:…") of the image that the sandbox is made
// of, the embedded base image included; "" for directories and disk images.
func (h *Handle) ImageDigest() string { return cmp.Or(h.info.Root.Image, h.info.Root.Base) }

// Start boots the sandbox; see [Start].
func (h *Handle) Start(ctx context.Context, opts ...Option) (*Sandbox, error) {
	return Start(ctx, h.info.Name, append(slices.Clone(opts), WithHome(h.home))...)
}

// Remove deletes the sandbox; see [Remove].
func (h *Handle) Remove(ctx context.Context) error {
	return Remove(ctx, h.info.Name, WithHome(h.home))
}

// Config is what a sandbox was created or last started with. Its environment
// may hold secrets.
type Config struct {
	Image       string              `json:"image,omitempty"`
	FSType      string              `json:"fs_type,omitempty"`
	Entrypoint  *[]string           `json:"entrypoint,omitempty"` // nil: the image's
	Cmd         *[]string           `json:"cmd,omitempty"`        // nil: the image's
	Scripts     map[string]string   `json:"scripts,omitempty"`
	CPUs        int                 `json:"cpus"`
	Memory      uint64              `json:"memory_bytes"`
	UpperSize   uint64              `json:"upper_bytes"` // of the writable disk, 0 if there is none
	Env         map[string]string   `json:"env,omitempty"`
	Workdir     string              `json:"workdir,omitempty"`
	User        string              `json:"user,omitempty"`
	Hostname    string              `json:"hostname"`
	Shell       string              `json:"shell"`
	Security    Security            `json:"security,omitempty"`
	Rlimits     map[Resource]Rlimit `json:"rlimits,omitempty"`
	Labels      map[string]string   `json:"labels,omitempty"`
	MaxDuration time.Duration       `json:"max_duration_ns,omitempty"`
	Ephemeral   bool                `json:"ephemeral,omitempty"`
	// Network is the policy, and Ports are the bindings as they were asked
	// for; [Handle.Ports] tells the ports that the host picked.
	Network NetworkPolicy `json:"network"`
	DNS     DNSConfig     `json:"dns,omitzero"`
	Ports   []PortBinding `json:"ports,omitempty"`
}

// Config is what the sandbox was created or last started with.
func (h *Handle) Config() Config {
	c := h.info.Config
	return Config{
		Image: c.Image, FSType: c.FSType, Entrypoint: cloneWords(c.Entrypoint), Cmd: cloneWords(c.Cmd), Scripts: maps.Clone(c.Scripts),
		CPUs: c.CPUs, Memory: c.Memory, UpperSize: c.upperSize(), Env: maps.Clone(c.Env), Workdir: c.Workdir, User: c.User,
		Hostname: c.Hostname, Shell: c.Shell, Security: c.Security, Rlimits: maps.Clone(c.Rlimits), Labels: maps.Clone(c.Labels),
		MaxDuration: c.MaxDuration, Ephemeral: c.Ephemeral,
		Network: c.Network.policy().Clone(), DNS: c.Network.DNS, Ports: slices.Clone(c.Network.Ports),
	}
}

func cloneWords(words *[]string) *[]string {
	if words == nil {
		return nil
	}
	c := slices.Clone(*words)
	return &c
}
