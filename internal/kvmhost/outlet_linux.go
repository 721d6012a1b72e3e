package kvmhost

import (
	"io"
	"os"
)

// outlet takes one output of the command from its channel to the caller's
// writer, until it has as many bytes as the guest says there were.
type outlet struct {
	totals chan int64    // takes the number of bytes, once
	done   chan struct{} // closed when all has been written
	err    error         // valid once done
}

// outChunk is what one read takes at most.
const outChunk = 64 << 10

// copyOut starts an outlet. After a failed write it goes on reading, since a
// command must not hang because nobody wants its output.
func copyOut(to io.Writer, from *os.File) *outlet {
	o := &outlet{totals: make(chan int64), done: make(chan struct{})}
	chunks := make(chan []byte)
	back := make(chan []byte, 1)
	back <- make([]byte, outChunk)
	go func() { // ends with the channel
		defer close(chunks)
		for buf := range back {
			n, err := from.Read(buf[:outChunk])
			if n > 0 {
				chunks <- buf[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		defer close(o.done)
		defer close(back)
		var have int64
		total := int64(-1)
		for total < 0 || have < total {
			select {
			case total = <-o.totals:
			case data, ok := <-chunks:
				if !ok {
					if total >= 0 && o.err == nil {
						o.err = io.ErrUnexpectedEOF
					}
					return
				}
				have += int64(len(data))
				if to != nil && o.err == nil {
					_, o.err = to.Write(data)
				}
				back <- data
			}
		}
	}()
	return o
}
