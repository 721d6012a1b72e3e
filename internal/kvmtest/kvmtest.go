// Package kvmtest says, for every test of this module, whether it can run here: it is the one
// place that skips a test. With HUTCH_REQUIRE_KVM=1 in the environment it fails instead, so
// that a machine which ought to have KVM cannot pass by skipping.
package kvmtest

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// RequireEnv is the environment variable that turns skips into failures when it is "1".
const RequireEnv = "HUTCH_REQUIRE_KVM"

// Device is the node that Require opens.
const Device = "/dev/kvm"

// Require ends the test unless this process can make a virtual machine. Any KVM will do for
// it, even one in software that runs only small snippets of guest code.
func Require(tb testing.TB) {
	tb.Helper()
	if err := probe(); err != nil {
		unavailable(tb, fmt.Sprintf("needs KVM: %v", err))
	}
}

// RequireLinux ends the test unless a Linux guest can run: KVM with hardware virtualization
// (or a faithful emulation of it) below.
func RequireLinux(tb testing.TB) {
	tb.Helper()
	Require(tb)
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		unavailable(tb, fmt.Sprintf("needs KVM for Linux guests: %v", err))
		return
	}
	if !hardware(info) {
		unavailable(tb, "needs KVM for Linux guests: no svm or vmx among the flags in /proc/cpuinfo")
	}
}

// hardware looks for the CPU flags of AMD's and Intel's virtualization.
func hardware(cpuinfo []byte) bool {
	for line := range bytes.Lines(cpuinfo) {
		name, flags, ok := bytes.Cut(line, []byte(":"))
		if !ok || string(bytes.TrimSpace(name)) != "flags" {
			continue
		}
		for flag := range bytes.FieldsSeq(flags) {
			if f := string(flag); f == "svm" || f == "vmx" {
				return true
			}
		}
	}
	return false
}

// unavailable skips or fails, by the environment.
func unavailable(tb testing.TB, why string) {
	tb.Helper()
	if os.Getenv(RequireEnv) == "1" {
		tb.Fatalf("%s (and %s=1)", why, RequireEnv)
	}
	tb.Skip(why)
}
