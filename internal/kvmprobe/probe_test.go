package kvmprobe

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	intelHost = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vmx sse\nbugs\t\t:\n\nprocessor\t: 1\nvendor_id\t: Other\nflags\t: svm\n"
	amdHost   = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu svm hypervisor\n"
	plainVM   = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor vmxish notsvm\n"
	plainPC   = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu\n"
)

func TestParseCPUInfo(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want cpu
	}{
		"intel":    {intelHost, cpu{vendor: "GenuineIntel", flag: "vmx"}},
		"amd":      {amdHost, cpu{vendor: "AuthenticAMD", flag: "svm", guest: true}},
		"plain VM": {plainVM, cpu{vendor: "GenuineIntel", guest: true}},
		"empty":    {"", cpu{}},
		"garbage":  {"flags\nvendor_id\n::::\n\x00", cpu{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := parseCPUInfo(c.text)
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(cpu{})); diff != "" {
				t.Errorf("cpu (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAdvice(t *testing.T) {
	for text, want := range map[string]string{
		intelHost: "kvm_intel", amdHost: "kvm_amd", plainVM: "nested virtualization", plainPC: "firmware",
	} {
		if got := parseCPUInfo(text).moduleAdvice(); !strings.Contains(got, want) {
			t.Errorf("advice %q does not mention %q", got, want)
		}
	}
}

// TestProbe checks that a probe of the machine that runs this test is consistent.
func TestProbe(t *testing.T) {
	r := Probe()
	t.Log(r)
	if r.Usable != (r.Reason == OK) || r.Usable != (r.Advice == "") || r.Usable != (r.Error() == nil) {
		t.Errorf("usable %t, reason %q, advice %q and error %v do not fit together", r.Usable, r.Reason, r.Advice, r.Error())
	}
	if err := r.Error(); err != nil && !errors.Is(err, ErrUnusable) {
		t.Errorf("error %v is no ErrUnusable", err)
	}
}

func TestResultError(t *testing.T) {
	cause := errors.New("cause")
	err := Result{Reason: NoPermission, Advice: "do this", Err: cause}.Error()
	if !errors.Is(err, ErrUnusable) || !errors.Is(err, cause) {
		t.Errorf("error %v does not match its parts", err)
	}
	if got, want := err.Error(), "kvmprobe: no permission for /dev/kvm: do this"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	if err := (Result{Usable: true}).Error(); err != nil {
		t.Errorf("error %v of a usable KVM", err)
	}
}
