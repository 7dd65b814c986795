package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options of a run.
type Options struct {
	Tarn    string // the program
	PGBin   string // directory of Postgres programs; "" = what tarn up finds
	Dir     string // where the disk image and the logs go
	Seed    uint64
	Length  time.Duration
	DiskMB  int64
	Storage string       // program of an S3 server (versitygw): with an object store, its faults and the loss of the computer; "" = without
	KeepIn  string       // where logs of a failed run go; "" = nowhere
	Say     func(string) // one line of progress
}

// ground is what a run stands on: a Tarn, its disk, a project and what is known
// of it.
type ground struct {
	o     Options
	r     *rand.Rand
	disk  *disk
	in    *instance
	can   map[string]bool // commands that this version of the program has
	began time.Time
	seen  int // judgements of branches
	names int

	project string
	window  time.Duration // its history; 0 = longer than any run
	ledger  *ledger
}

// soak is one run.
type soak struct {
	*ground
	done     map[string]int // steps by name
	projects int

	main      *branch
	children  []*branch
	snapshots []*snapshot
	working   *tellers // on main
	beside    *tellers // on one of the children, or nil
	besideAt  *branch
}

// Run soaks a new Tarn and removes it.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "tarn-soak-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &soak{done: map[string]int{}, ground: &ground{o: o, r: rand.New(rand.NewPCG(o.Seed, 0)), began: time.Now(), can: map[string]bool{}}}
	s.say("seed %d, %s", o.Seed, o.Length)
	// What was begun must be ended although we were interrupted.
	clean := context.WithoutCancel(ctx)
	if s.disk, err = openDisk(ctx, dir, o.DiskMB); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.disk.close()) }()
	if s.disk.plain != "" {
		s.say("the disk is never filled: %s", s.disk.plain)
	}
	if s.in, err = newInstance(o.Tarn, s.disk.dir, o.PGBin); err != nil {
		return err
	}
	if o.Storage != "" {
		// Beside the disk, which is filled.
		if s.in.bucket, err = openBucket(ctx, o.Storage, dir, o.Seed); err != nil {
			return err
		}
		defer func() {
			s.say("%s", s.in.bucket.proxy)
			err = errors.Join(err, s.in.bucket.close())
		}()
	}
	defer func() {
		if s.in.bucket != nil {
			s.in.bucket.proxy.share.Store(0) // what is left is to end in order
		}
		err = errors.Join(err, s.disk.drain(), s.in.clear(clean))
		if err != nil {
			err = errors.Join(err, s.keep(s.in.data))
		}
	}()
	if err := s.in.up(ctx); err != nil {
		return err
	}
	if s.in.bucket != nil {
		s.in.bucket.proxy.share.Store(faultShare)
	}
	for _, c := range []string{"branch restore", "branch reset", "snapshot create", "project update", "store check"} {
		s.can[c] = s.in.knows(ctx, strings.Fields(c)...)
	}
	defer s.rest()
	return s.run(ctx)
}

// run is the whole of it: projects one after the other, so that space and the
// ledger stay bounded however long it takes.
func (s *soak) run(ctx context.Context) error {
	end := s.began.Add(s.o.Length)
	for {
		if err := s.openProject(ctx); err != nil {
			return fmt.Errorf("project %s: %w", s.project, err)
		}
		for time.Now().Before(end) {
			full, err := s.full()
			if err != nil {
				return err
			}
			if full {
				break
			}
			if err := s.step(ctx); err != nil {
				return err
			}
		}
		if err := s.closeProject(ctx); err != nil {
			return fmt.Errorf("end of project %s: %w", s.project, err)
		}
		if !time.Now().Before(end) {
			break
		}
	}
	s.say("done: %s", s.summary())
	return nil
}

func (s *soak) summary() string {
	var all []string
	for name, n := range s.done {
		all = append(all, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(all)
	return fmt.Sprintf("%d judgements without a finding, %d projects; %s", s.seen, s.projects, strings.Join(all, ", "))
}

func (s *ground) say(format string, args ...any) {
	if s.o.Say != nil {
		s.o.Say(fmt.Sprintf("%8.1fs ", time.Since(s.began).Seconds()) + fmt.Sprintf(format, args...))
	}
}

// full says whether the project should make room for the next one.
func (s *ground) full() (bool, error) {
	const most = 150_000 // transfers
	if s.ledger.count() > most {
		return true, nil
	}
	if !s.disk.canFill() {
		return false, nil
	}
	free, total, err := s.disk.space()
	return free < total*4/10, err
}

// openProject makes a project with its bank and lets the tellers work.
func (s *soak) openProject(ctx context.Context) error {
	s.projects++
	s.project = fmt.Sprintf("soak%d", s.projects)
	args := []string{"project", "create", s.project}
	// With a short history much is collected, with the usual one much is kept.
	if s.window = 0; s.can["project update"] && s.r.IntN(3) > 0 {
		s.window = pick(s.r, []time.Duration{40 * time.Second, 90 * time.Second, 5 * time.Minute})
		args = append(args, "--history", s.window.String())
	}
	if _, err := s.in.tarn(ctx, args...); err != nil {
		return err
	}
	s.say("project %s, history %s (0 = as it comes)", s.project, s.window)
	s.ledger = &ledger{}
	s.main = &branch{name: "production"}
	s.children, s.snapshots = nil, nil
	c, err := s.connect(ctx, s.main)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	if _, err := c.Exec(ctx, makeBank()); err != nil {
		return err
	}
	s.main.born = time.Now()
	s.work(ctx)
	if err := s.progress(ctx, 50); err != nil {
		return err
	}
	return s.judge(ctx, s.main)
}

// closeProject judges every branch a last time, deletes all and sees the space
// come back.
func (s *soak) closeProject(ctx context.Context) error {
	if s.in.bucket != nil {
		if err := s.loseComputer(ctx); err != nil {
			return fmt.Errorf("lose the computer: %w", err)
		}
		if err := s.checkStorage(ctx); err != nil {
			return err
		}
	}
	s.rest()
	for _, b := range append(slices.Clone(s.children), s.main) {
		if err := s.judge(ctx, b); err != nil {
			return err
		}
	}
	if err := s.amcheck(ctx, s.main); err != nil {
		return err
	}
	before, total, err := s.disk.space()
	if err != nil {
		return err
	}
	if _, err := s.in.tarn(ctx, "project", "delete", s.project, "--yes"); err != nil {
		return err
	}
	if s.disk.canFill() {
		err := await(ctx, "the space of a deleted project", func() error {
			free, _, err := s.disk.space()
			if err == nil && free < total/2 && free-before < (total-before)/2 {
				err = fmt.Errorf("%d MiB of %d are free, before the deletion it was %d", free>>20, total>>20, before>>20)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	free, _, err := s.disk.space()
	s.say("project %s deleted: %d MiB free, before %d", s.project, free>>20, before>>20)
	return err
}

// work lets tellers work on main, and rest stops all tellers.
func (s *soak) work(ctx context.Context) {
	s.working = startTellers(context.WithoutCancel(ctx), s.main, s.ledger, 4, s.r, s.urlOf(s.main))
}

func (s *soak) rest() {
	s.restBeside()
	if s.working != nil {
		s.working.stop()
		s.working = nil
	}
}

func (s *soak) restBeside() {
	if s.beside != nil {
		s.beside.stop()
		s.beside, s.besideAt = nil, nil
	}
}

// progress waits until n more transfers were acknowledged on main.
func (s *soak) progress(ctx context.Context, n int64) error {
	want := s.working.acked.Load() + n
	return await(ctx, fmt.Sprintf("%d transfers", n), func() error {
		if got := s.working.acked.Load(); got < want {
			return fmt.Errorf("%d are missing", want-got)
		}
		return nil
	})
}

// keep copies logs to where the caller wants them.
func (s *ground) keep(data string) error {
	if s.o.KeepIn == "" {
		return nil
	}
	logs, _ := filepath.Glob(filepath.Join(data, "log", "*")) // none is fine
	for _, from := range logs {
		if err := copyFile(from, filepath.Join(s.o.KeepIn, filepath.Base(from))); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
