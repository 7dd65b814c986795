package controldb

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"

	"github.com/tarndb/tarn/internal/blob"
)

// dump is everything in the tables as of one moment.
type dump struct {
	meta   dumpMeta
	tables [][]byte // in the order of meta.Tables: Postgres's text format of COPY
}

// dumpMeta is the first file of a copy's archive.
type dumpMeta struct {
	Format    int         `json:"format"` // 1
	Schema    int32       `json:"schema"` // the migration the tables stand at
	Lineage   string      `json:"lineage"`
	Time      time.Time   `json:"time"`
	Tables    []dumpTable `json:"tables"`
	Sequences []dumpCount `json:"sequences"`

	snapshot string // what Postgres saw; the same means that nothing changed
}

type dumpTable struct {
	Name    string   `json:"name"`
	Columns []string `json:"columns"`
	SHA256  string   `json:"sha256"`
}

type dumpCount struct {
	Name string `json:"name"`
	Last *int64 `json:"last"` // nil: never used
}

const (
	dumpFormat  = 1
	dumpMetaTar = "meta.json"
	// dumpMost bounds what an archive may make us allocate.
	dumpMost = 4 << 30
)

// digest tells dumps of different content apart.
func (d dump) digest() string {
	b, _ := json.Marshal(struct {
		T []dumpTable
		S []dumpCount
	}{d.meta.Tables, d.meta.Sequences}) // strings and numbers always marshal
	sum := sha256.Sum256(b)
	return string(sum[:])
}

const (
	dumpSnapshot = `SELECT pg_current_snapshot()::text`
	dumpVersion  = `SELECT version FROM public.schema_version`
	dumpTables   = `
SELECT c.relname, array_agg(a.attname ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'schema_version'
GROUP BY c.relname ORDER BY c.relname`
	dumpSequences = `SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public' ORDER BY sequencename`
)

// takeDump reads all tables as they are at one moment. Rows stand in the order
// of their text, so that the same rows give the same bytes.
func (d *DB) takeDump(ctx context.Context) (out dump, err error) {
	opts := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, d.pool, opts, func(tx pgx.Tx) error {
		m := dumpMeta{Format: dumpFormat}
		if err := tx.QueryRow(ctx, dumpSnapshot).Scan(&m.snapshot); err != nil {
			return err
		}
		m.Time = time.Now().UTC()
		if err := tx.QueryRow(ctx, dumpVersion).Scan(&m.Schema); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, dumpTables)
		if err != nil {
			return err
		}
		m.Tables, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (t dumpTable, err error) {
			err = r.Scan(&t.Name, &t.Columns)
			return t, err
		})
		if err != nil {
			return err
		}
		if rows, err = tx.Query(ctx, dumpSequences); err != nil {
			return err
		}
		m.Sequences, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (s dumpCount, err error) {
			err = r.Scan(&s.Name, &s.Last)
			return s, err
		})
		if err != nil {
			return err
		}
		out = dump{meta: m}
		for i, t := range m.Tables {
			var b bytes.Buffer
			if _, err := tx.Conn().PgConn().CopyTo(ctx, &b, t.copyOut()); err != nil {
				return fmt.Errorf("table %s: %w", t.Name, err)
			}
			sum := sha256.Sum256(b.Bytes())
			m.Tables[i].SHA256 = hex.EncodeToString(sum[:])
			out.tables = append(out.tables, b.Bytes())
		}
		return nil
	})
	if err != nil {
		return dump{}, fmt.Errorf("read the control database: %w", err)
	}
	return out, nil
}

// columns are the table's, as SQL.
func (t dumpTable) columns() string {
	var b []byte
	for i, c := range t.Columns {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, pgx.Identifier{c}.Sanitize()...)
	}
	return string(b)
}

func (t dumpTable) copyOut() string {
	name := pgx.Identifier{"public", t.Name}.Sanitize()
	return "COPY (SELECT " + t.columns() + " FROM " + name + " AS r ORDER BY r::text COLLATE \"C\") TO STDOUT"
}

func (t dumpTable) copyIn() string {
	return "COPY " + pgx.Identifier{"public", t.Name}.Sanitize() + " (" + t.columns() + ") FROM STDIN"
}

// pack makes a .tar.zst of a dump: meta.json, then a file for each table.
func (d dump) pack() ([]byte, error) {
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	meta, err := json.MarshalIndent(d.meta, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := addFile(w, dumpMetaTar, meta, d.meta.Time); err != nil {
		return nil, err
	}
	for i, t := range d.meta.Tables {
		if err := addFile(w, t.Name+".copy", d.tables[i], d.meta.Time); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func addFile(w *tar.Writer, name string, b []byte, at time.Time) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(b)), ModTime: at}); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// unpackDump reads and checks a .tar.zst.
func unpackDump(b []byte) (d dump, err error) {
	z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return d, err
	}
	defer z.Close()
	r := tar.NewReader(io.LimitReader(z, dumpMost))
	meta, err := nextFile(r, dumpMetaTar)
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(meta, &d.meta); err != nil {
		return dump{}, fmt.Errorf("%s: %w", dumpMetaTar, err)
	}
	if d.meta.Format != dumpFormat {
		return dump{}, fmt.Errorf("%s: want format %d, found %d", dumpMetaTar, dumpFormat, d.meta.Format)
	}
	for _, t := range d.meta.Tables {
		rows, err := nextFile(r, t.Name+".copy")
		if err != nil {
			return dump{}, err
		}
		if sum := sha256.Sum256(rows); hex.EncodeToString(sum[:]) != t.SHA256 {
			return dump{}, fmt.Errorf("%s.copy: want SHA-256 %s, found %x", t.Name, t.SHA256, sum)
		}
		d.tables = append(d.tables, rows)
	}
	// The frame's own checksum comes last.
	if _, err := io.Copy(io.Discard, z); err != nil {
		return dump{}, err
	}
	return d, nil
}

func nextFile(r *tar.Reader, name string) ([]byte, error) {
	h, err := r.Next()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if h.Name != name {
		return nil, fmt.Errorf("want the file %s, found %q", name, h.Name)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// ReadCopy reads the rows of a copy, by table, in Postgres's text format.
func ReadCopy(ctx context.Context, s blob.Store, key string) (map[string][]byte, error) {
	b, err := readAll(ctx, s, key)
	if err != nil {
		return nil, fmt.Errorf("read copy %s of a control database: %w", key, err)
	}
	d, err := unpackDump(b)
	if err != nil {
		return nil, fmt.Errorf("read copy %s of a control database: %w", key, err)
	}
	tables := map[string][]byte{}
	for i, t := range d.meta.Tables {
		tables[t.Name] = d.tables[i]
	}
	return tables, nil
}
