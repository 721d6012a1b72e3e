package kvmhost

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// monitor speaks QMP, QEMU's control protocol: one JSON object a line, answers
// in the order of the commands, events in between.
type monitor struct {
	in  *json.Decoder
	out *json.Encoder
}

// newMonitor waits for the greeting and ends the negotiation.
func newMonitor(channel io.ReadWriter) (*monitor, error) {
	m := &monitor{json.NewDecoder(channel), json.NewEncoder(channel)}
	var greeting struct {
		QMP json.RawMessage
	}
	if err := m.in.Decode(&greeting); err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	return m, m.call("qmp_capabilities", nil, nil)
}

// call runs one command and decodes its result, unless that is nil.
func (m *monitor) call(command string, arguments, result any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := m.out.Encode(request); err != nil {
		return fmt.Errorf("monitor: %s: %w", command, err)
	}
	for {
		var answer struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := m.in.Decode(&answer); err != nil {
			return fmt.Errorf("monitor: %s: %w", command, err)
		}
		switch {
		case answer.Error != nil:
			return fmt.Errorf("monitor: %s: %s", command, answer.Error.Desc)
		case answer.Return == nil: // an event
		case result == nil:
			return nil
		default:
			return json.Unmarshal(answer.Return, result)
		}
	}
}

// save writes the machine's state to a file and leaves the machine stopped.
func (m *monitor) save(file string) error {
	// The default limit of 128 MiB/s spares a network that is not there.
	unlimited := map[string]any{"max-bandwidth": int64(1) << 40}
	if err := m.call("migrate-set-parameters", unlimited, nil); err != nil {
		return err
	}
	if err := m.call("migrate", map[string]any{"uri": "file:" + file}, nil); err != nil {
		return err
	}
	for {
		var state struct {
			Status string `json:"status"`
			Desc   string `json:"error-desc"`
		}
		if err := m.call("query-migrate", nil, &state); err != nil {
			return err
		}
		switch state.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return errors.New("monitor: state not saved: " + state.Desc)
		}
		// The protocol has an event for the end, but only with a capability that
		// older versions lack; the whole takes a few tenths of a second.
		time.Sleep(20 * time.Millisecond)
	}
}
