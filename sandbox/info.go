package sandbox

import (
	"encoding/json"
	"fmt"
	"time"
)

// infoVersion is the version of sandbox.json.
const infoVersion = 1

// info is the content of sandbox.json. It holds the environment, and so
// perhaps secrets: only the owner may read it.
type info struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// Status is what the owner of the lock last wrote. When nobody has the
	// lock any more it may be out of date, see current.
	Status Status `json:"status"`
	// Reason is why the sandbox crashed.
	Reason string `json:"reason,omitempty"`
	// PID is the process in which it runs, or ran last.
	PID     int       `json:"pid,omitempty"`
	Created time.Time `json:"created"`
	// Started is when it last came up, zero if it never did.
	Started time.Time `json:"started,omitzero"`
	// Ended is when it last stopped or crashed.
	Ended time.Time `json:"ended,omitzero"`
	// Ports are the published ports as they are, while it runs.
	Ports []PortBinding `json:"ports,omitempty"`
	// Labels are the image's and those of the options.
	Labels map[string]string `json:"labels,omitempty"`
	// Root is what the root file system is made of, once known.
	Root rootPin `json:"root"`
	// Config is what the options said, for Start.
	Config *config `json:"config"`
}

// rootPin says exactly which image a sandbox was made of, so that it is the
// same after any pull. Of the fields, those of the root's kind are set.
type rootPin struct {
	// Base is the embedded image's digest ("sha256:…") and size.
	Base     string `json:"base,omitempty"`
	BaseSize int64  `json:"base_size,omitempty"`
	// Image is an OCI image's digest.
	Image string `json:"image,omitempty"`
	// Patched says that there is a layer of patches.
	Patched bool `json:"patched,omitempty"`
}

// remnant tells whether the record is of no use when no process has its lock:
// the sandbox was ephemeral, or its Create was never finished.
func (i *info) remnant() bool { return i.Config.Ephemeral || i.Started.IsZero() }

// over tells whether the sandbox has ended, by its record.
func (i *info) over() bool { return i.Status == StatusStopped || i.Status == StatusCrashed }

// current is the status and, of a crashed one, the reason, given whether some
// process has the record's lock.
func (i *info) current(held bool) (Status, string) {
	if held || i.over() {
		return i.Status, i.Reason
	}
	return StatusCrashed, fmt.Sprintf("the process that it ran in (%d) ended without stopping it", i.PID)
}

// clone is a copy that shares nothing with i.
func (i *info) clone() (*info, error) {
	b, err := json.Marshal(i)
	if err != nil {
		return nil, err
	}
	c := &info{}
	return c, json.Unmarshal(b, c)
}
