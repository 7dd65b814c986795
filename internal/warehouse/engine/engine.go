// Package engine runs DuckDB in a process of its own and speaks with it over a
// unix socket: Serve is that process, Process is the other side. It knows
// statements, their preparation and results in Arrow's form; which tables exist
// and who may read them is decided before a statement comes here.
//
// Every statement gets a database of its own, in memory, which may open exactly
// the files that the statement was planned with: no statement sees another's
// views, settings or files, installs an extension or attaches a database file.
//
// A process that ends, because it was told to, ran out of memory or crashed,
// takes its statements with it and nothing else; the next statement starts
// another. Nothing it writes is needed again.
package engine

// Statement is what is run, behind what prepares it.
type Statement struct {
	ID       string   `json:"id"`       // names it for Progress
	Memory   int64    `json:"memory"`   // bytes it may take; what does not fit is spilled to the temporary directory
	Threads  int      `json:"threads"`  // 0 = as many as the process has
	Paths    []string `json:"paths"`    // files it may open
	Prepare  []string `json:"prepare"`  // statements of ours before it: schemas and views
	SQL      string   `json:"sql"`      // one statement
	Params   []Param  `json:"params"`   // of $name in SQL
	MaxBatch int64    `json:"maxBatch"` // rows of a batch; 0 = 16384
}

// Param is the value of one parameter; nil = NULL.
type Param struct {
	Name string  `json:"name"`
	Text *string `json:"text"`
}

// Options are how an engine's process works.
type Options struct {
	Library string // path of libduckdb
	Dir     string // of the process alone: its socket is in it, and what it spills; emptied at its start
	Threads int    // 0 = as many as there are processors
}

// What goes over the socket, which is HTTP.
const (
	pathRun      = "/run"      // POST Statement → Arrow stream, its failure in a trailer
	pathParse    = "/parse"    // POST parseArg → DuckDB's own tree of a SELECT, as JSON
	pathProgress = "/progress" // GET ?id= → percentage
	errorTrailer = "Tarn-Error"
	kindHeader   = "Tarn-Error-Kind"
)

type parseArg struct {
	SQL string `json:"sql"`
}
