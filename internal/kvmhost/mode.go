package kvmhost

import (
	"fmt"

	"github.com/hutchvm/hutch/internal/kvmprobe"
)

// Mode is how a command is run.
type Mode string

// The modes.
const (
	Direct   Mode = "direct"   // on this machine
	Emulated Mode = "emulated" // on an emulated host
)

// inside is the value of EnvMode in an emulated host.
const inside = "inside"

// Choose decides on the mode by the value of EnvMode and a probe of this
// machine, and says why in a few words.
func Choose(env string, probe func() kvmprobe.Result) (Mode, string, error) {
	switch env {
	case inside:
		return Direct, "already inside an emulated host", nil
	case string(Direct), string(Emulated):
		return Mode(env), EnvMode + "=" + env, nil
	case "":
	default:
		return "", "", &Error{Op: "choose", Err: fmt.Errorf("%w: %s=%q: want %s or %s", ErrConfig, EnvMode, env, Direct, Emulated)}
	}
	r := probe()
	if r.Usable {
		return Direct, fmt.Sprintf("this machine's KVM is usable (%s)", r.Flag), nil
	}
	why := string(r.Reason)
	if r.Flag != "" { // the CPU could do it
		why += "; to run directly: " + r.Advice
	}
	return Emulated, why, nil
}
