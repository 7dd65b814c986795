package main

import (
	"context"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/tarndb/tarn/internal/delta"
)

// lagsOf is the time of every row of a history from its commit in Postgres to
// its commit in Delta; both clocks are this computer's.
func (b *bench) lagsOf(ctx context.Context, schema string) ([]time.Duration, error) {
	_, d, err := b.table(ctx, schema)
	if err != nil {
		return nil, err
	}
	var lags []time.Duration
	for c, err := range d.Changes(ctx, delta.ChangeOptions{From: 1, Columns: []string{"_timestamp"}}) {
		if err != nil {
			return nil, err
		}
		times := c.Rows.Column(0).(*array.Timestamp)
		for i := range times.Len() {
			lags = append(lags, c.Time.Sub(times.Value(i).ToTime(arrow.Microsecond)))
		}
		c.Rows.Release()
	}
	return lags, nil
}
