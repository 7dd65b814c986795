package postgres

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/tarndb/tarn"
)

// RunAs is the OS user Postgres runs as when we are root: Postgres refuses to
// run as root itself.
type RunAs struct {
	UID, GID uint32
	Name     string // for messages
}

// DefaultRunAs is nil when we are not root; else the user postgres, or nobody
// where there is no such user.
func DefaultRunAs() (*RunAs, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range [...]string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if _, unknown := errors.AsType[user.UnknownUserError](err); unknown {
			continue
		}
		if err != nil {
			return nil, err
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &RunAs{UID: uint32(uid), GID: uint32(gid), Name: name}, nil
	}
	return nil, tarn.Unavailable("choose a user for Postgres: there is neither postgres nor nobody").
		WithHint("useradd --system postgres, or run as a user who is not root")
}

// credential is what exec needs to become the user; it has no supplementary
// groups.
func (r *RunAs) credential() *syscall.Credential {
	if r == nil {
		return nil
	}
	return &syscall.Credential{Uid: r.UID, Gid: r.GID}
}

// checkIdentity refuses what Postgres would refuse with a longer message.
func (r *RunAs) checkIdentity() error {
	switch {
	case os.Geteuid() == 0 && (r == nil || r.UID == 0):
		return tarn.Invalid("Postgres cannot run as root").WithHint("set RunAs, for example from DefaultRunAs")
	case os.Geteuid() != 0 && r != nil && int(r.UID) != os.Geteuid():
		return tarn.Invalid("only root can run Postgres as %s", r.Name)
	}
	return nil
}

// CheckAccess refuses what would let every start fail later: that the user
// Postgres runs as cannot execute in's programs or enter one of dirs, which
// exist. It tries it, because mode bits are not the whole truth.
func CheckAccess(ctx context.Context, in Install, r *RunAs, dirs ...string) error {
	program := in.program("postgres")
	for _, dir := range append([]string{"/"}, dirs...) {
		cmd := exec.CommandContext(ctx, program, "--version")
		cmd.Dir, cmd.Env = dir, environment(in.BinDir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: r.credential()}
		err := cmd.Run() // it becomes the user first and enters dir then
		switch why := r.explain(program, filepath.Join(dir, "x")); {
		case err == nil:
		case why != nil:
			return why
		default:
			return tarn.Invalid("run %s --version in %s: %w", program, dir, err)
		}
	}
	return nil
}

// ownDir makes dir (mode 0700) if it is missing and gives it to the user.
// Parents are made with mode 0755 and stay ours.
func (r *RunAs) ownDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if r == nil {
		return nil
	}
	return os.Chown(dir, int(r.UID), int(r.GID))
}

// explain says which directory on the way to one of the paths the user may not
// traverse, and nil when every one is open as far as mode bits tell. It is
// asked only after something was refused: where there are access control lists
// mode bits are not the whole truth, so they never forbid anything here.
func (r *RunAs) explain(paths ...string) error {
	if r == nil {
		return nil
	}
	for _, path := range paths {
		wanted := strings.TrimSuffix(path, "/x")
		if why := r.explainPath(wanted, path); why != nil {
			return why
		}
		if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			if why := r.explainPath(wanted, filepath.Join(real, "x")); why != nil {
				return why
			}
		}
	}
	return nil
}

func (r *RunAs) explainPath(wanted, path string) error {
	for _, dir := range ancestors(path) {
		st, err := os.Stat(dir)
		if err != nil {
			return nil
		}
		if !r.mayTraverse(st) {
			return tarn.Invalid("user %s, whom Postgres runs as, may not enter %s (mode %04o) on the way to %s",
				r.Name, dir, st.Mode().Perm(), filepath.Clean(wanted)).
				WithHint("chmod o+x " + dir + ", or keep programs and data in a place that " + r.Name + " can enter, such as /usr/local or /var/lib")
		}
	}
	return nil
}

func (r *RunAs) mayTraverse(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	shift := 0
	switch {
	case sys.Uid == r.UID:
		shift = 6
	case sys.Gid == r.GID:
		shift = 3
	}
	return st.Mode().Perm()>>shift&1 != 0
}

// ancestors lists the directories above path from the root down.
func ancestors(path string) []string {
	dirs := []string{"/"}
	for i := 1; i < len(path); i++ {
		if path[i] == '/' && !strings.HasSuffix(path[:i], "/") {
			dirs = append(dirs, path[:i])
		}
	}
	return dirs
}
