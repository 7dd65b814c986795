package volumefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Forgetful is a server that loses requests, as one that is killed does.
type Forgetful struct {
	c    *connection
	dir  string
	stop chan struct{}
	done chan struct{}
	Lost chan uint32 // opcodes of requests that were lost
}

// Fate is what becomes of a request.
type Fate uint8

// The fates.
const (
	Answered     Fate = iota
	LostUndone        // read and lost
	LostWhenDone      // done, but never answered
)

// Forget serves v at dir on one reader; fate decides for each opcode.
func Forget(ctx context.Context, dir string, v Volume, fate func(op uint32) Fate) (*Forgetful, error) {
	fd, err := attach(ctx, dir, subtype)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	s := &Forgetful{dir: dir, c: newConnection(fd, newFilesystem(v, log), subtype, log),
		stop: make(chan struct{}), done: make(chan struct{}), Lost: make(chan uint32, 100)}
	if err := s.c.begin(RingsNever); err != nil {
		return nil, err
	}
	go s.serve(fate)
	return s, DeclinePoll(dir)
}

func (s *Forgetful) serve(fate func(op uint32) Fate) {
	defer close(s.done)
	b := s.c.buffers()
	for {
		n, err := readDevice(s.c.fd, b.in)
		if err != nil {
			return
		}
		op := opcode(b.in)
		if op == opNotifyReply {
			select {
			case <-s.stop:
				return
			default:
				continue
			}
		}
		f := fate(op)
		if f == LostUndone {
			s.Lost <- op
			continue
		}
		n = s.c.answer(b.request(n), b.answer())
		if f == LostWhenDone {
			s.Lost <- op
		} else if n > 0 {
			unix.Write(s.c.fd, b.out[:n])
		}
	}
}

// Kill ends the server; the device is what is left of it.
func (s *Forgetful) Kill() (Handover, error) {
	poke, done, err := s.c.pokes(s.dir)
	if err != nil {
		return Handover{}, err
	}
	close(s.stop)
	if err := errors.Join(poke(), done()); err != nil {
		return Handover{}, err
	}
	<-s.done
	return Handover{Device: s.c.fd, Init: s.c.init.request, Answer: s.c.init.answer}, nil
}

// Resends says whether the kernel can send requests again.
func (h Handover) Resends() bool { return handshake{request: h.Init}.resends() }

// DeclinePoll teaches the kernel not to ask POLL, in a process that uses its own
// mount. Go's runtime asks it to watch every file it opens, without letting its
// thread go: were our own process the first to open a file of this mount, nobody
// might be left to answer. One question now, from a plain system call, is the last
// one.
func DeclinePoll(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, pollName), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("first use: %w", err)
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds, 0) // only the asking counts
	unix.Close(fd)
	return nil
}
