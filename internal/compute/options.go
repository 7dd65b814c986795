package compute

import (
	"log/slog"
	"path/filepath"
	"time"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/volumefs"
	"github.com/tarndb/tarn/internal/wal"
)

// Options of a fleet.
type Options struct {
	Dir      string             // data directory; made if missing
	Installs []postgres.Install // Postgres versions, newest first
	RunAs    *postgres.RunAs    // whom Postgres runs as; nil = ourselves
	Handed   *Handed            // computes to go on with; nil = none
	Log      *slog.Logger       // nil = none
	Volumes  VolumeKind         // "" = what Dir has, else FUSE where there is FUSE

	CheckEvery  time.Duration // how often a compute is asked whether it needs a mark; 0 = 10 s
	MarkEvery   time.Duration // a mark at most this old while WAL grows; 0 = 1 min
	MarkWAL     int64         // a mark at most this many bytes of WAL behind; 0 = 64 MiB
	BaseEvery   time.Duration // plain directories only: how often a running one is copied, at most; 0 = 5 min with reflinks, 6 h without
	MemoryBytes int64         // of this computer; 0 = ask the kernel

	CPUsPerCU float64 // of one CU; 0 = 1. Nobody publishes the share; Neon has 1 vCPU with 4 GB

	Rings  volumefs.Rings // whether mounts use FUSE over io_uring; 0 = no
	Remote Remote         // what outlives the data directory
}

// Remote is what is kept beyond the data directory, in an object store. With a
// zero Remote everything is on this computer only.
type Remote struct {
	WAL      *wal.Remote // where WAL is copied to; nil = nowhere
	Store    blob.Store  // where pages and records are kept; nil = nowhere
	Node     string      // names the data directory: 32 hexadecimal digits
	LocalWAL int64       // bytes of a timeline's copied segments to keep here too; 0 = 1 GiB
	Local    int64       // about how many bytes of copied pages to keep here too; 0 = all

	SealEvery time.Duration // how old what was copied of a timeline's pages gets; 0 = 1 min
	Lease     time.Duration // how long another node must be silent to be gone; 0 = 30 s
}

func (o *Options) fill() error {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	o.Dir = dir
	setDefault(&o.CheckEvery, 10*time.Second)
	setDefault(&o.MarkEvery, time.Minute)
	setDefault(&o.MarkWAL, 64<<20)
	setDefault(&o.CPUsPerCU, 1)
	setDefault(&o.Remote.LocalWAL, 1<<30)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes, err = machineMemory()
	}
	return err
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
