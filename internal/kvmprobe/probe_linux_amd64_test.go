package kvmprobe

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestProbeReasons(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	intel, missing := file("intel", intelHost), filepath.Join(dir, "missing")
	for name, c := range map[string]struct {
		device, cpuinfo string
		boxed           bool
		want            Result
	}{
		"no device":           {missing, intel, false, Result{Reason: NoDevice, Vendor: "GenuineIntel", Flag: "vmx"}},
		"no device, boxed":    {missing, intel, true, Result{Reason: NoDeviceInBox, Vendor: "GenuineIntel", Flag: "vmx"}},
		"another device":      {os.DevNull, intel, false, Result{Reason: DeviceBroken, Vendor: "GenuineIntel", Flag: "vmx"}},
		"a directory":         {dir, intel, false, Result{Reason: DeviceBroken, Vendor: "GenuineIntel", Flag: "vmx"}},
		"nothing is readable": {missing, missing, false, Result{Reason: NoDevice}},
	} {
		t.Run(name, func(t *testing.T) {
			got := probe(c.device, c.cpuinfo, c.boxed)
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(Result{}, "Err", "Advice")); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if got.Err == nil || got.Advice == "" {
				t.Errorf("error %v, advice %q: want both", got.Err, got.Advice)
			}
		})
	}
}
