package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// engine is how commitInfo names the writer.
const engine = "tarn"

// CommitOptions go into commitInfo.
type CommitOptions struct {
	Operation string // WRITE, STREAMING UPDATE, …; "" = WRITE
	Params    map[string]string
}

// Commit makes the change durable and visible and returns its version. A
// transaction that changes nothing commits nothing and returns the version of
// its base.
//
//  1. finish the data files        (crash: orphans that no version names)
//  2. put <version>.json if absent (crash: the old version, or the new one)
//  3. put <version>.crc            (crash: one less; a version behind another
//     writer's has none, either)
//  4. now and then a checkpoint    (crash: one checkpoint less; see Checkpoint)
//
// Step 2 may meet another writer, or lose its answer: then the version is read
// back, and our txnId in it says whose it is. An error after which nobody can
// know is marked with blob.ErrAmbiguous; the files are then kept.
func (x *Tx) Commit(ctx context.Context, o CommitOptions) (int64, error) {
	version, err := x.commit(ctx, o)
	if err != nil {
		return 0, fmt.Errorf("commit to %s: %w", x.table.name(), err)
	}
	if version != x.base.version && x.checkpointDue(version) {
		// The commit stands whatever becomes of the checkpoint; a later commit
		// finds it overdue and makes it.
		_ = x.table.Checkpoint(ctx)
	}
	return version, nil
}

func (x *Tx) commit(ctx context.Context, o CommitOptions) (int64, error) {
	if err := x.usable(); err != nil {
		return 0, err
	}
	if err := x.base.checkWritable(); err != nil {
		return 0, err
	}
	if len(x.gone) > 0 && !x.quiet && x.base.truth("delta.appendOnly") {
		return 0, tarn.Conflict("the table is append-only")
	}
	if x.txn != nil {
		if have, ok := x.base.AppTxn(x.txn.AppID); ok && have >= x.txn.Version {
			return 0, fmt.Errorf("%s is at %d, commit of %d: %w", x.txn.AppID, have, x.txn.Version, ErrAppliedTxn)
		}
	}
	if err := x.finishFiles(ctx); err != nil {
		return 0, err
	}
	if len(x.rows.done)+len(x.gone)+len(x.back) == 0 && x.txn == nil && x.metadata == nil && x.protocol == nil {
		x.state = txCommitted
		return x.base.version, nil
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return 0, fmt.Errorf("name the commit: %w", err)
	}
	return x.put(ctx, x.actions(o, id.String()), id.String())
}

// put writes the first version that is free, as long as what others committed
// in between does not conflict.
func (x *Tx) put(ctx context.Context, actions []action, id string) (int64, error) {
	info := actions[0].CommitInfo
	last, err := x.base.commitTime(ctx)
	if err != nil {
		return 0, err
	}
	for version := x.base.version + 1; ; version++ {
		if last != nil { // in-commit timestamps grow from version to version
			now := max(time.Now().UnixMilli(), *last+1)
			info.InCommitTimestamp = &now
		}
		b, err := encodeActions(actions)
		if err != nil {
			return 0, err
		}
		theirs, err := x.table.putCommit(ctx, version, b, id)
		if err != nil {
			if errors.Is(err, blob.ErrAmbiguous) {
				x.state = txUnknown
			}
			return 0, err
		}
		if theirs == nil {
			x.state = txCommitted
			if version == x.base.version+1 {
				_ = x.table.putChecksum(ctx, version, x.checksum(actions)) // nobody needs it
			}
			return version, nil
		}
		if x.base.version < 0 { // somebody else made the table
			return 0, blob.ErrExists
		}
		if err := x.conflict(version, theirs); err != nil {
			return 0, err
		}
		for _, a := range theirs {
			if a.CommitInfo != nil && a.CommitInfo.InCommitTimestamp != nil && last != nil {
				t := max(*last, *a.CommitInfo.InCommitTimestamp)
				last = &t
			}
		}
	}
}

// commitTime is the in-commit timestamp of the version; nil when the table does
// not keep them.
func (s *Snapshot) commitTime(ctx context.Context) (*int64, error) {
	if !s.truth("delta.enableInCommitTimestamps") {
		return nil, nil
	}
	if s.inCommit != nil {
		return s.inCommit, nil
	}
	at, err := s.table.inCommitTime(ctx, s.version)
	if err != nil {
		return nil, err
	}
	ms := at.UnixMilli()
	return &ms, nil
}

// readCommit reads a version's actions; found is false when it is not there.
func (t *place) readCommit(ctx context.Context, version int64) (actions []action, found bool, err error) {
	actions = []action{} // an empty commit is there, too
	o := blob.Object{Key: t.key(commitName(version))}
	err = t.readJSONActions(ctx, o, func(a action) error {
		actions = append(actions, a)
		return nil
	})
	if errors.Is(err, blob.ErrNotExist) {
		return nil, false, nil
	}
	return actions, err == nil, err
}

func commitID(actions []action) string {
	for _, a := range actions {
		if a.CommitInfo != nil {
			return a.CommitInfo.TxnID
		}
	}
	return ""
}

// actions lists what the commit does, commitInfo first.
func (x *Tx) actions(o CommitOptions, id string) []action {
	now := time.Now().UnixMilli()
	blind, read := x.blind(), &x.base.version
	if *read < 0 {
		read = nil
	}
	info := &commitInfoAction{
		Timestamp: now, Operation: o.Operation, Parameters: map[string]any{}, ReadVersion: read,
		IsolationLevel: x.base.state.metadata.isolation(), IsBlindAppend: &blind, EngineInfo: engine, TxnID: id,
	}
	if info.Operation == "" {
		info.Operation = x.operation
	}
	if info.Operation == "" && len(x.rows.done)+len(x.gone) == 0 {
		info.Operation = x.schemaOnly
	}
	if info.Operation == "" {
		info.Operation = "WRITE"
		info.Parameters["mode"] = "Append"
		info.Parameters["partitionBy"] = jsonText(x.base.state.metadata.PartitionColumns)
	}
	for k, v := range x.params {
		info.Parameters[k] = v
	}
	for k, v := range o.Params {
		info.Parameters[k] = v
	}
	out := []action{{CommitInfo: info}}
	if x.protocol != nil {
		out = append(out, action{Protocol: x.protocol})
	}
	if x.metadata != nil {
		out = append(out, action{Metadata: x.metadata})
	}
	if x.txn != nil {
		txn := *x.txn
		txn.LastUpdated = &now
		out = append(out, action{Txn: &txn})
	}
	out = append(out, x.fileActions(now)...)
	info.Metrics = metrics(out)
	for k, v := range x.metrics {
		info.Metrics[k] = v
	}
	return out
}

// fileActions lists removed and added files, and change files.
func (x *Tx) fileActions(now int64) []action {
	var out []action
	gone := make([]*goneFile, 0, len(x.gone))
	for _, g := range x.gone {
		gone = append(gone, g)
	}
	slices.SortFunc(gone, func(a, b *goneFile) int { return strings.Compare(a.was.Path, b.was.Path) })
	for _, g := range gone {
		r := g.was.remove(now)
		r.DataChange = !x.quiet
		out = append(out, action{Remove: r})
		if g.now != nil {
			out = append(out, action{Add: g.now})
		}
	}
	for _, a := range x.back {
		out = append(out, action{Add: a})
	}
	for _, a := range x.rows.done {
		a.DataChange = !x.quiet
		out = append(out, action{Add: a})
	}
	for _, a := range x.fed.done {
		out = append(out, action{CDC: &cdcAction{Path: a.Path, PartitionValues: a.PartitionValues, Size: a.Size}})
	}
	return out
}

func (p *protocolAction) equal(q *protocolAction) bool {
	return p.MinReader == q.MinReader && p.MinWriter == q.MinWriter &&
		slices.Equal(p.ReaderFeatures, q.ReaderFeatures) && slices.Equal(p.WriterFeatures, q.WriterFeatures)
}

// remove gives the action that takes the file out of the table.
func (a *addAction) remove(now int64) *removeAction {
	extended, size := true, a.Size
	values := a.PartitionValues
	if values == nil {
		values = map[string]*string{}
	}
	return &removeAction{
		Path: a.Path, DeletionTimestamp: &now, DataChange: true, Extended: &extended, PartitionValues: values,
		Size: &size, Tags: a.Tags, DV: a.DV, BaseRowID: a.BaseRowID, RowVersion: a.RowVersion,
	}
}

// metrics sums up a commit as DESCRIBE HISTORY shows it.
func metrics(actions []action) map[string]any {
	var files, removed, rows, bytes int64
	for _, a := range actions {
		switch {
		case a.Add != nil:
			n, _ := a.Add.statRows()
			files, rows, bytes = files+1, rows+n, bytes+a.Add.Size
		case a.Remove != nil:
			removed++
		}
	}
	out := map[string]any{
		"numFiles": strconv.FormatInt(files, 10), "numOutputRows": strconv.FormatInt(rows, 10), "numOutputBytes": strconv.FormatInt(bytes, 10),
	}
	if removed > 0 {
		out["numRemovedFiles"] = strconv.FormatInt(removed, 10)
	}
	return out
}

// jsonText writes a value as the text of an operation parameter.
func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // lists and maps of strings only
	}
	return string(b)
}

// commitTries is how often Table.Commit begins anew after a conflict.
const commitTries = 20

// Commit does one transaction on the latest version and commits it; when another
// writer's commit stands in its way, it is done again on the version behind that
// one. do must not keep what it changed in a try that did not last.
func (t *Table) Commit(ctx context.Context, o CommitOptions, do func(*Tx) error) (int64, error) {
	for try := 0; ; try++ {
		base, err := t.Latest(ctx)
		if err != nil {
			return 0, err
		}
		x := t.Begin(base)
		var version int64
		if err = do(x); err == nil {
			version, err = x.Commit(ctx, o)
		}
		if err == nil {
			return version, nil
		}
		x.Abort(ctx)
		var conflict *ConflictError
		if !errors.As(err, &conflict) || try == commitTries {
			return 0, err
		}
		if err := pause(ctx, min(try+1, 8)); err != nil {
			return 0, err
		}
	}
}
