package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/hutchvm/hutch/internal/kvmprobe"
)

// Check is one thing that a host needs to run sandboxes.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	// Advice is what to do when it is not OK.
	Advice string `json:"advice,omitempty"`
}

// Doctor looks whether this host can run sandboxes. It starts nothing and
// changes nothing. Of opts only [WithHome] counts.
func Doctor(opts ...Option) []Check {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	checks := []Check{{Name: "platform", OK: platform == "linux/amd64", Detail: platform}}
	if !checks[0].OK {
		checks[0].Advice = "Hutch runs on linux/amd64 only"
	}
	probe := kvmprobe.Probe()
	kvm := Check{Name: "kvm", OK: probe.Usable, Detail: string(probe.Reason), Advice: probe.Advice}
	if probe.Usable {
		kvm.Detail = "hardware virtualization (" + probe.Vendor + ", " + probe.Flag + ")"
	}
	return append(checks, kvm, checkMemory(), checkHome(opts))
}

func checkMemory() Check {
	total := hostMemory()
	c := Check{Name: "memory", OK: total >= defaultMemory, Detail: fmt.Sprintf("%d MiB", total/mib)}
	if !c.OK {
		c.Advice = fmt.Sprintf("a sandbox may use up to %d MiB by default", defaultMemory/mib)
	}
	return c
}

// checkHome looks whether the directory for caches, or the first one above it
// that exists, can be written.
func checkHome(opts []Option) Check {
	check := Check{Name: "home"}
	c, err := resolve("doctor", opts)
	if err != nil {
		check.Detail, check.Advice = err.Error(), "set HUTCH_HOME to a directory that can be written"
		return check
	}
	check.Detail = c.Home
	dir := c.Home
	for {
		if _, err = os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	if err = writable(dir); err != nil {
		check.Detail += ": " + err.Error()
		check.Advice = "set HUTCH_HOME to a directory that can be written"
		return check
	}
	check.OK = true
	return check
}
