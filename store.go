package tarn

import "time"

// StoreStats is what the page store of a node takes.
type StoreStats struct {
	Total      uint64          `json:"total"` // bytes of the file system
	Free       uint64          `json:"free"`
	TableBytes int64           `json:"table_bytes"` // of page tables in memory that can be dropped, about
	Timelines  []StoreTimeline `json:"timelines"`
}

// StoreTimeline is what one timeline takes, itself and not its parent. Numbers of
// bytes are about right.
type StoreTimeline struct {
	ID        TimelineID    `json:"id"`
	Parent    Point         `json:"parent,omitzero"`
	Template  int           `json:"template,omitempty"` // Postgres version it is the template of
	Deleted   bool          `json:"deleted,omitempty"`  // kept for others that began in it
	Open      bool          `json:"open,omitempty"`
	Visible   int64         `json:"visible"`            // bytes of its files as they were at its newest map, the parent's too
	LogBytes  int64         `json:"log_bytes"`          // on disk, images too
	MapBytes  int64         `json:"map_bytes"`          // on disk
	WALBytes  int64         `json:"wal_bytes"`          // on disk; segments shared with others are counted with each
	Garbage   int64         `json:"garbage"`            // bytes that a collection would give back
	Memory    int64         `json:"memory"`             // bytes of its index
	Behind    int64         `json:"behind"`             // bytes of log behind the newest map, that a start would read
	Marks     int           `json:"marks"`              // moments it can be forked at
	History   time.Duration `json:"history"`            // how far back points are kept
	Collected time.Time     `json:"collected,omitzero"` // last time
}

// StoreCheckSpec says what a check of a page store is to do.
type StoreCheckSpec struct {
	ID     string `json:"id"`               // names the check among others
	Local  bool   `json:"local,omitempty"`  // leave the object store out
	Repair bool   `json:"repair,omitempty"` // put objects again of which there is a whole copy here
}

// StoreCheck is how far a check of a page store is.
type StoreCheck struct {
	ID        string         `json:"id"`
	Done      bool           `json:"done"`
	Doing     string         `json:"doing,omitempty"` // what it verifies now
	Err       string         `json:"err,omitempty"`   // why it could not go on
	Took      time.Duration  `json:"took"`            // so far
	Timelines int            `json:"timelines"`       // verified; these counts only when it is done
	Points    int            `json:"points"`
	Maps      int            `json:"maps"`
	Tables    int64          `json:"tables"`
	Heads     int64          `json:"heads"` // of batches of the logs
	Pages     int64          `json:"pages"`
	Bytes     int64          `json:"bytes"`
	Bucket    *BucketCheck   `json:"bucket,omitempty"` // nil = it was not verified
	Findings  []StoreFinding `json:"findings"`         // so far
}

// BucketCheck is what a check verified in the object store.
type BucketCheck struct {
	URL       string `json:"url"`
	Manifests int    `json:"manifests"`
	Objects   int    `json:"objects"` // that manifests list: there, and as large as they say
	Bytes     int64  `json:"bytes"`   // of those
	Points    int    `json:"points"`
	Pages     int64  `json:"pages"` // read from there and compared with their checksums
	WAL       int    `json:"wal"`   // objects of WAL
	WALBytes  int64  `json:"wal_bytes"`
	Repaired  int    `json:"repaired"` // objects that were put again
}

// StoreFinding is something that is wrong in a page store.
type StoreFinding struct {
	Timeline TimelineID `json:"timeline"`
	File     string     `json:"file,omitempty"`   // "" = it is in no single file
	Offset   int64      `json:"offset,omitempty"` // bytes from the start of the file
	Message  string     `json:"message"`
	Hint     string     `json:"hint"` // what to do
}
