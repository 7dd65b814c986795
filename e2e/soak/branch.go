package main

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// branch is what we know of one branch.
//
//	made ──check──▶ known ──▶ deleted
//
// Only a known one is forked: what it began with is certain then.
type branch struct {
	name    string
	from    *origin          // nil = the first
	source  *branch          // which Tarn says it was made from; nil = none
	base    map[key]struct{} // what it began with; nil until known
	born    time.Time        // from here on it can be forked by time
	streams []int32          // tellers that wrote to it
	samples []sample
}

// origin is where and when a branch began: a transfer of the parent that was
// acknowledged at or before surely is in it, one that began after never is not.
type origin struct {
	parent        *branch
	surely, never time.Time
	how           string // for people; "now" without a moment
	at            string // for the command line; "" = now
}

// sample is an LSN of a branch and when it was read.
type sample struct {
	lsn           string
	before, after time.Time
}

func (b *branch) known() bool { return b.base != nil }

func (b *branch) own(k key) bool { return slices.Contains(b.streams, k.stream) }

// content is what a branch was found to hold.
type content struct {
	transfers map[key]struct{}
	asked     time.Time // before the reading transaction began
	sums      sums
}

// judge compares what a branch holds with what it must hold and returns what
// is wrong. A first judgement that finds nothing makes the branch known.
func (b *branch) judge(c content, l *ledger) []string {
	wrong := c.sums.judge(len(c.transfers))
	base := map[key]struct{}{}
	for k := range c.transfers {
		if !b.own(k) {
			base[k] = struct{}{}
		}
	}
	wrong = append(wrong, b.judgeOwn(c, l)...)
	switch {
	case b.known():
		wrong = append(wrong, differ("what the branch began with", b.base, base)...)
	case b.from == nil:
		wrong = append(wrong, differ("what the first branch began with", nil, base)...)
	default:
		wrong = append(wrong, b.from.judge(base, l)...)
	}
	if len(wrong) == 0 {
		b.base = base
	}
	return wrong
}

// judgeOwn looks at what was written to the branch itself: all that was
// acknowledged before we asked, and nothing nobody sent.
func (b *branch) judgeOwn(c content, l *ledger) []string {
	sent := l.of(b.streams)
	var f findings
	for k, e := range sent {
		if _, there := c.transfers[k]; !there && e.acked != 0 && e.acked <= c.asked.UnixNano() {
			f.add("is acknowledged and missing", k)
		}
	}
	for k := range c.transfers {
		if _, known := sent[k]; !known && b.own(k) {
			f.add("is there and was never sent", k)
		}
	}
	return f.list()
}

// judge looks at what a child holds of its parent.
func (o *origin) judge(base map[key]struct{}, l *ledger) []string {
	sent := l.of(o.parent.streams)
	var f findings
	inherited := map[key]struct{}{}
	var latest int64 // when the last of the parent's transfers in the child began
	for k := range base {
		if !o.parent.own(k) {
			inherited[k] = struct{}{}
			continue
		}
		e, known := sent[k]
		switch {
		case !known:
			f.add("is there and was never sent", k)
		case e.begun > o.never.UnixNano():
			f.addBy("began after the moment and is there", k, time.Duration(e.begun-o.never.UnixNano()))
		}
		latest = max(latest, e.begun)
	}
	for k, e := range sent {
		if _, there := base[k]; there || e.acked == 0 {
			continue
		}
		switch {
		case e.acked <= o.surely.UnixNano():
			f.addBy("was acknowledged before the moment and is missing", k, time.Duration(o.surely.UnixNano()-e.acked))
		case e.acked < latest:
			// Whatever the moment was: it is before one and after the other.
			f.add("was acknowledged before another began that is there, and is missing", k)
		}
	}
	return append(f.list(), differ("what the parent began with", o.parent.base, inherited)...)
}

// differ tells what is missing and what is too much.
func differ(what string, want, got map[key]struct{}) []string {
	var f findings
	for k := range want {
		if _, there := got[k]; !there {
			f.add("of "+what+" is missing", k)
		}
	}
	for k := range got {
		if _, there := want[k]; !there {
			f.add("is there and not of "+what, k)
		}
	}
	return f.list()
}

// findings counts what is wrong in the same way and keeps the worst example.
type findings struct {
	kinds map[string]*found
}

type found struct {
	count   int
	example key
	by      time.Duration // how far beyond the moment; 0 = not a matter of time
}

func (f *findings) add(what string, k key) { f.addBy(what, k, 0) }

func (f *findings) addBy(what string, k key, by time.Duration) {
	if f.kinds == nil {
		f.kinds = map[string]*found{}
	}
	if f.kinds[what] == nil {
		f.kinds[what] = &found{example: k, by: by}
	}
	n := f.kinds[what]
	n.count++
	if by > n.by {
		n.example, n.by = k, by
	}
}

func (f *findings) list() (lines []string) {
	for _, what := range slices.Sorted(maps.Keys(f.kinds)) {
		n := f.kinds[what]
		line := fmt.Sprintf("transfer %d of stream %d %s", n.example.n, n.example.stream, what)
		if n.by != 0 {
			line += fmt.Sprintf(" by %s", n.by)
		}
		lines = append(lines, fmt.Sprintf("%s (%d such)", line, n.count))
	}
	return lines
}
