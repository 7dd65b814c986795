package syncedtable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/float16"
)

var (
	errTooLong   = errors.New("text is longer than the column")
	errDimension = errors.New("the array does not have the vector's dimension")
	errNotFinite = errors.New("a vector holds neither NULL, NaN nor infinity")
)

func varcharEncoding(size int) encoding {
	return encoding{fmt.Sprintf("character varying(%d)", size), 1043, func(d []byte, a arrow.Array, i int) ([]byte, error) {
		v := bytesOf(a, i)
		if len(v) > size && utf8.RuneCount(v) > size {
			return d, errTooLong
		}
		return appendText(d, v)
	}}
}

// vectorEncoding writes pgvector's binary form:
//
//	dimension (2) unused (2) each element: float (4), or half float (2)
func vectorEncoding(half bool, size int) encoding {
	name := "vector"
	if half {
		name = "halfvec"
	}
	return encoding{fmt.Sprintf("public.%s(%d)", name, size), 0, func(d []byte, a arrow.Array, i int) ([]byte, error) {
		list := a.(*array.List)
		start, end := list.ValueOffsets(i)
		if int(end-start) != size {
			return d, errDimension
		}
		d = binary.BigEndian.AppendUint16(d, uint16(size))
		d = binary.BigEndian.AppendUint16(d, 0)
		for at := int(start); at < int(end); at++ {
			var v float32
			switch values := list.ListValues().(type) {
			case *array.Float32:
				v = values.Value(at)
			case *array.Float64:
				v = float32(values.Value(at))
			}
			if list.ListValues().IsNull(at) || math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return d, errNotFinite
			}
			if half {
				h := float16.New(v)
				if h.IsInf() {
					return d, errRange
				}
				d = binary.BigEndian.AppendUint16(d, h.Uint16())
			} else {
				d = binary.BigEndian.AppendUint32(d, math.Float32bits(v))
			}
		}
		return d, nil
	}}
}
