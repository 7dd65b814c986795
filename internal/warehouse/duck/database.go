package duck

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/tarndb/tarn"
)

// Database is a database in memory with a connection: nothing of it outlives
// Close, and nothing is shared with another. One goroutine uses it, but for
// Interrupt and Progress.
type Database struct {
	library *Library
	handle  uintptr

	mu   sync.Mutex // guards what other goroutines call of a connection that may be closed
	conn uintptr    // 0 = closed
}

// Open makes an empty database with settings, such as memory_limit.
func (l *Library) Open(settings map[string]string) (_ *Database, err error) {
	var config uintptr
	if l.general.createConfig(unsafe.Pointer(&config)) != 0 {
		return nil, errors.New("open DuckDB: no memory")
	}
	defer l.general.destroyConfig(unsafe.Pointer(&config))
	for name, value := range settings {
		if l.general.setConfig(config, name, value) != 0 {
			return nil, tarn.Invalid("open DuckDB: it does not take %s = %s", name, value)
		}
	}
	d := &Database{library: l}
	var message uintptr
	if l.general.open(":memory:", unsafe.Pointer(&d.handle), config, unsafe.Pointer(&message)) != 0 {
		text := goString(message)
		l.general.free(message)
		return nil, fmt.Errorf("open DuckDB: %s", text)
	}
	if l.connection.connect(d.handle, unsafe.Pointer(&d.conn)) != 0 {
		l.general.close(unsafe.Pointer(&d.handle))
		return nil, errors.New("open DuckDB: no connection")
	}
	return d, nil
}

// Close ends the database. Results must be closed before it.
func (d *Database) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == 0 {
		return
	}
	d.library.connection.disconnect(unsafe.Pointer(&d.conn))
	d.library.general.close(unsafe.Pointer(&d.handle))
	d.conn = 0
}

// interrupt ends what runs on the connection, which then fails.
func (d *Database) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != 0 {
		d.library.connection.interrupt(d.conn)
	}
}

// Progress tells how much of the running statement is done, 0 to 100; -1 when
// DuckDB does not know.
func (d *Database) Progress() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == 0 {
		return -1
	}
	return d.library.connection.progress(d.conn).percentage
}

// Exec runs statements and forgets their results.
func (d *Database) Exec(ctx context.Context, sql string) error {
	defer d.watch(ctx)()
	var r result
	state := d.library.connection.query(d.conn, sql, unsafe.Pointer(&r))
	defer d.library.connection.destroyResult(unsafe.Pointer(&r))
	if state != 0 {
		return d.failure(ctx, d.library.connection.resultError(unsafe.Pointer(&r)))
	}
	return nil
}

// watch interrupts the connection when ctx ends before the returned function is
// called.
func (d *Database) watch(ctx context.Context) (done func()) {
	stop := context.AfterFunc(ctx, d.interrupt)
	return func() { stop() }
}

// failure is the error of a call: the end of the context, where that is what
// happened.
func (d *Database) failure(ctx context.Context, text string) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return &Error{Text: text}
}

// Error is what DuckDB says of a statement.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

// goString copies a C string; "" for NULL.
func goString(p uintptr) string {
	if p == 0 {
		return ""
	}
	n := 0
	for *(*byte)(at(p, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(at(p, 0)), n))
}

// at is a pointer into memory that is not Go's.
func at(p uintptr, offset int) unsafe.Pointer {
	return unsafe.Add(*(*unsafe.Pointer)(unsafe.Pointer(&p)), offset)
}
