package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/tarndb/tarn/examples/flights"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/delta"
)

// flight is one row of the demonstration's real data.
type flight struct {
	date                time.Time // local time, whole minutes
	delay, distance     int64     // minutes, miles
	origin, destination string
}

// flightFile is what the files say, computed from them alone: every later step
// is checked against it.
type flightFile struct {
	flights     []flight // flight_id is the index plus one
	airports    [][]string
	delaySum    int64
	distanceSum int64
	months      []string // in order of time
	monthRows   map[string]int
}

func readFlightFiles(ctx context.Context) (*flightFile, error) {
	f := &flightFile{monthRows: map[string]int{}}
	r, err := file.NewParquetReader(bytes.NewReader(flights.FlightsParquet))
	if err != nil {
		return nil, fmt.Errorf("open flights.parquet: %w", err)
	}
	defer r.Close()
	pr, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{BatchSize: 16384}, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("open flights.parquet: %w", err)
	}
	rr, err := pr.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("read flights.parquet: %w", err)
	}
	defer rr.Release()
	for rr.Next() {
		b := rr.RecordBatch()
		date, ok0 := b.Column(0).(*array.Timestamp)
		delay, ok1 := b.Column(1).(*array.Int64)
		distance, ok2 := b.Column(2).(*array.Int64)
		origin, ok3 := b.Column(3).(*array.String)
		destination, ok4 := b.Column(4).(*array.String)
		if !ok0 || !ok1 || !ok2 || !ok3 || !ok4 {
			return nil, fmt.Errorf("read flights.parquet: unexpected columns %s", b.Schema())
		}
		for i := range int(b.NumRows()) {
			f.add(flight{date.Value(i).ToTime(arrow.Microsecond), delay.Value(i), distance.Value(i), origin.Value(i), destination.Value(i)})
		}
	}
	if err := rr.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read flights.parquet: %w", err)
	}
	rows, err := csv.NewReader(bytes.NewReader(flights.AirportsCSV)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read airports.csv: %w", err)
	}
	f.airports = rows[1:]
	return f, nil
}

func (f *flightFile) add(x flight) {
	month := x.date.Format("2006-01")
	if f.monthRows[month] == 0 {
		f.months = append(f.months, month)
	}
	f.monthRows[month]++
	f.delaySum += x.delay
	f.distanceSum += x.distance
	f.flights = append(f.flights, x)
}

func flightSchema() delta.Schema {
	return delta.Schema{Fields: []delta.Field{
		{Name: "flight_id", Type: "long"},
		{Name: "date", Type: "timestamp_ntz"},
		{Name: "delay", Type: "integer", Nullable: true},
		{Name: "distance", Type: "integer", Nullable: true},
		{Name: "origin", Type: "string"},
		{Name: "destination", Type: "string"},
		{Name: "month", Type: "string"},
	}}
}

func airportSchema() delta.Schema {
	return delta.Schema{Fields: []delta.Field{
		{Name: "iata", Type: "string"},
		{Name: "name", Type: "string", Nullable: true},
		{Name: "city", Type: "string", Nullable: true},
		{Name: "state", Type: "string", Nullable: true},
		{Name: "country", Type: "string", Nullable: true},
		{Name: "latitude", Type: "double", Nullable: true},
		{Name: "longitude", Type: "double", Nullable: true},
	}}
}

// writeFlights writes one commit a month and returns how many it made. A table
// that is there already is overwritten by the first of them.
func (f *flightFile) writeFlights(ctx context.Context, s blob.Store) (int, error) {
	t, err := openOrCreate(ctx, s, delta.Metadata{
		Name: "flights", Description: "US domestic flights, January to June 2001 (Bureau of Transportation Statistics)",
		Schema: flightSchema(), PartitionBy: []string{"month"},
		Properties: map[string]string{"delta.enableChangeDataFeed": "true"},
	})
	if err != nil {
		return 0, err
	}
	next := 0
	for i, month := range f.months {
		// The file is in order of time: a month is one run of rows.
		rec, err := f.monthBatch(next, f.monthRows[month], month)
		if err != nil {
			return i, err
		}
		if err := commitBatch(ctx, t, rec, i == 0); err != nil {
			return i, fmt.Errorf("write month %s: %w", month, err)
		}
		next += f.monthRows[month]
	}
	return len(f.months), nil
}

func (f *flightFile) monthBatch(from, n int, month string) (arrow.RecordBatch, error) {
	s := flightSchema()
	schema, err := s.Arrow()
	if err != nil {
		return nil, err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i, x := range f.flights[from : from+n] {
		b.Field(0).(*array.Int64Builder).Append(int64(from + i + 1))
		b.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(x.date.UnixMicro()))
		b.Field(2).(*array.Int32Builder).Append(int32(x.delay))
		b.Field(3).(*array.Int32Builder).Append(int32(x.distance))
		b.Field(4).(*array.StringBuilder).Append(x.origin)
		b.Field(5).(*array.StringBuilder).Append(x.destination)
		b.Field(6).(*array.StringBuilder).Append(month)
	}
	return b.NewRecordBatch(), nil
}

// writeAirports writes the airports in two commits: the states' first letters
// A to M, then the others.
func (f *flightFile) writeAirports(ctx context.Context, s blob.Store) (int, error) {
	t, err := openOrCreate(ctx, s, delta.Metadata{
		Name: "airports", Description: "US airports (Data.gov)", Schema: airportSchema(),
		Properties: map[string]string{"delta.enableChangeDataFeed": "true"},
	})
	if err != nil {
		return 0, err
	}
	as := airportSchema()
	schema, err := as.Arrow()
	if err != nil {
		return 0, err
	}
	for half := range 2 {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for _, row := range f.airports {
			if (row[3] > "M") != (half == 1) {
				continue
			}
			for i := range 5 {
				b.Field(i).(*array.StringBuilder).Append(row[i])
			}
			for i := 5; i < 7; i++ {
				v, err := strconv.ParseFloat(row[i], 64)
				if err != nil {
					return half, fmt.Errorf("airport %s: %w", row[0], err)
				}
				b.Field(i).(*array.Float64Builder).Append(v)
			}
		}
		rec := b.NewRecordBatch()
		b.Release()
		if err := commitBatch(ctx, t, rec, half == 0); err != nil {
			return half, err
		}
	}
	return 2, nil
}

func openOrCreate(ctx context.Context, s blob.Store, m delta.Metadata) (*delta.Table, error) {
	t, err := delta.Open(ctx, s, "")
	if errors.Is(err, delta.ErrNotTable) {
		return delta.Create(ctx, s, "", m)
	}
	return t, err
}

func commitBatch(ctx context.Context, t *delta.Table, rec arrow.RecordBatch, replace bool) error {
	defer rec.Release()
	snap, err := t.Latest(ctx)
	if err != nil {
		return err
	}
	tx := t.Begin(snap)
	if replace {
		tx.Overwrite()
	}
	if err := tx.Append(ctx, rec); err != nil {
		tx.Abort(ctx)
		return err
	}
	mode := "Append"
	if replace {
		mode = "Overwrite"
	}
	_, err = tx.Commit(ctx, delta.CommitOptions{Operation: "WRITE", Params: map[string]string{"mode": mode}})
	return err
}
