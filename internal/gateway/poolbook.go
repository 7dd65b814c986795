package gateway

import (
	"bytes"
	"container/list"
	"strconv"
	"unique"
)

// text is the body of a Parse message behind the name: the statement and the
// types of its parameters. Equal texts of all clients are one in memory.
type text = unique.Handle[string]

// book is the statements a client prepared.
type book struct {
	by      map[string]statement
	bytes   int // of by's texts and names
	unnamed statement
}

func (b *book) add(name string, st statement) {
	if b.by == nil {
		b.by = make(map[string]statement)
	}
	b.by[name] = st
	b.bytes += len(st.text.Value()) + len(name)
}

func (b *book) remove(name string) {
	if st, ok := b.by[name]; ok {
		b.bytes -= len(st.text.Value()) + len(name)
		delete(b.by, name)
	}
}

func (b *book) forget() { *b = book{} }

// statement is what a client prepared. The zero value is none.
type statement struct {
	text text
	sight
}

func newStatement(t text) statement {
	sql, _, _ := bytes.Cut([]byte(t.Value()), []byte{0})
	return statement{text: t, sight: look(sql)}
}

// shelf is the statements that one connection has.
type shelf struct {
	stmts   map[text]*list.Element
	lru     *list.List // of *prepared, the one used last in front
	named   int        // names given so far
	unnamed text       // what the unnamed statement is; zero = not known
}

// prepared is a statement that this connection has.
type prepared struct {
	text text
	name string
}

// use notes that a statement is needed: its name on this connection, and
// whether it must be prepared first.
func (s *shelf) use(t text) (name string, known bool) {
	if e := s.stmts[t]; e != nil {
		s.lru.MoveToFront(e)
		return e.Value.(*prepared).name, true
	}
	s.named++ // a name is never used again: whatever failed cannot stand in our way
	p := &prepared{text: t, name: "tarn_" + strconv.Itoa(s.named)}
	s.stmts[t] = s.lru.PushFront(p)
	return p.name, false
}

// evict returns the name of a statement too many.
func (s *shelf) evict() (string, bool) {
	if s.lru.Len() <= maxPrepared {
		return "", false
	}
	p := s.lru.Back().Value.(*prepared)
	s.remove(p.text)
	return p.name, true
}

func (s *shelf) remove(t text) {
	if e := s.stmts[t]; e != nil {
		s.lru.Remove(e)
		delete(s.stmts, t)
	}
}

// forget says that no statement is prepared any more.
func (s *shelf) forget() {
	clear(s.stmts)
	s.lru.Init()
	s.unnamed = text{}
}
