package net

import (
	"encoding/binary"

	"github.com/hutchvm/hutch/virtio"
)

const (
	ctrlQueueSize = 64

	ctrlOK  = 0 // VIRTIO_NET_OK
	ctrlErr = 1

	ctrlClassMQ    = 4 // VIRTIO_NET_CTRL_MQ
	ctrlMQPairsSet = 0 // VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET
)

// handleControl answers the control queue (5.1.6.5): the number of queue pairs
// is the only thing that a driver can set.
func (d *Device) handleControl(s *virtio.Session, idx int) error {
	q := s.Queue(idx)
	q.DisableNotify()
	defer s.Notify(idx)
	for {
		ok, err := q.Next(&d.ctrl)
		if err != nil {
			return err
		}
		if !ok {
			if q.EnableNotify() {
				q.DisableNotify()
				continue
			}
			return nil
		}
		var cmd [4]byte
		n := d.ctrl.Readable.CopyTo(cmd[:], 0)
		ack := [1]byte{d.control(s, cmd[:n])}
		q.Push(d.ctrl.Head, uint32(d.ctrl.Writable.CopyFrom(ack[:], 0)))
	}
}

func (d *Device) control(s *virtio.Session, cmd []byte) byte {
	if len(cmd) < 4 || cmd[0] != ctrlClassMQ || cmd[1] != ctrlMQPairsSet || !s.Has(featureMQ) {
		return ctrlErr
	}
	pairs := int(binary.LittleEndian.Uint16(cmd[2:]))
	if pairs < 1 || pairs > d.cfg.Pairs {
		return ctrlErr
	}
	for i := range pairs {
		if s.Queue(2*i) == nil || s.Queue(2*i+1) == nil {
			return ctrlErr
		}
	}
	d.active.Store(int32(pairs))
	return ctrlOK
}
