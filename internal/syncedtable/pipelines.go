package syncedtable

import (
	"context"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Pipelines reads what movers recorded about their runs: those of synced tables
// and those of feeds.
type Pipelines struct{ db *controldb.DB }

// Pipelines gives the records of all movers.
func (k *Keeper) Pipelines() Pipelines { return Pipelines{k.db} }

// Get reads one pipeline. KindNotFound.
func (p Pipelines) Get(ctx context.Context, id string) (tarn.Pipeline, error) {
	return controldb.GetPipeline(ctx, p.db, id)
}

// List gives all pipelines, by name.
func (p Pipelines) List(ctx context.Context) ([]tarn.Pipeline, error) {
	return controldb.ListPipelines(ctx, p.db)
}

// Update reads one update of a pipeline. KindNotFound.
func (p Pipelines) Update(ctx context.Context, pipeline, id string) (tarn.PipelineUpdate, error) {
	return controldb.GetUpdate(ctx, p.db, pipeline, id)
}

// Updates gives up to limit updates of a pipeline, newest first.
func (p Pipelines) Updates(ctx context.Context, pipeline string, limit int) ([]tarn.PipelineUpdate, error) {
	return controldb.ListUpdates(ctx, p.db, pipeline, limit)
}

// Events gives up to limit events before a sequence number (0 = from the
// newest), newest first.
func (p Pipelines) Events(ctx context.Context, pipeline string, before int64, limit int) ([]tarn.PipelineEvent, error) {
	return controldb.ListEvents(ctx, p.db, pipeline, before, limit)
}
