package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// maxChildren bounds space and memory: each may have a running Postgres.
const maxChildren = 5

// step is one thing that happens to the project.
type step struct {
	name   string
	weight int
	can    bool
	do     func(context.Context) error
}

func (s *soak) steps() []step {
	room := len(s.children) < maxChildren
	some := len(s.children) > 0
	return []step{
		{"fork now", 4, room, s.forkNow},
		{"fork at a time", 5, room, s.forkAtTime},
		{"fork at an lsn", 3, room, s.forkAtLSN},
		{"fork under a kill", 3, room, s.forkUnderKill},
		{"judge again", 3, some, s.judgeAgain},
		{"work beside", 2, some, s.workBeside},
		{"delete", 6, some, s.deleteOne},
		{"suspend", 2, true, s.suspend},
		{"checkpoint", 2, true, s.checkpoint},
		{"ballast", 3, true, s.ballast},
		{"kill postgres", 2, true, func(ctx context.Context) error { return s.killAndGoOn(ctx, "postgres") }},
		{"kill node", 2, true, func(ctx context.Context) error { return s.killAndGoOn(ctx, "node") }},
		{"kill control", 2, true, func(ctx context.Context) error { return s.killAndGoOn(ctx, "control") }},
		{"lose the computer", 1, s.in.bucket != nil, s.loseComputer},
		{"full disk", 1, s.disk.canFill(), s.fullDisk},
	}
}

// step does one thing by chance, after some transfers.
func (s *soak) step(ctx context.Context) error {
	if err := s.progress(ctx, int64(10+s.r.IntN(200))); err != nil {
		return err
	}
	all := slices.DeleteFunc(append(s.steps(), history{s}.pastSteps()...), func(p step) bool { return !p.can })
	sum := 0
	for _, p := range all {
		sum += p.weight
	}
	at := s.r.IntN(sum)
	for _, p := range all {
		if at -= p.weight; at < 0 {
			s.done[p.name]++
			began := time.Now()
			if err := p.do(ctx); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			s.say("%s: %s", p.name, time.Since(began).Round(time.Millisecond))
			return nil
		}
	}
	return nil
}

// source picks a branch that can be forked: most often main, where the work is.
func (s *soak) source() *branch {
	known := slices.DeleteFunc(slices.Clone(s.children), func(b *branch) bool { return !b.known() })
	if len(known) > 0 && s.r.IntN(3) == 0 {
		return pick(s.r, known)
	}
	return s.main
}

func pick[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

// grow adds a child and judges it now, or lets it wait for what comes. With a
// victim, a process is killed meanwhile: the branch is there afterwards or it
// is not, and then it can be made.
func (s *soak) grow(ctx context.Context, from *origin, victim string) error {
	b := &branch{name: s.name(), from: from, source: from.parent}
	args := []string{"branch", "create", s.project + "/" + b.name, "--from", from.parent.name}
	if from.at != "" {
		args = append(args, "--at", from.at)
	}
	began := time.Now()
	if err := s.runKilled(ctx, victim, b.name, args); err != nil {
		return err
	}
	if from.how == "now" {
		from.never = time.Now()
	}
	s.say("%s from %s, %s, in %s", b.name, from.parent.name, from.how, time.Since(began).Round(time.Millisecond))
	return s.welcome(ctx, b)
}

func (s *ground) name() string {
	s.names++
	return fmt.Sprintf("b%d", s.names)
}

func (s *soak) welcome(ctx context.Context, b *branch) error {
	b.born = time.Now()
	s.children = append(s.children, b)
	if s.r.IntN(4) == 0 {
		return nil // judged later, after who knows what
	}
	if err := s.judge(ctx, b); err != nil {
		return err
	}
	if s.r.IntN(4) == 0 {
		return s.amcheck(ctx, b)
	}
	return nil
}

func (s *soak) forkNow(ctx context.Context) error {
	return s.grow(ctx, &origin{parent: s.source(), surely: time.Now(), how: "now"}, "")
}

// slack is how far from the end of a project's history nothing is asked for: a
// command may take so long, or its process be killed and started meanwhile.
const slack = 20 * time.Second

// moment picks a time in a branch's life, sometimes the very last.
func (s *ground) moment(b *branch) time.Time {
	life := time.Since(b.born)
	if s.window > 0 {
		life = min(life, s.window-slack)
	}
	back := time.Duration(s.r.Int64N(int64(max(life, 1))))
	switch s.r.IntN(4) {
	case 0:
		back = min(back, time.Duration(s.r.Int64N(int64(5*time.Second))))
	case 1:
		back = 0
	}
	t := time.Now().Add(-back).Truncate(time.Microsecond)
	if t.Before(b.born) {
		t = time.Now().Truncate(time.Microsecond)
	}
	return t
}

func (s *soak) forkAtTime(ctx context.Context) error { return s.grow(ctx, s.past(s.source()), "") }

func (s *soak) forkAtLSN(ctx context.Context) error {
	b := s.source()
	if s.forgetSamples(b); len(b.samples) == 0 || s.r.IntN(2) == 0 {
		if err := s.sample(ctx, b); err != nil {
			return err
		}
		if err := s.progress(ctx, int64(s.r.IntN(100))); err != nil {
			return err
		}
	}
	p := pick(s.r, b.samples)
	return s.grow(ctx, &origin{parent: b, surely: p.before, never: p.after, how: p.lsn, at: p.lsn}, "")
}

// forgetSamples leaves out those that are in no history any more.
func (s *ground) forgetSamples(b *branch) {
	b.samples = slices.DeleteFunc(b.samples, func(p sample) bool {
		return s.window > 0 && time.Since(p.before) > s.window-slack
	})
}

// sample reads where the WAL of a branch ends.
func (s *ground) sample(ctx context.Context, b *branch) error {
	return s.query(ctx, b, func(ctx context.Context, c conn) error {
		p := sample{before: time.Now()}
		if err := c.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&p.lsn); err != nil {
			return err
		}
		p.after = time.Now()
		b.samples = append(b.samples, p)
		return nil
	})
}

func (s *soak) forkUnderKill(ctx context.Context) error {
	from := &origin{parent: s.source(), surely: time.Now(), how: "now"}
	if s.r.IntN(2) == 0 {
		from = s.past(from.parent)
	}
	if err := s.grow(ctx, from, pick(s.r, []string{"postgres", "node", "node", "control"})); err != nil {
		return err
	}
	return s.progress(ctx, 1)
}

func (s *soak) judgeAgain(ctx context.Context) error { return s.judge(ctx, pick(s.r, s.children)) }

// workBeside moves the second group of tellers to another child.
func (s *soak) workBeside(ctx context.Context) error {
	s.restBeside()
	b := pick(s.r, s.children)
	if err := s.judge(ctx, b); err != nil {
		return err
	}
	s.besideAt = b
	s.beside = startTellers(context.WithoutCancel(ctx), b, s.ledger, 2, s.r, s.urlOf(b))
	return nil
}

// deleteOne judges a branch a last time and deletes it. One that another began
// from stays until that one is known.
func (s *soak) deleteOne(ctx context.Context) error {
	b := pick(s.r, s.children)
	for _, c := range s.children {
		if c.source == b || c.from != nil && c.from.parent == b && !c.known() {
			return s.judge(ctx, c)
		}
	}
	if s.besideAt == b {
		s.restBeside()
	}
	if err := s.judge(ctx, b); err != nil {
		return err
	}
	if _, err := s.in.tarn(ctx, "branch", "delete", s.project+"/"+b.name); err != nil {
		return err
	}
	s.children = slices.DeleteFunc(s.children, func(c *branch) bool { return c == b })
	return nil
}

func (s *soak) suspend(ctx context.Context) error {
	b := s.main
	if len(s.children) > 0 && s.r.IntN(2) == 0 {
		b = pick(s.r, s.children)
	}
	if _, err := s.in.tarn(ctx, "endpoint", "suspend", s.project+"/"+b.name); err != nil {
		return err
	}
	if b != s.main {
		return s.judge(ctx, b)
	}
	return s.progress(ctx, 1)
}

func (s *soak) checkpoint(ctx context.Context) error {
	return s.admin(ctx, s.source(), func(ctx context.Context, c conn) error {
		_, err := c.Exec(ctx, "CHECKPOINT")
		return err
	})
}

// ballast makes garbage of every kind: files that come and go, tables written
// anew, rows whose every version is another.
func (s *soak) ballast(ctx context.Context) error {
	b := s.source()
	return s.query(ctx, b, func(ctx context.Context, c conn) error {
		for _, sql := range pick(s.r, [][]string{
			{"DROP TABLE IF EXISTS ballast", "CREATE TABLE ballast AS SELECT i, md5(i::text) AS t FROM generate_series(1, 600000) i", "CREATE INDEX ON ballast (t)"},
			{"DROP TABLE IF EXISTS ballast"},
			{"UPDATE pages SET body = body"},
			{"VACUUM pages", "VACUUM accounts"},
			{"VACUUM FULL accounts"},
			{"REINDEX TABLE pages"},
		}) {
			if _, err := c.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
}

// victim gives a process of a role.
func (s *ground) victim(ctx context.Context, role string) (process, error) {
	if role != "postgres" {
		return s.in.recorded(role)
	}
	all, err := s.in.processes(ctx)
	if err != nil {
		return process{}, err
	}
	all = slices.DeleteFunc(all, func(p process) bool { return p.Role != "postgres" })
	if len(all) == 0 {
		return process{}, fmt.Errorf("no Postgres runs although tellers work")
	}
	return pick(s.r, all), nil
}

func (s *soak) killAndGoOn(ctx context.Context, role string) error {
	p, err := s.victim(ctx, role)
	if err != nil {
		return err
	}
	if err := kill(p); err != nil {
		return err
	}
	if role != "postgres" {
		if err := s.in.replaced(ctx, p); err != nil {
			return err
		}
		if _, err := s.in.processes(ctx); err != nil { // until control and node answer
			return err
		}
	}
	return s.progress(ctx, 10)
}

// fullDisk leaves nearly no room for some time. Work must go on by itself when
// there is room again.
func (s *soak) fullDisk(ctx context.Context) error {
	if err := s.disk.fill(s.r.Int64N(24 << 20)); err != nil {
		return err
	}
	// Until somebody is refused, or there is room enough to go on.
	timer := time.NewTimer(time.Duration(2+s.r.IntN(6)) * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	if s.r.IntN(2) == 0 {
		if err := s.killWhileFull(ctx); err != nil {
			return err
		}
	}
	if err := s.disk.drain(); err != nil {
		return err
	}
	return s.progress(ctx, 5)
}

// killWhileFull kills a node that has no room to recover in.
func (s *soak) killWhileFull(ctx context.Context) error {
	p, err := s.in.recorded("node")
	if err != nil {
		return err
	}
	if err := kill(p); err != nil {
		return err
	}
	timer := time.NewTimer(2 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}
