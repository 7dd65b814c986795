package feed

import (
	"context"
	"fmt"
	"slices"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Update changes a feed's settings; when it returns they hold. KindInvalid,
// KindNotFound.
func (k *Keeper) Update(ctx context.Context, b tarn.BranchName, id string, s tarn.FeedSettings) (tarn.Feed, error) {
	if err := s.Check(); err != nil {
		return tarn.Feed{}, fmt.Errorf("update feed %s: %w", id, err)
	}
	return k.alone(ctx, b, id, "update", func(f tarn.Feed) error {
		return controldb.SetFeedSettings(ctx, k.db, f.UID, s)
	})
}

// Resync asks for a new copy of tables, none named = of all. What the histories
// have stays: a truncate row comes before the new copy. KindInvalid,
// KindNotFound.
func (k *Keeper) Resync(ctx context.Context, b tarn.BranchName, id string, tables []string) (tarn.Feed, error) {
	return k.alone(ctx, b, id, "resync", func(f tarn.Feed) error {
		for _, name := range tables {
			if !slices.ContainsFunc(f.Tables, func(t tarn.FeedTable) bool { return t.PostgresTable == name }) {
				return tarn.NotFound("it follows no table %q", name).WithHint("tarn feed show " + id)
			}
		}
		return k.db.InTx(ctx, func(tx *controldb.Tx) error {
			for _, t := range f.Tables {
				if len(tables) > 0 && !slices.Contains(tables, t.PostgresTable) {
					continue
				}
				// What is not streaming when a session begins is copied.
				t.State, t.Detail = tarn.FeedSnapshotting, "a new copy was asked for"
				if err := controldb.UpsertFeedTable(ctx, tx, f.UID, t); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// alone changes the rows of a feed while nobody follows it, so that a session
// begins with what they say.
func (k *Keeper) alone(ctx context.Context, b tarn.BranchName, id, verb string, change func(tarn.Feed) error) (tarn.Feed, error) {
	row, err := k.Get(ctx, b, id)
	if err != nil {
		return tarn.Feed{}, err
	}
	f, err := k.claim(ctx, row)
	if err != nil {
		return tarn.Feed{}, fmt.Errorf("%s feed %s: %w", verb, id, err)
	}
	defer k.wake()
	defer k.release(f)
	if row, err = k.Get(ctx, b, id); err == nil {
		err = change(row)
	}
	if err != nil {
		return tarn.Feed{}, fmt.Errorf("%s feed %s: %w", verb, id, err)
	}
	return k.Get(ctx, b, id)
}
