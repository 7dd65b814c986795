package wire

import (
	"time"

	"github.com/tarndb/tarn"
)

// StoreStats is what the page store takes; every number of bytes is about right.
type StoreStats struct {
	TotalBytes int64           `json:"total_bytes"` // of the file system
	FreeBytes  int64           `json:"free_bytes"`
	TableBytes int64           `json:"table_bytes"` // of page tables in memory that can be dropped
	Timelines  []StoreTimeline `json:"timelines"`
}

// StoreTimeline is what one timeline takes, itself and not its parent.
type StoreTimeline struct {
	Branch                   string `json:"branch,omitempty"` // projects/p/branches/b; "" = no branch has it
	Timeline                 string `json:"timeline"`
	Parent                   string `json:"parent,omitempty"`   // timeline it began in
	Template                 int    `json:"template,omitempty"` // Postgres version it is the template of
	Deleted                  bool   `json:"deleted,omitempty"`  // kept for others that began in it
	Open                     bool   `json:"open,omitempty"`
	VisibleBytes             int64  `json:"visible_bytes"`
	LogBytes                 int64  `json:"log_bytes"` // images too
	MapBytes                 int64  `json:"map_bytes"`
	WALBytes                 int64  `json:"wal_bytes"`
	GarbageBytes             int64  `json:"garbage_bytes"` // that a collection would give back
	MemoryBytes              int64  `json:"memory_bytes"`
	BehindBytes              int64  `json:"behind_bytes"` // of log that a start would read
	Marks                    int    `json:"marks"`
	HistoryRetentionDuration string `json:"history_retention_duration"`
	CollectTime              string `json:"collect_time,omitempty"` // of the last collection
}

// StoreCheck is how far a check of the page store is.
type StoreCheck struct {
	ID        string         `json:"id"`
	Done      bool           `json:"done"`
	Doing     string         `json:"doing,omitempty"` // what it verifies now
	Error     string         `json:"error,omitempty"` // why it could not go on
	Duration  string         `json:"duration"`        // so far
	Timelines int            `json:"timelines"`       // verified; these counts only when it is done
	Points    int            `json:"points"`
	Maps      int            `json:"maps"`
	Tables    int64          `json:"tables"`
	Heads     int64          `json:"heads"`
	Pages     int64          `json:"pages"`
	Bytes     int64          `json:"bytes"`
	Bucket    *BucketCheck   `json:"bucket,omitempty"` // what was verified in the object store; absent where it was not
	Findings  []StoreFinding `json:"findings"`
}

// BucketCheck is what a check verified in the object store.
type BucketCheck struct {
	URL       string `json:"url"`
	Manifests int    `json:"manifests"`
	Objects   int    `json:"objects"`
	Bytes     int64  `json:"bytes"` // of the objects
	Points    int    `json:"points"`
	Pages     int64  `json:"pages"`
	WAL       int    `json:"wal"` // objects of WAL
	WALBytes  int64  `json:"wal_bytes"`
	Repaired  int    `json:"repaired"`
}

// StoreFinding is something that is wrong in the page store.
type StoreFinding struct {
	Branch   string `json:"branch,omitempty"` // whose timeline it is
	Timeline string `json:"timeline"`
	File     string `json:"file,omitempty"`
	Offset   int64  `json:"offset,omitempty"` // bytes from the start of the file
	Message  string `json:"message"`
	Hint     string `json:"hint"`
}

// StoreCheckOf spells a check; branches names timelines.
func StoreCheckOf(c tarn.StoreCheck, branches map[tarn.TimelineID]string) StoreCheck {
	out := StoreCheck{ID: c.ID, Done: c.Done, Error: c.Err, Duration: Duration(c.Took.Truncate(time.Millisecond)), Timelines: c.Timelines, Points: c.Points,
		Maps: c.Maps, Tables: c.Tables, Heads: c.Heads, Pages: c.Pages, Bytes: c.Bytes, Findings: []StoreFinding{}}
	out.Doing = c.Doing
	if b := c.Bucket; b != nil {
		one := BucketCheck(*b)
		out.Bucket = &one
	}
	for _, f := range c.Findings {
		out.Findings = append(out.Findings, StoreFinding{Branch: branches[f.Timeline], Timeline: string(f.Timeline), File: f.File,
			Offset: f.Offset, Message: f.Message, Hint: f.Hint})
	}
	return out
}
