package syncedtable

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
)

// COPY's binary format:
//
//	"PGCOPY\n\xff\r\n\0" flags (4) extension length (4)
//	each row: column count (2) each column: length (4) bytes
//	-1 (2)
const (
	copyHeader  = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	copyTrailer = "\xff\xff"
)

// appendRow encodes a row in the source's order of columns.
func (l layout) appendRow(d []byte, rec arrow.RecordBatch, row int) ([]byte, error) {
	d = binary.BigEndian.AppendUint16(d, uint16(len(l.cols)))
	for i := range l.cols {
		var err error
		if d, err = l.appendColumn(d, rec, row, i); err != nil {
			return d, err
		}
	}
	return d, nil
}

func (l layout) appendColumn(d []byte, rec arrow.RecordBatch, row, i int) ([]byte, error) {
	c, a := &l.cols[i], rec.Column(i)
	if c.key && a.IsNull(row) {
		return d, fmt.Errorf("column %s: %w", c.delta, errNullKey)
	}
	d, err := appendField(d, a, row, c.form)
	if err != nil {
		return d, fmt.Errorf("column %s: %w", c.delta, err)
	}
	return d, nil
}

// appendKey encodes the key's columns alone.
func (l layout) appendKey(d []byte, rec arrow.RecordBatch, row int) ([]byte, error) {
	for _, i := range l.keyOrder() {
		var err error
		if d, err = l.appendColumn(d, rec, row, i); err != nil {
			return d, err
		}
	}
	return d, nil
}

// letterOf makes a dead letter of a row.
func (l layout) letterOf(rec arrow.RecordBatch, row int, version int64, reason error) letter {
	x := letter{reason: reason.Error(), version: version}
	x.row, x.lossy = l.asJSON(rec, row)
	if key, err := l.appendKey(nil, rec, row); err == nil {
		x.key = key
	}
	return x
}

// The first column of a staged row says whether the key goes away.
const (
	stagedGone = "tarn gone"
	opSize     = 2 + 4 + 1 // column count, length, boolean
)

// appendStaged encodes a row for the stage: the mark, then the columns in
// l.order. keyEnd is where the key ends in it. A row that goes has its key and
// timeseries key only.
func (l layout) appendStaged(d []byte, rec arrow.RecordBatch, row int, gone bool) (out []byte, keyEnd int, err error) {
	d = binary.BigEndian.AppendUint16(d, uint16(len(l.cols)+1))
	d = binary.BigEndian.AppendUint32(d, 1)
	mark := byte(0)
	if gone {
		mark = 1
	}
	d = append(d, mark)
	for at, i := range l.order {
		if at == l.keys {
			keyEnd = len(d)
		}
		if gone && at >= l.keys && at != l.ts {
			d = binary.BigEndian.AppendUint32(d, math.MaxUint32)
			continue
		}
		if d, err = l.appendColumn(d, rec, row, i); err != nil {
			return d, 0, err
		}
	}
	if keyEnd == 0 {
		keyEnd = len(d)
	}
	return d, keyEnd, nil
}
