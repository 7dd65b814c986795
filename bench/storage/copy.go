package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// copyVariable makes this program the client of a COPY, and says of which
// database: neither side's client runs in the process that serves the volume.
const copyVariable = "TARN_BENCH_COPY_INTO"

// copy loads rows of about 500 bytes by COPY into a new table.
func (b *bench) copy(ctx context.Context, s side) (float64, error) {
	c, err := connect(ctx, s, database)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "DROP TABLE IF EXISTS copied; CREATE TABLE copied (id bigint, body text)"); err != nil {
		return 0, err
	}
	if _, err := c.Exec(ctx, "CHECKPOINT"); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	client := exec.CommandContext(ctx, self)
	client.Env = append(os.Environ(), copyVariable+"="+address(s, database))
	client.Stderr = os.Stderr
	out, err := client.Output()
	if err != nil {
		return 0, fmt.Errorf("client of the COPY: %w", err)
	}
	return strconv.ParseFloat(string(out), 64)
}

// copyClient copies the rows and prints how many MB a second that were.
func copyClient(ctx context.Context, address string) error {
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	rows := &copySource{body: []byte("\t" + strings.Repeat("0123456789abcdef", 30) + "\n")}
	began := time.Now()
	tag, err := c.PgConn().CopyFrom(ctx, rows, "COPY copied FROM STDIN")
	if err != nil {
		return err
	}
	took := time.Since(began)
	if tag.RowsAffected() != copyRows {
		return fmt.Errorf("COPY stored %d rows, sent were %d", tag.RowsAffected(), copyRows)
	}
	_, err = fmt.Printf("%g", float64(rows.sent)/1e6/took.Seconds())
	return err
}

// copySource writes the rows in COPY's text format.
type copySource struct {
	body []byte // what follows the number in every row
	row  int
	sent int64
	rest []byte
}

func (r *copySource) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.rest) == 0 {
			if r.row == copyRows {
				if n == 0 {
					return 0, io.EOF
				}
				break
			}
			r.row++
			r.rest = append(strconv.AppendInt(r.rest[:0], int64(r.row), 10), r.body...)
		}
		k := copy(p[n:], r.rest)
		r.rest = r.rest[k:]
		n += k
	}
	r.sent += int64(n)
	return n, nil
}
