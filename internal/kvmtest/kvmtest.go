// Package kvmtest says, for every test of this module, whether it can run here: it is the one
// place that skips a test. With HUTCH_REQUIRE_KVM=1 in the environment it fails instead, so
// that a machine which ought to have KVM cannot pass by skipping.
package kvmtest

import (
	"os"
	"testing"

	"github.com/hutchvm/hutch/internal/kvmprobe"
)

// Device is the node of KVM.
const Device = "/dev/kvm"

// RequireEnv is the environment variable that turns skips into failures when it is "1".
const RequireEnv = "HUTCH_REQUIRE_KVM"

// Require ends the test unless this process can open KVM. Any KVM will do for it, even one in
// software that runs only small snippets of guest code.
func Require(tb testing.TB) {
	tb.Helper()
	if r := kvmprobe.Probe(); !r.Device {
		unavailable(tb, "needs KVM: "+r.String())
	}
}

// RequireLinux ends the test unless a Linux guest can run: KVM with hardware virtualization
// (or a faithful emulation of it) below.
func RequireLinux(tb testing.TB) {
	tb.Helper()
	if r := kvmprobe.Probe(); !r.Usable {
		unavailable(tb, "needs KVM for Linux guests: "+r.String())
	}
}

// unavailable skips or fails, by the environment.
func unavailable(tb testing.TB, why string) {
	tb.Helper()
	if os.Getenv(RequireEnv) == "1" {
		tb.Fatalf("%s (and %s=1)", why, RequireEnv)
	}
	tb.Skip(why)
}
