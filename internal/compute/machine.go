package compute

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/wal"
)

// machine is what engines stand on: this computer's data directory, its storage
// and the Postgres versions installed.
type machine struct {
	o        Options
	log      *slog.Logger
	store    storage
	installs map[int]postgres.Install

	groups groups // control groups of computes

	rest *atRest // timelines whose WAL is copied without a compute

	stuckMu sync.Mutex                 // guards stuck; not held across I/O
	stuck   map[tarn.TimelineID]volume // could not be closed
}

// socketDir is where an engine's socket is: below run, or, where that path is
// too long for a socket, below the temporary directory under a name that
// follows from it.
func (m *machine) socketDir(name string) string {
	dir := m.path("run", name)
	const longest = 107 - len("/.s.PGSQL.65535")
	if len(dir) <= longest && !strings.ContainsAny(dir, `,"`) {
		return dir
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(os.TempDir(), "tarn-"+hex.EncodeToString(sum[:10]))
}

// sweep removes an engine's directories; the mount is gone before. The mount's
// goes last: it is how Open finds what a crash left.
func (m *machine) sweep(name string) error {
	err := errors.Join(os.RemoveAll(m.socketDir(name)), os.RemoveAll(m.scratch(name)), removeFile(m.path("run", name+".pid")),
		removeFile(m.path("run", name+".conf")), removeFile(m.path("run", name+".conf.new")),
		removeFile(m.path("run", name+".fence")), removeFile(m.path("run", name+".fence.new")))
	if err != nil {
		return err
	}
	return removeFile(m.path("mnt", name)) // an empty directory: never what is mounted on it
}

// install is the Postgres that runs a timeline of the major version.
func (m *machine) install(major int) (postgres.Install, error) {
	in, ok := m.installs[major]
	if !ok {
		return in, tarn.Unavailable("Postgres %d is not installed", major).WithHint(fmt.Sprintf("apt install postgresql-%d, or name its directory with --pg-bin", major))
	}
	return in, nil
}

func (m *machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.o.Dir}, elem...)...)
}

func (m *machine) walOf(id tarn.TimelineID) *wal.Log {
	return wal.New(m.path("wal", string(id)), m.owner()).Backed(m.o.Remote.WAL, id)
}

func (m *machine) owner() *wal.Owner {
	if m.o.RunAs == nil {
		return nil
	}
	return &wal.Owner{UID: int(m.o.RunAs.UID), GID: int(m.o.RunAs.GID)}
}

// newFile is a file of Postgres's own.
func (m *machine) newFile(mode uint32, target string) layer.NewFile {
	f := layer.NewFile{Mode: mode, Target: target, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if o := m.o.RunAs; o != nil {
		f.UID, f.GID = o.UID, o.GID
	}
	return f
}

// ownSettings are those of the engines the fleet runs for itself.
func (m *machine) ownSettings(id tarn.TimelineID) (map[string]string, error) {
	return m.settings(tarn.ComputeSpec{Endpoint: engineName(id), MaxCU: minCU})
}

// settings are those of an endpoint's compute on this machine.
func (m *machine) settings(s tarn.ComputeSpec) (map[string]string, error) {
	all, err := settingsFor(s, m.groups.base(s), m.o.MemoryBytes)
	if err == nil && m.store.PageWrites() == tornPages {
		all["full_page_writes"] = "on"
	}
	for _, in := range m.o.Installs {
		if err != nil || in.Major != s.PGVersion {
			continue
		}
		prewarm(in, all)
		if v := in.Preload(all["shared_preload_libraries"]); v != "" {
			all["shared_preload_libraries"] = v
		}
	}
	return all, err
}
