package delta

import (
	"fmt"
	"strconv"
	"strings"
)

const logFolder = "_delta_log/"

// logKind is what a name in the log folder stands for.
type logKind uint8

const (
	logOther      logKind = iota
	logCommit             // <version>.json
	logCheckpoint         // <version>.checkpoint.parquet
	logPart               // <version>.checkpoint.<part>.<parts>.parquet
	logUUID               // <version>.checkpoint.<uuid>.json or .parquet
	logCompacted          // <version>.<last version>.compacted.json
)

type logName struct {
	kind        logKind
	version     int64
	part, parts int   // of logPart, from 1
	last        int64 // of logCompacted
}

func commitName(version int64) string { return fmt.Sprintf("%s%020d.json", logFolder, version) }

func checkpointName(version int64) string {
	return fmt.Sprintf("%s%020d.checkpoint.parquet", logFolder, version)
}

// parseLogName reads a name without its folder. Checksums are other: they repeat
// what commits say.
func parseLogName(name string) logName {
	p := strings.Split(name, ".")
	version, ok := digits(p[0], 20)
	if !ok {
		return logName{}
	}
	switch {
	case len(p) == 2 && p[1] == "json":
		return logName{kind: logCommit, version: version}
	case len(p) == 4 && p[2] == "compacted" && p[3] == "json":
		if last, ok := digits(p[1], 20); ok && last > version {
			return logName{kind: logCompacted, version: version, last: last}
		}
		return logName{}
	case len(p) < 3 || p[1] != "checkpoint":
		return logName{}
	case len(p) == 3 && p[2] == "parquet":
		return logName{kind: logCheckpoint, version: version}
	case len(p) == 4 && p[2] != "" && (p[3] == "parquet" || p[3] == "json"):
		return logName{kind: logUUID, version: version}
	case len(p) == 5 && p[4] == "parquet":
		part, ok1 := digits(p[2], 10)
		parts, ok2 := digits(p[3], 10)
		if ok1 && ok2 && part >= 1 && part <= parts && parts < 1<<20 {
			return logName{kind: logPart, version: version, part: int(part), parts: int(parts)}
		}
	}
	return logName{}
}

// digits parses a number of exactly width decimal digits.
func digits(s string, width int) (int64, bool) {
	if len(s) != width {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
