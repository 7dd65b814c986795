package delta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tarndb/tarn/internal/blob"
)

const (
	lostAnswers = 8                // a store that loses more in a row is down
	readBack    = 30 * time.Second // for reading a version back, also after ctx ended
)

// putCommit makes b, whose txnId is id, the given version. It returns nil when
// it is, the other writer's actions when the version was taken, or an error. An
// error marked with blob.ErrAmbiguous leaves open whether b is the version; any
// other means that it is not and will not be.
func (t *place) putCommit(ctx context.Context, version int64, b []byte, id string) (theirs []action, err error) {
	key := t.key(commitName(version))
	for try := range lostAnswers {
		if err := pause(ctx, try); err != nil {
			return nil, fmt.Errorf("version %d: %w: %w", version, blob.ErrAmbiguous, err)
		}
		err = t.store.PutIfAbsent(ctx, key, b)
		if err == nil {
			return nil, nil
		}
		// Whatever went wrong, the log itself knows: it is read even when ctx
		// is what ended.
		readCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readBack)
		found, there, readErr := t.readCommit(readCtx, version)
		cancel()
		switch {
		case readErr != nil:
			return nil, fmt.Errorf("version %d: %w: %w; and read back: %w", version, blob.ErrAmbiguous, err, readErr)
		case there && commitID(found) == id:
			return nil, nil
		case there:
			return found, nil
		case !errors.Is(err, blob.ErrAmbiguous):
			return nil, fmt.Errorf("version %d: %w", version, err)
		}
		// Not there yet. It may still arrive, or be lost: putting it again is
		// harmless, for only one can be the first and both are ours.
	}
	return nil, fmt.Errorf("version %d: %w", version, err)
}

// pause waits before a repeated try, longer each time.
func pause(ctx context.Context, try int) error {
	if try == 0 {
		return nil
	}
	timer := time.NewTimer(time.Millisecond << try)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
