package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hutchvm/hutch/internal/kvmhost/wire"
)

// ports are the guest's ends of the four channels.
type ports struct{ control, stdin, stdout, stderr *os.File }

// openPorts waits until the emulator has announced all four and opens them.
// The announcements are messages that arrive after the driver was loaded, and
// without a device manager sysfs has to be looked at.
func openPorts() (p ports, err error) {
	want := map[string]**os.File{
		wire.PortControl: &p.control, wire.PortStdin: &p.stdin, wire.PortStdout: &p.stdout, wire.PortStderr: &p.stderr,
	}
	deadline := time.Now().Add(30 * time.Second)
	for len(want) > 0 {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, file := range names {
			text, err := os.ReadFile(file)
			name := strings.TrimSpace(string(text))
			slot := want[name]
			if err != nil || slot == nil {
				continue
			}
			f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_RDWR, 0)
			if err != nil {
				return p, err
			}
			*slot = f
			delete(want, name)
		}
		if len(want) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return p, fmt.Errorf("%d of 4 ports missing", len(want))
		}
		time.Sleep(2 * time.Millisecond)
	}
	return p, nil
}
