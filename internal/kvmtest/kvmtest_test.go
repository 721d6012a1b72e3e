package kvmtest

import "testing"

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
