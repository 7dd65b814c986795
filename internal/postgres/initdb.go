package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tarndb/tarn"
)

// InitOptions says what data directory to make.
type InitOptions struct {
	DataDir   string // must be empty
	Place     Place
	WALDir    string // pg_wal becomes a symbolic link to it; "" = inside DataDir
	Superuser string // "" = tarn.Superuser
	RunAs     *RunAs // owner of the directories; nil = ourselves
	// NoSync leaves the new files to the operating system's own time of
	// writing: for scratch servers, and where the caller syncs.
	NoSync bool
	// Checksums makes Postgres guard its pages itself; else whoever keeps them
	// does.
	Checksums bool
	Log       *slog.Logger // nil = none
}

// Place says what there is of a data directory before InitDB.
type Place uint8

const (
	// ToPrepare places are made if they are missing, and given to the user.
	ToPrepare Place = iota
	// Prepared places are there and the user's; only initdb touches them. See
	// FileReader for why.
	Prepared
)

// InitDB makes a data directory: encoding UTF8, code point order
// (C.UTF-8), time zone UTC, page checksums only where asked for (the page store has
// its own, and hint bits would log full pages again), local connections trusted, everything
// that comes over a network rejected.
//
// What a failure leaves in DataDir is the caller's to remove; initdb removes
// its own files.
func InitDB(ctx context.Context, in Install, o InitOptions) error {
	if o.Superuser == "" {
		o.Superuser = tarn.Superuser
	}
	if err := o.RunAs.checkIdentity(); err != nil {
		return err
	}
	dataDir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return err
	}
	below := filepath.Join(dataDir, "x")
	if o.Place == Prepared {
		below = dataDir
	} else if err := o.RunAs.ownDir(dataDir); err != nil {
		return fmt.Errorf("initialize %s: %w", dataDir, err)
	}
	args := []string{
		"--pgdata=" + dataDir,
		"--username=" + o.Superuser,
		"--encoding=UTF8",
		"--auth-local=trust",
		"--auth-host=reject",
		"--no-instructions",
	}
	args = append(args, localeArgs(in.Major)...)
	if o.Checksums {
		args = append(args, "--data-checksums")
	} else if in.Major >= 18 {
		args = append(args, "--no-data-checksums") // off by default before
	}
	if o.NoSync {
		args = append(args, "--no-sync")
	}
	walDir := ""
	if o.WALDir != "" {
		if walDir, err = filepath.Abs(o.WALDir); err != nil {
			return err
		}
		if err := o.RunAs.ownDir(walDir); err != nil {
			return fmt.Errorf("initialize %s: %w", walDir, err)
		}
		args = append(args, "--waldir="+walDir)
	}
	began := time.Now()
	program := in.program("initdb")
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "/" // ours may be closed to the user
	cmd.Env = environment(in.BinDir)
	// A process group of its own: initdb's children must end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: o.RunAs.credential()}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if why := o.RunAs.explain(program, below, filepath.Join(walDir, "x")); why != nil {
			return why
		}
		return fmt.Errorf("initialize %s: %w: %s", dataDir, err, lastLines(string(out)))
	}
	if o.Log != nil {
		o.Log.Info("data directory initialized", "path", dataDir, "version", in.Version, "took", time.Since(began))
	}
	return nil
}

func localeArgs(major int) []string {
	if major >= 17 {
		// The built-in provider sorts alike on every machine.
		return []string{"--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C.UTF-8"}
	}
	return []string{"--locale=C.UTF-8"}
}

// lastLines keeps the end of a program's output, where the reason stands.
func lastLines(out string) string {
	const keep = 15
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) > keep {
		lines = lines[len(lines)-keep:]
	}
	return strings.Join(lines, "\n")
}
