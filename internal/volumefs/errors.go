package volumefs

import (
	"errors"
	"log/slog"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// errorLog turns a volume's errors into what the kernel understands. An error
// that has no errno, or EIO, is logged the first time each operation meets one:
// a sick volume answers thousands of requests a second with it.
type errorLog struct {
	log *slog.Logger

	mu  sync.Mutex // guards met; nothing is called under it
	met map[string]bool
}

func (l *errorLog) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	errno, ok := errors.AsType[syscall.Errno](err)
	if ok && errno != 0 && errno != syscall.EIO {
		return fuse.Status(errno)
	}
	l.mu.Lock()
	first := !l.met[op]
	l.met[op] = true
	l.mu.Unlock()
	if first {
		l.log.Error("volume "+op, "err", err)
	}
	return fuse.EIO
}
