package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hutchvm/hutch/agent/proto"
	"github.com/hutchvm/hutch/initramfs"
	"github.com/hutchvm/hutch/kernel"
	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/vmm"
)

// A template is the snapshot of a guest that has booted and is about to connect to
// the host. At this moment nothing in it depends on what it will be, so every
// sandbox of the same shape can start from there.
//
// Templates are files of the cache, one for each shape. A shape includes the
// host's boot: nothing has to be synced, since what a crash of the host tears is
// never looked at again. The first sandbox of a shape boots, and writes the file
// on the way. That a template cannot be made or used is never an error: the guest
// boots.
const (
	templatesDir = "templates"
	// templatesKept and templatesSize bound the templates of a home; the least
	// recently used ones go first. One takes about 40 MiB.
	templatesKept = 8
	templatesSize = 1 << 30
	// templateAbandoned is the age from which an unfinished file is taken for one
	// whose process died.
	templateAbandoned = time.Hour
	// templateFailure is how long guests boot after one of a template did not work.
	templateFailure = time.Hour
	// restoreTimeout is bootTimeout for a guest of a template, which is followed
	// by a boot.
	restoreTimeout = time.Minute

	// A template's guest writes to some parts of its memory almost at once. Which,
	// is learnt from one of the first, after its first command, if that came soon.
	templateHot     = ".hot"
	templateHotSize = 4 << 10 // of the file, at most
	templateHotSoon = 20 * time.Second

	templateTemp   = ".making-"
	templateFailed = ".failed"
	templateLock   = "lock"
)

// templateSeal is the modification time of a finished template: whoever writes to
// it later changes that.
var templateSeal = time.Unix(946684800, 0) // 2000-01-01, an even second

// template is the part that templates have in the start of one sandbox.
type template struct {
	log    *slog.Logger
	path   string      // of the shape's template; empty when there can be none
	used   bool        // the guest is one of the template
	broken bool        // such a guest did not work: boot
	lock   *os.File    // held while this sandbox makes the template
	file   *os.File    // the template, until the machine is built
	learn  atomic.Bool // nothing is known yet of what is hot
	begun  time.Time
}

// begin makes cfg one that starts from a template, if there is one; if not, one
// in which a template can be made.
func (t *template) begin(c *config, cfg *vmm.Config) {
	t.used = false
	if t.broken || c.NoTemplate || c.Kernel != "" || c.Initramfs != "" {
		return
	}
	t.log = c.Logger
	key, err := templateKey(cfg)
	if err != nil {
		t.log.Warn("no template", "error", err)
		return
	}
	dir := filepath.Join(c.cacheDir(), templatesDir)
	t.path = filepath.Join(dir, key)
	var snapshot *vmm.Snapshot
	if t.file, snapshot, err = openTemplate(t.path); err == nil {
		t.used = true
		cfg.Snapshot, cfg.Kernel, cfg.Initrd, cfg.InitrdSize, cfg.CmdLine = snapshot, vmm.KernelSource{}, nil, 0, ""
		cfg.Hot, err = readHot(t.path + templateHot)
		t.learn.Store(errors.Is(err, fs.ErrNotExist))
		t.begun = time.Now()
		return
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.log.Warn("template removed", "path", t.path, "error", err)
		os.Remove(t.path)
	}
	if info, err := os.Stat(t.path + templateFailed); err == nil && time.Since(info.ModTime()) < templateFailure {
		return
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.log.Warn("no template", "error", err)
		return
	}
	// Only one is made at a time; the other sandboxes boot as if there were none.
	if t.lock, err = tryLock(filepath.Join(dir, templateLock)); err != nil {
		t.lock = nil
		return
	}
	cfg.HoldWhenReady = true
}

// templateKey names the shape of a machine, on this boot of this host.
func templateKey(cfg *vmm.Config) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	agent, err := initramfs.Digest()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d\n%s\n%q\n%s\n%s\n%q\n%d %d\n", vmm.SnapshotVersion, boot, cfg.KVMPath,
		kernel.Digest(), agent, cfg.CmdLine, cfg.CPUs, cfg.Memory)
	h.Write(vmm.Shape(cfg.Devices))
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// readHot reads what learnHot wrote. The machine ignores what is not so.
func readHot(path string) (hot []uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = json.NewDecoder(io.LimitReader(f, templateHotSize)).Decode(&hot)
	if err != nil || len(hot) > vmm.MaxHot {
		return nil, err
	}
	return hot, nil
}

// learnHot writes down what later guests of this template should have at once. It
// is called after each command and does something after the first.
func (t *template) learnHot(m *vmm.Machine) {
	if !t.learn.Load() || !t.learn.Swap(false) || time.Since(t.begun) > templateHotSoon {
		return
	}
	hot, err := m.Hot()
	var b []byte
	if err == nil {
		b, err = json.Marshal(append([]uint64{}, hot...))
	}
	if err == nil {
		err = t.writeHot(b)
	}
	if err != nil {
		t.log.Warn("template's hot memory", "error", err)
	}
}

func (t *template) writeHot(b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(t.path), templateTemp+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), t.path+templateHot)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

var errTemplate = errors.New("cut short, written to, or somebody else's")

// openTemplate opens and checks the file.
func openTemplate(path string) (*os.File, *vmm.Snapshot, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !info.ModTime().Equal(templateSeal) || !ours(info)) {
		err = errTemplate
	}
	var s *vmm.Snapshot
	if err == nil {
		s, err = vmm.OpenSnapshot(f)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	os.Chtimes(path, time.Now(), time.Time{}) // for prune
	return f, s, nil
}

// built says that the machine is built, or is not going to be.
func (t *template) built() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}

// make writes the template when the guest has come so far. An error means that
// the guest cannot go on.
func (t *template) make(ctx context.Context, m *vmm.Machine) error {
	if t.lock == nil {
		return nil
	}
	defer func() {
		t.lock.Close()
		t.lock = nil
	}()
	select {
	case <-m.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := m.Pause(ctx); err != nil {
		return err
	}
	begin := time.Now()
	if err := t.write(m); err != nil {
		t.log.Warn("no template", "error", err)
	} else {
		t.log.Debug("template made", "path", t.path, "took", time.Since(begin))
	}
	return m.Resume()
}

func (t *template) write(m *vmm.Machine) (err error) {
	dir := filepath.Dir(t.path)
	f, err := os.CreateTemp(dir, templateTemp+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	defer f.Close()
	if err := m.Snapshot(f); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o400), os.Chtimes(f.Name(), time.Now(), templateSeal)); err != nil {
		return err
	}
	pruneTemplates(dir)
	return os.Rename(f.Name(), t.path)
}

// failed reports whether it was the template's guest that did not come up, so that
// a boot should be tried. It removes a template that is no good.
func (t *template) failed(ctx context.Context, err error) bool {
	if t.lock != nil { // the attempt ended before make
		t.lock.Close()
		t.lock = nil
	}
	if err == nil || !t.used || ctx.Err() != nil || errors.Is(err, ErrInvalidConfig) {
		return false
	}
	t.log.Warn("booting, since the template's guest did not come up", "path", t.path, "error", err)
	var refused *proto.SetupError
	if !errors.As(err, &refused) {
		os.Remove(t.path)
		if !errors.Is(err, vmm.ErrSnapshot) { // a new one could be no better
			os.WriteFile(t.path+templateFailed, []byte(err.Error()+"\n"), 0o600)
		}
	}
	t.broken = true
	return true
}

// disks are what the guest of a template has to find out about its disks anew.
func (t *template) disks(devices []vmm.Device) []proto.DiskSize {
	if !t.used {
		return nil
	}
	var sizes []proto.DiskSize
	for _, d := range devices {
		if d.Device.ID() == virtio.IDBlock {
			var capacity [8]byte // the first field of its configuration space
			d.Device.ReadConfig(0, capacity[:])
			sizes = append(sizes, proto.DiskSize{Sectors: binary.LittleEndian.Uint64(capacity[:])})
		}
	}
	return sizes
}

// pruneTemplates makes room for one more template.
func pruneTemplates(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var kept []usedFile
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.Name() == templateLock {
			continue
		}
		path := filepath.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), templateTemp) || strings.HasSuffix(e.Name(), templateFailed):
			if time.Since(lastChange(info)) > templateAbandoned {
				os.Remove(path)
			}
		case strings.HasSuffix(e.Name(), templateHot):
			if _, err := os.Stat(strings.TrimSuffix(path, templateHot)); err != nil {
				os.Remove(path)
			}
		default:
			kept = append(kept, usedFile{path, info.Size(), lastUse(info)})
		}
	}
	for _, f := range surplus(kept, templatesKept-1, templatesSize) {
		os.Remove(f.path) // machines that run from it keep what they need
		os.Remove(f.path + templateHot)
	}
}

// usedFile is a file and when it was used last.
type usedFile struct {
	path string
	size int64
	at   time.Time
}

// surplus is which files have to go, so that the most recently used ones are no more
// than count and together no larger than size.
func surplus(files []usedFile, count int, size int64) []usedFile {
	slices.SortFunc(files, func(a, b usedFile) int { return b.at.Compare(a.at) })
	for i, f := range files {
		if size -= f.size; size < 0 || i >= count {
			return files[i:]
		}
	}
	return nil
}
