// Package control makes the world agree with what was asked of projects,
// branches, endpoints, principals and tokens: ask, record, reconcile. It does
// not know HTTP nor how a compute runs.
//
// Whoever asks gets an operation, which is a row recorded together with what
// was asked; workers (Run) perform it, and another process goes on with it
// when this one dies. What is recorded is what was asked; what a compute does
// is observed from its node and never recorded as truth.
package control

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/token"
)

// Timelines is what control asks of a node's page store; *node.Client is one.
type Timelines interface {
	CreateTimeline(ctx context.Context, s tarn.TimelineSpec) (tarn.TimelineStatus, error)
	DeleteTimeline(ctx context.Context, id tarn.TimelineID) error
	Timeline(ctx context.Context, id tarn.TimelineID) (tarn.TimelineStatus, error)
	Timelines(ctx context.Context) ([]tarn.TimelineStatus, error)
	Window(ctx context.Context, id tarn.TimelineID) (tarn.Window, error)
	SetHistory(ctx context.Context, id tarn.TimelineID, d time.Duration) error
	DropSlots(ctx context.Context, id tarn.TimelineID) error
	Versions(ctx context.Context) ([]int, error)
}

// Computes is what control asks of a node's fleet; *node.Client is one.
type Computes interface {
	Wake(ctx context.Context, s tarn.ComputeSpec) (tarn.ComputeStatus, error)
	Suspend(ctx context.Context, endpoint string) error
	Computes(ctx context.Context) ([]tarn.ComputeStatus, error)
}

// Node is both: one computer.
type Node interface {
	Timelines
	Computes
}

// Signer signs Postgres passwords; *token.Signer is one.
type Signer interface {
	Sign(ctx context.Context, c token.Claims) (tarn.Secret, error)
}

// Config is what a Control works with.
type Config struct {
	DB       *controldb.DB
	Node     Node
	Signer   Signer
	Verifier Verifier      // of what Signer signed
	Owner    string        // name of the first admin, used at the first start; "" = <os user>@localhost
	Port     int           // on which the gateway listens; 0 = 5432
	Domain   string        // endpoints are also reached as <uid>.Domain; "" = no DNS
	Hold     time.Duration // how long a deletion waits until synced tables and feeds let go; 0 = 1 min
	Log      *slog.Logger  // nil = none
}

// Control keeps projects, branches, endpoints, principals and tokens. It is
// safe for concurrent use.
type Control struct {
	Pasts     *Pasts
	Snapshots *Snapshots
	Replicas  *Replicas
	Trash     *Trash
	Published *Published
	Identity  *Identity
	Access    *Access
	Directory *Directory
	Databases *Databases
	Roles     *Roles

	cfg       Config
	fleet     *fleet // the node's computes as last seen
	signals   *signals
	workspace atomic.Pointer[tarn.Workspace] // set by Bootstrap
}

// New builds a Control. Bootstrap must come before everything else.
func New(cfg Config) *Control {
	if cfg.Port == 0 {
		cfg.Port = 5432
	}
	if cfg.Hold == 0 {
		cfg.Hold = time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	told := &signals{}
	seen := &fleet{node: cfg.Node}
	directory := newDirectory(cfg, seen)
	c := &Control{
		Identity: &Identity{cfg: cfg, directory: directory}, Access: &Access{cfg: cfg}, Directory: directory,
		Pasts: &Pasts{cfg: cfg, signals: told}, Snapshots: &Snapshots{cfg: cfg, signals: told}, Replicas: &Replicas{cfg: cfg, signals: told}, Trash: &Trash{cfg: cfg, signals: told},
		cfg: cfg, fleet: seen, signals: told,
	}
	c.Databases, c.Published = &Databases{c}, &Published{c}
	c.Roles = &Roles{cfg: cfg, computes: c}
	return c
}

// Workspace is the workspace that Bootstrap made or found.
func (c *Control) Workspace() tarn.Workspace {
	if w := c.workspace.Load(); w != nil {
		return *w
	}
	return tarn.Workspace{}
}
