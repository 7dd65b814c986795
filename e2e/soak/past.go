package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const stamp = "2006-01-02T15:04:05.999999Z"

// maxSnapshots bounds what is kept from collection.
const maxSnapshots = 3

// snapshot is a named point, of which branches are made.
type snapshot struct {
	name string
	from *origin
}

// history is the part of a soak that turns branches back.
type history struct{ *soak }

// pastSteps are the steps with what came later to Tarn; can says which
// commands there are.
func (s history) pastSteps() []step {
	room := len(s.children) < maxChildren
	return []step{
		{"restore", 4, s.can["branch restore"] && room, func(ctx context.Context) error { return s.restore(ctx, s.main, "") }},
		{"restore a child", 3, s.can["branch restore"] && room && s.knownChild() != nil, func(ctx context.Context) error { return s.restore(ctx, s.knownChild(), "") }},
		{"restore under a kill", 2, s.can["branch restore"] && room, func(ctx context.Context) error {
			return s.restore(ctx, s.source(), pick(s.r, []string{"postgres", "node", "control"}))
		}},
		{"reset", 2, s.can["branch reset"] && room && s.resettable() != nil, s.reset},
		{"snapshot", 2, s.can["snapshot create"] && len(s.snapshots) < maxSnapshots, s.snapshot},
		{"branch of a snapshot", 2, len(s.snapshots) > 0 && room, s.forkSnapshot},
		{"delete a snapshot", 1, len(s.snapshots) > 0, s.deleteSnapshot},
		{"store check", 2, s.can["store check"], s.checkStorage},
	}
}

// knownChild is one of the children whose beginning is certain, or nil.
func (s history) knownChild() *branch {
	known := slices.DeleteFunc(slices.Clone(s.children), func(b *branch) bool { return !b.known() })
	if len(known) == 0 {
		return nil
	}
	return pick(s.r, known)
}

// resettable is a child with a parent, or nil.
func (s history) resettable() *branch {
	all := slices.DeleteFunc(slices.Clone(s.children), func(b *branch) bool { return !b.known() || b.source == nil || !b.source.known() })
	if len(all) == 0 {
		return nil
	}
	return pick(s.r, all)
}

// restore puts a branch back to a moment of its past. What it held goes on as
// another branch, and both are judged. Tellers rest meanwhile: what they had
// acknowledged must be in what it held.
func (s history) restore(ctx context.Context, b *branch, victim string) error {
	to := s.past(b)
	return s.swap(ctx, b, to, victim, "restore", "--to", to.at)
}

// past is a moment of a branch: a time or an LSN.
func (s *ground) past(b *branch) *origin {
	if s.forgetSamples(b); len(b.samples) > 0 && s.r.IntN(3) == 0 {
		p := pick(s.r, b.samples)
		return &origin{parent: b, surely: p.before, never: p.after, how: p.lsn, at: p.lsn}
	}
	t := s.moment(b)
	return &origin{parent: b, surely: t, never: t, how: fmt.Sprintf("%.3f s ago", time.Since(t).Seconds()), at: t.UTC().Format(stamp)}
}

// reset puts a child to what its parent holds now.
func (s history) reset(ctx context.Context) error {
	b := s.resettable()
	return s.swap(ctx, b, &origin{parent: b.source, surely: time.Now(), how: "now"}, "", "reset")
}

// swap runs a command that gives a branch another line, and keeps books of it:
// the old line goes on under a new name with all that was known of the branch.
func (s history) swap(ctx context.Context, b *branch, to *origin, victim, verb string, flags ...string) error {
	main := b == s.main
	if main {
		s.working.stop()
		s.working = nil
	}
	if s.besideAt == b {
		s.restBeside()
	}
	keep := s.name()
	args := append([]string{"branch", verb, s.project + "/" + b.name, "--keep-as", keep}, flags...)
	began := time.Now()
	if err := s.runKilled(ctx, victim, keep, args); err != nil {
		return err
	}
	if to.how == "now" {
		to.never = time.Now()
	}
	s.say("%s %s to %s, %s, in %s; it goes on as %s", verb, b.name, to.parent.name, to.how, time.Since(began).Round(time.Millisecond), keep)
	now := &branch{name: b.name, from: to, source: b.source, born: time.Now()}
	b.name = keep
	if main {
		s.main = now
		s.children = append(s.children, b)
	} else {
		s.children[slices.Index(s.children, b)] = now
		s.children = append(s.children, b)
	}
	if err := s.judge(ctx, now); err != nil {
		return err
	}
	if err := s.judge(ctx, b); err != nil {
		return err
	}
	if main {
		s.work(ctx)
		return s.progress(ctx, 1)
	}
	return nil
}

// runKilled runs a command line while a process is killed, and again until the
// branch it makes is ready.
func (s *ground) runKilled(ctx context.Context, victim, makes string, args []string) error {
	if victim == "" {
		_, err := s.in.tarn(ctx, args...)
		return err
	}
	p, err := s.victim(ctx, victim)
	if err != nil {
		return err
	}
	after := time.Duration(s.r.Int64N(int64(600 * time.Millisecond)))
	made := make(chan error, 1)
	go func() {
		_, err := s.in.tarn(ctx, args...)
		made <- err
	}()
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	err = kill(p)
	first := <-made
	if err != nil {
		return err
	}
	s.say("%s killed after %s: %v", victim, after.Round(time.Millisecond), first)
	if first == nil {
		return nil
	}
	return await(ctx, "branch "+makes, func() error {
		state, err := s.state(ctx, makes)
		switch {
		case err != nil || state == "READY":
			return err
		case state != "":
			return fmt.Errorf("branch %s is %s", makes, state)
		}
		_, err = s.in.tarn(ctx, args...)
		return err
	})
}

func (s history) snapshot(ctx context.Context) error {
	b := s.source()
	p := &snapshot{name: fmt.Sprintf("s%d", s.names), from: &origin{parent: b, surely: time.Now(), how: "now"}}
	s.names++
	args := []string{"snapshot", "create", s.project + "/" + p.name, "--from", b.name}
	if s.r.IntN(2) == 0 {
		t := s.moment(b)
		p.from = &origin{parent: b, surely: t, never: t, how: fmt.Sprintf("%.3f s ago", time.Since(t).Seconds()), at: t.UTC().Format(stamp)}
		args = append(args, "--at", p.from.at)
	}
	if _, err := s.in.tarn(ctx, args...); err != nil {
		return err
	}
	if p.from.how == "now" {
		p.from.never = time.Now()
	}
	s.snapshots = append(s.snapshots, p)
	return nil
}

func (s history) forkSnapshot(ctx context.Context) error {
	p := pick(s.r, s.snapshots)
	b := &branch{name: s.name(), from: p.from}
	if _, err := s.in.tarn(ctx, "branch", "create", s.project+"/"+b.name, "--snapshot", p.name); err != nil {
		return err
	}
	s.say("%s from snapshot %s of %s, %s", b.name, p.name, p.from.parent.name, p.from.how)
	return s.welcome(ctx, b)
}

func (s history) deleteSnapshot(ctx context.Context) error {
	p := pick(s.r, s.snapshots)
	if _, err := s.in.tarn(ctx, "snapshot", "delete", s.project+"/"+p.name); err != nil {
		return err
	}
	s.snapshots = slices.DeleteFunc(s.snapshots, func(o *snapshot) bool { return o == p })
	return nil
}
