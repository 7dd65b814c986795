package gateway

import (
	"errors"
	"io"
	"os"
	"sync"
)

// intake is what was read from the client and not yet worked on.
type intake struct {
	small [smallSize / 2]byte
	buf   []byte // small, or a borrowed one
	r, w  int
	big   *[bulkSize]byte

	flowing bool // the last read brought much

	from    io.Reader
	buffers *sync.Pool
}

func (in *intake) open(from io.Reader, buffers *sync.Pool) {
	in.buf, in.from, in.buffers = in.small[:], from, buffers
}

// shrink gives a borrowed buffer back.
func (in *intake) shrink() {
	if in.big != nil {
		in.buffers.Put(in.big)
		in.big, in.buf = nil, in.small[:]
	}
}

// need reads until n bytes are in the buffer. Before it waits it calls idle; a
// borrowed buffer goes back first unless much is under way. again decides
// whether a read that timed out is tried once more.
func (in *intake) need(n int, idle func(), again func() bool) error {
	for in.w-in.r < n {
		if in.r == in.w {
			in.r, in.w = 0, 0
			if n <= len(in.small) && !in.flowing {
				in.shrink()
			}
		}
		switch {
		case in.big == nil && (n > len(in.small) || in.flowing):
			in.big = in.buffers.Get().(*[bulkSize]byte)
			in.w = copy(in.big[:], in.buf[in.r:in.w])
			in.r, in.buf = 0, in.big[:]
		case in.r+n > len(in.buf):
			in.w = copy(in.buf, in.buf[in.r:in.w])
			in.r = 0
		}
		idle()
		k, err := in.from.Read(in.buf[in.w:])
		in.w += k
		in.flowing = k >= len(in.small) || k > 0 && in.w == len(in.buf)
		if k == 0 && err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || !again()) {
			return err
		}
	}
	return nil
}
