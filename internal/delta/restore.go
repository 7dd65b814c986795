package delta

import (
	"context"
	"fmt"
	"slices"
	"strconv"
)

// Restore makes the table what it was at a version, by a new commit: rows,
// schema and properties. The protocol stays. ErrNoVersion when the version, or
// one of its files, is gone. It returns the new version; that of the table when
// nothing had to change.
func (t *Table) Restore(ctx context.Context, version int64) (int64, error) {
	v, err := t.restore(ctx, version)
	if err != nil {
		return 0, fmt.Errorf("restore %s to version %d: %w", t.name(), version, err)
	}
	return v, nil
}

func (t *Table) restore(ctx context.Context, version int64) (int64, error) {
	now, err := t.Latest(ctx)
	if err != nil {
		return 0, err
	}
	then, err := t.At(ctx, version)
	if err != nil {
		return 0, err
	}
	if err := now.checkWritable(); err != nil {
		return 0, err
	}
	x := t.Begin(now)
	x.reads.all = true
	x.operation = "RESTORE"
	x.params["version"] = strconv.FormatInt(version, 10)
	var paths []string
	for k, a := range then.state.files {
		if now.state.files[k] == nil {
			c := *a
			c.DataChange = true
			x.back = append(x.back, &c)
			paths = append(paths, a.Path)
		}
	}
	slices.SortFunc(x.back, func(a, b *addAction) int {
		return slices.Compare([]string{a.Path, a.DV.id()}, []string{b.Path, b.DV.id()})
	})
	for k, a := range now.state.files {
		if then.state.files[k] == nil {
			x.remove(a)
		}
	}
	if err := t.present(ctx, paths); err != nil {
		return 0, err
	}
	if a, b := then.state.metadata, now.state.metadata; a.SchemaString != b.SchemaString || !sameText(a.Configuration, b.Configuration) || !slices.Equal(a.PartitionColumns, b.PartitionColumns) {
		m := *a
		x.metadata = &m
		if p := protocolFor(then.schema, m.Configuration, now.state.protocol); !p.equal(now.state.protocol) {
			x.protocol = p
		}
	}
	v, err := x.Commit(ctx, CommitOptions{})
	if err != nil {
		x.Abort(ctx)
	}
	return v, err
}

func sameText(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}
