package diskimage

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// unpacked holds the cluster that was decompressed last: a guest reads it in
// pieces.
type unpacked struct {
	mu    sync.Mutex
	entry uint64
	b     []byte
	flate io.ReadCloser
	zstd  *zstd.Decoder
}

func (u *unpacked) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.zstd != nil {
		u.zstd.Close()
		u.zstd = nil
	}
	u.b = nil
}

// forget is called when clusters are written anew.
func (u *unpacked) forget() {
	u.mu.Lock()
	u.b = nil
	u.mu.Unlock()
}

// compressedAt splits the L2 entry of a compressed cluster: where its bytes
// begin, and how many there are at most.
func (q *qcow2) compressedAt(e uint64) (at, n int64, err error) {
	x := 62 - (q.h.clusterBits - 8)
	at = int64(e & (1<<x - 1))
	sectors := int64(e>>x) & (1<<(q.h.clusterBits-8) - 1)
	n = (sectors+1)*512 - at&511
	if at < q.h.cluster() || at >= q.end {
		return 0, 0, fmt.Errorf("%w: compressed data at %#x in a file of %d bytes", ErrCorrupt, at, q.end)
	}
	return at, min(n, q.end-at), nil
}

// readCompressed reads from a compressed cluster, beginning at byte in of it.
func (q *qcow2) readCompressed(bufs [][]byte, e uint64, in int64) error {
	u := &q.unpacked
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.b == nil || u.entry != e {
		at, n, err := q.compressedAt(e)
		if err != nil {
			return err
		}
		packed := make([]byte, n)
		if _, err := q.f.ReadAt(packed, at); err != nil {
			return err
		}
		b := make([]byte, q.h.cluster())
		if err := u.unpack(b, packed, q.h.zstd); err != nil {
			return fmt.Errorf("%w: compressed cluster at %#x: %w", ErrCorrupt, at, err)
		}
		u.entry, u.b = e, b
	}
	scatter(bufs, u.b[in:])
	return nil
}

// unpack fills b. Behind the compressed bytes there may be others.
func (u *unpacked) unpack(b, packed []byte, isZstd bool) (err error) {
	if !isZstd {
		if u.flate == nil {
			u.flate = flate.NewReader(nil)
		}
		if err := u.flate.(flate.Resetter).Reset(bytes.NewReader(packed), nil); err != nil {
			return err
		}
		_, err = io.ReadFull(u.flate, b)
		return err
	}
	if u.zstd == nil {
		u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return err
		}
	}
	if err := u.zstd.Reset(bytes.NewReader(packed)); err != nil {
		return err
	}
	_, err = io.ReadFull(u.zstd, b)
	return err
}

// maxZstdWindow bounds the decoder's memory; a cluster has 2 MiB at most.
const maxZstdWindow = 8 << 20
