package syncedtable

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5/pgconn"
)

// letter is a row that Postgres cannot store.
type letter struct {
	reason  string
	version int64  // of the source
	row     string // JSON
	key     []byte // as COPY encodes the key's columns; nil = the key itself cannot be stored
	lossy   bool   // JSON could not say the row: U+FFFD stands for what it has no form for
}

const (
	clearLettersSQL = `DELETE FROM tarn_sync.dead_letters WHERE uid = $1 AND generation = $2`
	oldLettersSQL   = `DELETE FROM tarn_sync.dead_letters WHERE uid = $1 AND generation <> $2`
	addLettersSQL   = `INSERT INTO tarn_sync.dead_letters (uid, table_name, version, generation, reason, source_row, key, lossy)
SELECT $1, $2, l.v, $3, l.r, l.d::json, l.k, l.f FROM unnest($4::text[], $5::text[], $6::bytea[], $7::boolean[], $8::bigint[]) AS l(r, d, k, f, v)`
	countLettersSQL = `SELECT count(*) FROM tarn_sync.dead_letters WHERE uid = $1 AND generation = $2`
	// A letter without a key is found by its whole row.
	settleLettersSQL = `DELETE FROM tarn_sync.dead_letters WHERE uid = $1 AND key = ANY ($2)`
	settleRowSQL     = `DELETE FROM tarn_sync.dead_letters WHERE id = (
	SELECT id FROM tarn_sync.dead_letters WHERE uid = $1 AND key IS NULL AND source_row::text = $2 LIMIT 1)`
	someReasonSQL = `SELECT coalesce(min(reason), 'unknown') FROM tarn_sync.dead_letters WHERE uid = $1`
)

// executing is a connection or a transaction.
type executing interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// letters writes the letters of one load or one run of changes.
type letters struct {
	uid, name  string
	generation int64
}

func (w *worker) letters(generation int64) letters {
	return letters{uid: w.row.UID, name: w.row.Name.Schema + "." + w.row.Name.Table, generation: generation}
}

// add writes some letters.
func (l letters) add(ctx context.Context, x executing, all []letter) error {
	if len(all) == 0 {
		return nil
	}
	var reasons, rows []string
	var keys [][]byte
	var lossy []bool
	var versions []int64
	for _, one := range all {
		reasons, rows, keys = append(reasons, one.reason), append(rows, one.row), append(keys, one.key)
		lossy, versions = append(lossy, one.lossy), append(versions, one.version)
	}
	if _, err := x.Exec(ctx, addLettersSQL, l.uid, l.name, l.generation, reasons, rows, keys, lossy, versions); err != nil {
		return fmt.Errorf("write dead letters: %w", err)
	}
	return nil
}

// asJSON shows a row that cannot be stored. What JSON cannot say either is
// replaced by U+FFFD.
func (l layout) asJSON(rec arrow.RecordBatch, row int) (text string, lossy bool) {
	d := []byte{'{'}
	for i, col := range l.cols {
		if i > 0 {
			d = append(d, ',')
		}
		name, _ := json.Marshal(col.delta) // a string always has a JSON form
		d = append(append(d, name...), ':')
		v, err := appendJSON(nil, rec.Column(i), row)
		if err != nil {
			lossy = true
			// Postgres reads no key of a JSON text that holds \u0000 anywhere.
			v, _ = json.Marshal(strings.ReplaceAll(rec.Column(i).ValueStr(row), "\x00", "\uFFFD"))
		}
		d = append(d, v...)
	}
	return string(append(d, '}')), lossy
}
