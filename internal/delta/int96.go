package delta

import (
	"encoding/binary"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
)

// int96Reader reads the old timestamps of Impala and Spark as microseconds.
// Twelve bytes: nanoseconds of the day (8, LE), Julian day (4, LE).
type int96Reader struct {
	chunk *file.Int96ColumnChunkReader
	max   int16 // definition level of a value; below is null
}

const (
	julianUnixEpoch = 2440588 // Julian day of 1970-01-01
	microsPerDay    = 86400e6
)

func openInt96(r *file.Reader, group, leaf int) (*int96Reader, error) {
	c, err := r.RowGroup(group).Column(leaf)
	if err != nil {
		return nil, err
	}
	chunk, ok := c.(*file.Int96ColumnChunkReader)
	if !ok {
		return nil, fmt.Errorf("%T is not a reader of INT96", c)
	}
	return &int96Reader{chunk: chunk, max: chunk.Descriptor().MaxDefinitionLevel()}, nil
}

func (r *int96Reader) close() {
	if r != nil {
		_ = r.chunk.Close() // it only read
	}
}

// read gives exactly n rows.
func (r *int96Reader) read(n int) (arrow.Array, error) {
	b := array.NewTimestampBuilder(memory.DefaultAllocator, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"})
	defer b.Release()
	b.Reserve(n)
	values := make([]parquet.Int96, n)
	levels := make([]int16, n)
	for b.Len() < n {
		want := int64(n - b.Len())
		rows, got, err := r.chunk.ReadBatch(want, values, levels, nil)
		if err != nil {
			return nil, err
		}
		if rows == 0 {
			return nil, fmt.Errorf("column ends %d rows early", want)
		}
		if r.max == 0 {
			b.AppendValues(int96Micros(values[:got]), nil)
			continue
		}
		next := 0
		for _, l := range levels[:rows] {
			if l < r.max {
				b.AppendNull()
				continue
			}
			b.Append(int96Micros(values[next : next+1])[0])
			next++
		}
		if next != got {
			return nil, fmt.Errorf("%d values for %d levels", got, next)
		}
	}
	return b.NewArray(), nil
}

func int96Micros(values []parquet.Int96) []arrow.Timestamp {
	out := make([]arrow.Timestamp, len(values))
	for i, v := range values {
		nanos := int64(binary.LittleEndian.Uint64(v[:8]))
		day := int64(int32(binary.LittleEndian.Uint32(v[8:])))
		out[i] = arrow.Timestamp((day-julianUnixEpoch)*microsPerDay + floorDiv(nanos, 1000))
	}
	return out
}
