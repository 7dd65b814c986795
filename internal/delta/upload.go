package delta

import (
	"context"
	"errors"
	"io"

	"github.com/tarndb/tarn/internal/blob"
)

// upload streams what is written to it into one object. The object appears at
// close, or not at all.
type upload struct {
	key    string
	size   int64 // bytes written so far
	pipe   *io.PipeWriter
	cancel context.CancelCauseFunc
	done   chan error // gets the outcome of Put once
}

var errAborted = errors.New("write aborted")

// newUpload starts writing key. The write outlives ctx, which may be that of
// one of many calls that add to it; close or abort ends it.
func newUpload(ctx context.Context, s blob.Store, key string) *upload {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	r, w := io.Pipe()
	u := &upload{key: key, pipe: w, cancel: cancel, done: make(chan error, 1)}
	go func() {
		err := s.Put(ctx, key, r)
		// A writer that still writes must not wait for a reader that is gone.
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		u.done <- err
	}()
	return u
}

func (u *upload) Write(p []byte) (int, error) {
	n, err := u.pipe.Write(p)
	u.size += int64(n)
	return n, err
}

// breakOff makes writes fail with cause when ctx ends; call stop when the work
// under ctx is over.
func (u *upload) breakOff(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		u.pipe.CloseWithError(context.Cause(ctx))
		u.cancel(context.Cause(ctx))
	})
}

// close makes the object durable.
func (u *upload) close(ctx context.Context) error {
	stop := u.breakOff(ctx)
	defer stop()
	u.pipe.Close() // never fails
	err := <-u.done
	u.cancel(errAborted)
	return err
}

// abort drops what was written and waits for the end of the write.
func (u *upload) abort() {
	u.pipe.CloseWithError(errAborted)
	u.cancel(errAborted)
	<-u.done // the outcome is of no use: the object is deleted next
}
