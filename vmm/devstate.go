package vmm

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/hutchvm/hutch/virtio"
)

// Every device has methods Save() State and Restore(State) error, each with a
// State type of its own, see virtio.Device. They are called by reflection, so
// that a device needs nothing more to be part of a snapshot.

var errorType = reflect.TypeFor[error]()

// save is the state of one device of a paused machine.
func (s *slot) save() (deviceState, error) {
	fail := func(err error) (deviceState, error) {
		return deviceState{}, fmt.Errorf("save %s: %w", s.name, err)
	}
	save := reflect.ValueOf(s.mmio.Device()).MethodByName("Save")
	if !save.IsValid() || save.Type().NumIn() != 0 || save.Type().NumOut() != 1 {
		return fail(fmt.Errorf("%T has no method Save() State", s.mmio.Device()))
	}
	// The device first: it may wait for requests that the rings count.
	own, err := json.Marshal(save.Call(nil)[0].Interface())
	if err != nil {
		return fail(err)
	}
	transport, err := s.mmio.Save()
	if err != nil {
		return fail(err)
	}
	return deviceState{Name: s.name, Transport: transport, Device: own}, nil
}

// restore puts a saved state into a new device, whose transport stays paused.
func (s *slot) restore(d *deviceState) error {
	if err := s.restoreDevice(d); err != nil {
		return fmt.Errorf("%w: restore %s: %w", ErrSnapshot, s.name, err)
	}
	return nil
}

func (s *slot) restoreDevice(d *deviceState) error {
	restore := reflect.ValueOf(s.mmio.Device()).MethodByName("Restore")
	if !restore.IsValid() || restore.Type().NumIn() != 1 || restore.Type().NumOut() != 1 || restore.Type().Out(0) != errorType {
		return fmt.Errorf("%T has no method Restore(State) error", s.mmio.Device())
	}
	state := reflect.New(restore.Type().In(0))
	if err := json.Unmarshal(d.Device, state.Interface()); err != nil {
		return err
	}
	s.mmio.Pause()
	if err, _ := restore.Call([]reflect.Value{state.Elem()})[0].Interface().(error); err != nil {
		return err
	}
	return s.mmio.Restore(d.Transport)
}

// configKept bounds how much of a configuration space counts for a Shape; the
// longest that has fields is under 100 bytes.
const configKept = 256

// Shape describes devices as a guest's drivers have seen them when they started:
// kinds, features, queues, and those fields of the configuration spaces that
// drivers read once. Machines whose devices have the same Shape, in the same
// order, can be made from each other's snapshots.
func Shape(devices []Device) []byte {
	out := fmt.Appendf(nil, "%#x+%#x %d\n", mmioBase, mmioSize, irqFirst)
	for _, d := range devices {
		dev := d.Device
		out = fmt.Appendf(out, "%d %#x %d ", dev.ID(), dev.Features(), dev.QueueSizes())
		for off := uint64(0); off < configKept; off += 4 {
			if !rereadByDriver(dev.ID(), off) {
				var field [4]byte
				dev.ReadConfig(off, field[:])
				out = fmt.Appendf(out, "%x", field)
			}
		}
		out = append(out, '\n')
	}
	return out
}

// rereadByDriver names the fields that Linux' drivers read again when the device
// says that its configuration has changed, or that the device has from its own
// state.
func rereadByDriver(id uint32, off uint64) bool {
	switch id {
	case virtio.IDBlock:
		return off < 8 || off == 32 // capacity, write cache
	case virtio.IDConsole, virtio.IDBalloon:
		return true
	}
	return false
}
