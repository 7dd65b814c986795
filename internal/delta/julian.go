package delta

import (
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet/metadata"
)

// Spark before version 3 counted days before 1582-10-15 by the Julian calendar,
// and later versions can be told to. Such files say so. Their later dates are
// like everybody's; the earlier ones we refuse rather than give a wrong day.

// julianDates tells which columns of a file may count that way.
type julianDates struct {
	int96  bool // timestamps stored as INT96
	others bool // dates and other timestamps
}

var errJulian = &UnsupportedError{Feature: "dates of the Julian calendar"}

func julianDatesOf(kv metadata.KeyValueMetadata) julianDates {
	version := kv.FindValue("org.apache.spark.version")
	if version == nil {
		return julianDates{}
	}
	return julianDates{
		int96:  before(*version, 3, 1) || kv.FindValue("org.apache.spark.legacyINT96") != nil,
		others: before(*version, 3, 0) || kv.FindValue("org.apache.spark.legacyDateTime") != nil,
	}
}

// before compares the first two numbers of a version. One that cannot be read
// is newer than any we know.
func before(version string, major, minor int) bool {
	p := strings.SplitN(version, ".", 3)
	if len(p) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(p[0])
	b, err2 := strconv.Atoi(p[1])
	return err1 == nil && err2 == nil && (a < major || a == major && b < minor)
}

const gregorianStart = -141427 // 1582-10-15 in days since 1970

// ancient tells whether a holds a time before the Gregorian calendar.
func ancient(a arrow.Array) bool {
	var old func(i int) bool
	switch a := a.(type) {
	case *array.Date32:
		old = func(i int) bool { return a.Value(i) < gregorianStart }
	case *array.Timestamp:
		day := int64(86400)
		switch a.DataType().(*arrow.TimestampType).Unit {
		case arrow.Millisecond:
			day *= 1e3
		case arrow.Microsecond:
			day *= 1e6
		case arrow.Nanosecond:
			day *= 1e9
		}
		old = func(i int) bool { return floorDiv(int64(a.Value(i)), day) < gregorianStart }
	case *array.Struct:
		for i := range a.NumField() {
			if ancient(a.Field(i)) {
				return true
			}
		}
		return false
	case *array.Map:
		return ancient(a.Keys()) || ancient(a.Items())
	case *array.List:
		return ancient(a.ListValues())
	default:
		return false
	}
	for i := range a.Len() {
		if a.IsValid(i) && old(i) {
			return true
		}
	}
	return false
}
