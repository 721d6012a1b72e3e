package kvmtest

import "testing"

func TestHardware(t *testing.T) {
	tests := []struct {
		name, info string
		want       bool
	}{
		{"empty", "", false},
		{"intel", "processor\t: 0\nflags\t\t: fpu vme vmx ssse3\n", true},
		{"amd", "flags\t\t: fpu svm", true},
		{"none", "flags\t\t: fpu vme sse\nbugs\t\t: spectre_v1\n", false},
		{"inside another word", "flags\t\t: xsvm vmxoff\n", false},
		{"another field", "vmx flags\t: vnmi svm vmx\nmodel name\t: svm vmx\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := hardware([]byte(tt.info)); got != tt.want {
				t.Errorf("hardware = %v, want %v", got, tt.want)
			}
		})
	}
}

// recorder stands in for a test, to see what became of it.
type recorder struct {
	testing.TB
	skipped, failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Skip(...any)           { r.skipped = true }
func (r *recorder) Fatalf(string, ...any) { r.failed = true; panic(r) }

func TestUnavailable(t *testing.T) {
	for env, wantFail := range map[string]bool{"": false, "0": false, "1": true} {
		t.Setenv(RequireEnv, env)
		var r recorder
		func() {
			defer func() { _ = recover() }()
			unavailable(&r, "because")
		}()
		if r.failed != wantFail || r.skipped == wantFail {
			t.Errorf("%s=%q: failed %v, skipped %v", RequireEnv, env, r.failed, r.skipped)
		}
	}
}
