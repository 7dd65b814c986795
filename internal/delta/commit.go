package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
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
//  3. now and then a checkpoint    (crash: one checkpoint less; see Checkpoint)
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
	if x.removes && x.base.truth("delta.appendOnly") {
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
	if len(x.files) == 0 && x.txn == nil && !x.changed && (!x.removes || len(x.base.state.files) == 0) {
		x.state = txCommitted
		return x.base.version, nil
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return 0, fmt.Errorf("name the commit: %w", err)
	}
	b, err := encodeActions(x.actions(o, id.String()))
	if err != nil {
		return 0, err
	}
	return x.put(ctx, b, id.String())
}

// put writes the first version that is free, as long as what others committed
// in between does not conflict.
func (x *Tx) put(ctx context.Context, b []byte, id string) (int64, error) {
	for version := x.base.version + 1; ; version++ {
		theirs, err := x.table.putCommit(ctx, version, b, id)
		if err != nil {
			if errors.Is(err, blob.ErrAmbiguous) {
				x.state = txUnknown
			}
			return 0, err
		}
		if theirs == nil {
			x.state = txCommitted
			return version, nil
		}
		if err := x.conflict(version, theirs); err != nil {
			return 0, err
		}
	}
}

// conflict tells whether a commit of another writer stands in our way. A blind
// append read nothing, so only a change of the rules it was written under, or
// of its own application's position, does.
func (x *Tx) conflict(version int64, theirs []action) error {
	clash := func(what string) error {
		return &ConflictError{Reason: fmt.Sprintf("version %d %s", version, what)}
	}
	for _, a := range theirs {
		switch {
		case a.Protocol != nil:
			return clash("changes the protocol")
		case a.Metadata != nil:
			return clash("changes the metadata")
		case a.Txn != nil && x.txn != nil && a.Txn.AppID == x.txn.AppID:
			if a.Txn.Version >= x.txn.Version {
				return fmt.Errorf("%s is at %d since version %d, commit of %d: %w", a.Txn.AppID, a.Txn.Version, version, x.txn.Version, ErrAppliedTxn)
			}
			return clash("is of the same application")
		}
	}
	if !x.blind() {
		return clash("was committed since this transaction began, and it is not a blind append")
	}
	return nil
}

func (x *Tx) blind() bool { return !x.removes && !x.changed }

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
	blind, read := x.blind(), x.base.version
	info := &commitInfoAction{
		Timestamp: now, Operation: o.Operation, Parameters: map[string]any{}, ReadVersion: &read,
		IsolationLevel: "Serializable", IsBlindAppend: &blind, EngineInfo: engine, TxnID: id,
	}
	if info.Operation == "" {
		info.Operation = "WRITE"
		info.Parameters["mode"] = "Append"
		if x.removes {
			info.Parameters["mode"] = "Overwrite"
		}
		info.Parameters["partitionBy"] = jsonText(x.base.state.metadata.PartitionColumns)
	}
	for k, v := range o.Params {
		info.Parameters[k] = v
	}
	out := []action{{CommitInfo: info}}
	if x.changed {
		meta := *x.base.state.metadata
		meta.SchemaString = string(x.schema.json())
		if p := protocolFor(x.schema, meta.Configuration, x.base.state.protocol); !p.equal(x.base.state.protocol) {
			out = append(out, action{Protocol: p})
		}
		out = append(out, action{Metadata: &meta})
	}
	if x.txn != nil {
		txn := *x.txn
		txn.LastUpdated = &now
		out = append(out, action{Txn: &txn})
	}
	if x.removes {
		for _, a := range x.base.sortedFiles() {
			out = append(out, action{Remove: a.remove(now)})
		}
	}
	for _, a := range x.files {
		out = append(out, action{Add: a})
	}
	info.Metrics = metrics(out)
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
