package duck

import (
	"context"
	"errors"
	"io"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
)

// Param is the value of a parameter; it is bound as text, which the statement
// casts.
type Param struct {
	Name string // as in $name
	Text *string
}

// Rows is the result of one statement, computed while it is read.
type Rows struct {
	db        *Database
	ctx       context.Context
	done      func()
	statement uintptr
	result    result
	options   uintptr
	schema    *arrow.Schema
}

// Query runs one statement. Rows must be closed; ctx interrupts it until then.
func (d *Database) Query(ctx context.Context, sql string, params []Param) (_ *Rows, err error) {
	l := d.library
	r := &Rows{db: d, ctx: ctx}
	r.done = d.watch(ctx)
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if l.statement.prepare(d.conn, sql, unsafe.Pointer(&r.statement)) != 0 {
		return nil, d.failure(ctx, l.statement.prepareError(r.statement))
	}
	if err := r.bind(params); err != nil {
		return nil, err
	}
	if l.statement.execute(r.statement, unsafe.Pointer(&r.result)) != 0 {
		return nil, d.failure(ctx, l.connection.resultError(unsafe.Pointer(&r.result)))
	}
	r.options = l.arrow.options(unsafe.Pointer(&r.result))
	if r.schema, err = r.readSchema(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Rows) bind(params []Param) error {
	s := &r.db.library.statement
	bound := uint64(0)
	for _, p := range params {
		var i uint64
		if s.index(r.statement, unsafe.Pointer(&i), p.Name) != 0 {
			continue // the statement does not ask for it
		}
		bound++
		state := int32(0)
		if p.Text == nil {
			state = s.bindNull(r.statement, i)
		} else {
			b := append([]byte(*p.Text), 0)
			state = s.bindText(r.statement, i, unsafe.Pointer(&b[0]), uint64(len(b)-1))
		}
		if state != 0 {
			return tarn.Invalid("parameter %s: DuckDB does not take its value", p.Name)
		}
	}
	if want := s.params(r.statement); bound < want {
		return tarn.Invalid("the statement has %d parameters, %d of them have a value", want, bound)
	}
	return nil
}

// Schema gives the columns.
func (r *Rows) Schema() *arrow.Schema { return r.schema }

// Next gives the next batch, which the caller releases; io.EOF after the last.
// Its memory is Go's.
func (r *Rows) Next() (arrow.RecordBatch, error) {
	if cause := context.Cause(r.ctx); cause != nil {
		return nil, cause
	}
	l := r.db.library
	chunk := l.arrow.fetch(r.result)
	if chunk == 0 {
		if text := l.connection.resultError(unsafe.Pointer(&r.result)); text != "" {
			return nil, r.db.failure(r.ctx, text)
		}
		return nil, io.EOF
	}
	defer l.arrow.destroyChunk(unsafe.Pointer(&chunk))
	var a cArray
	if err := r.check(l.arrow.array(r.options, chunk, unsafe.Pointer(&a))); err != nil {
		return nil, err
	}
	defer a.free()
	return a.batch(r.schema)
}

func (r *Rows) readSchema() (*arrow.Schema, error) {
	l := r.db.library
	n := l.arrow.columns(unsafe.Pointer(&r.result))
	if n == 0 {
		return arrow.NewSchema(nil, nil), nil
	}
	types, names := make([]uintptr, n), make([]unsafe.Pointer, n)
	texts := make([][]byte, n)
	for i := range n {
		types[i] = l.arrow.columnType(unsafe.Pointer(&r.result), i)
		texts[i] = append([]byte(l.arrow.columnName(unsafe.Pointer(&r.result), i)), 0)
		names[i] = unsafe.Pointer(&texts[i][0])
	}
	defer func() {
		for i := range types {
			l.arrow.destroyType(unsafe.Pointer(&types[i]))
		}
	}()
	var s cSchema
	if err := r.check(l.arrow.schema(r.options, unsafe.Pointer(&types[0]), unsafe.Pointer(&names[0]), n, unsafe.Pointer(&s))); err != nil {
		return nil, err
	}
	defer s.free()
	top, err := s.field()
	if err != nil {
		return nil, err
	}
	st, ok := top.Type.(*arrow.StructType)
	if !ok {
		return nil, errors.New("DuckDB gave no columns")
	}
	return arrow.NewSchema(st.Fields(), nil), nil
}

// check takes over error data of DuckDB.
func (r *Rows) check(e uintptr) error {
	l := r.db.library
	if e == 0 {
		return nil
	}
	defer l.arrow.destroyError(unsafe.Pointer(&e))
	if !l.arrow.hasError(e) {
		return nil
	}
	return r.db.failure(r.ctx, l.arrow.message(e))
}

// Close ends the statement.
func (r *Rows) Close() {
	l := r.db.library
	if r.options != 0 {
		l.arrow.destroy(unsafe.Pointer(&r.options))
		r.options = 0
	}
	if r.result != (result{}) {
		l.connection.destroyResult(unsafe.Pointer(&r.result))
		r.result = result{}
	}
	if r.statement != 0 {
		l.statement.destroy(unsafe.Pointer(&r.statement))
		r.statement = 0
	}
	r.done()
}
