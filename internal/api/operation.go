package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/feed"
	"github.com/tarndb/tarn/internal/syncedtable"
)

// operationDoor writes operations. Those of control are recorded there. Feeds
// and synced tables are made and dropped within their call, so their operation
// is born done and its name says all there is to know: {create|delete}-{uid}.
type operationDoor struct {
	control *control.Control
	feeds   *feed.Keeper
	synced  *syncedtable.Keeper
	catalog *catalog.Catalog
}

// get answers GET {resource}/operations/{id} at every resource.
func (d *operationDoor) get(ctx context.Context, q *query) (any, error) {
	name := q.r.PathValue("operation")
	parts := strings.Split(name, "/")
	if len(parts) < 3 || parts[len(parts)-2] != "operations" {
		return nil, &failure{status: 404, code: "ENDPOINT_NOT_FOUND", msg: "this Tarn has no API for GET " + q.r.URL.Path}
	}
	if parts[0] == "projects" { // one that is gone has operations that anybody may see
		err := q.need(ctx, tarn.ProjectName{Project: parts[1]}, tarn.CanCreate)
		if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
			return nil, err
		}
	}
	switch {
	case parts[0] == "synced_tables" && len(parts) == 4:
		return d.ofSyncedTable(ctx, name, parts[1], parts[3])
	case len(parts) == 8 && parts[4] == "roles":
		return (&roleDoor{control: d.control, ops: d}).operation(ctx, name, strings.Join(parts[:4], "/"), parts[5], parts[7])
	case len(parts) == 10 && parts[6] == "cdf-configs":
		return d.ofFeed(ctx, name, strings.Join(parts[:4], "/"), parts[7], parts[9])
	case len(parts) == 9 && parts[6] == "data-api":
		return (&dataAPIDoor{control: d.control, ops: d}).operation(ctx, name, strings.Join(parts[:4], "/"), parts[5], parts[8])
	case len(parts) == 6 && parts[5] == verbDelete+"-missing":
		return operationOf(tarn.Operation{Name: name, Verb: verbDelete, Done: true}, nil)
	case len(parts) == 8 && parts[4] == "databases":
		return d.ofDatabase(ctx, name, strings.Join(parts[:4], "/"), parts[5], parts[7])
	case parts[0] == "catalogs" && len(parts) == 4:
		return d.ofCatalog(ctx, q, name, parts[1], parts[3])
	}
	op, err := d.control.GetOperation(ctx, name)
	return d.answer(ctx, op, err)
}

// answer writes an operation of control, with its resource once it is done.
func (d *operationDoor) answer(ctx context.Context, op tarn.Operation, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	var resource any
	if op.Done && op.Error == "" && op.Verb != "delete" {
		resource, err = d.resource(ctx, op.Target)
		if err != nil && tarn.KindOf(err) != tarn.KindNotFound { // not found: deleted since
			return nil, err
		}
	}
	return operationOf(op, resource)
}

// forGood says whether a deletion removes what it deletes at once: it was asked
// to, or the branch never was ready and has nothing to keep.
func (d *operationDoor) forGood(ctx context.Context, q *query, n tarn.BranchName) (bool, error) {
	purge, err := q.flag("purge")
	if err != nil || purge != nil && *purge {
		return true, err
	}
	b, err := d.control.GetBranch(ctx, n)
	return b.State == tarn.BranchInit, err
}

// resource reads what an operation worked on.
func (d *operationDoor) resource(ctx context.Context, target string) (any, error) {
	if n, err := tarn.ParseEndpointName(target); err == nil {
		e, err := d.control.GetEndpoint(ctx, n)
		if err != nil {
			return nil, err
		}
		return endpointOf(e), nil
	}
	if n, err := tarn.ParseBranchName(target); err == nil {
		b, err := d.control.GetBranch(ctx, n)
		if err != nil {
			return nil, err
		}
		return branchOf(b), nil
	}
	if n, err := tarn.ParseSnapshotName(target); err == nil {
		s, err := d.control.Snapshots.Get(ctx, n)
		if err != nil {
			return nil, err
		}
		return snapshotOf(s), nil
	}
	n, err := tarn.ParseProjectName(target)
	if err != nil {
		return nil, fmt.Errorf("answer operation: target %q is no resource name", target)
	}
	p, err := d.control.GetProject(ctx, n)
	if err != nil {
		return nil, err
	}
	return projectOf(p), nil
}

// operationOf writes op. done:true must carry a response or an error, or both
// SDKs call it broken; resource nil becomes {}.
func operationOf(op tarn.Operation, resource any) (wire.Operation, error) {
	out := wire.Operation{Name: op.Name, Done: op.Done}
	switch {
	case !op.Done:
	case op.Error != "":
		status, code := statusOf(op.ErrorKind)
		f := &failure{status: status, code: code, msg: op.Error}
		e := f.body("")
		out.Error = &e
	default:
		if resource == nil {
			resource = wire.Empty{}
		}
		b, err := json.Marshal(resource)
		if err != nil {
			return out, fmt.Errorf("answer operation %s: %w", op.Name, err)
		}
		out.Response = b
	}
	return out, nil
}

// The two verbs of operations that are born done.
const (
	verbCreate = "create"
	verbDelete = "delete"
)

// done writes the operation of a call that has already happened.
func (d *operationDoor) done(name, verb, uid string, resource any) (any, error) {
	return operationOf(tarn.Operation{Name: name + "/operations/" + verb + "-" + uid, Verb: verb, Done: true}, resource)
}

// bornDone reads back such an operation: look finds the resource's uid and wire
// form. A create is done while the resource it made is there; a delete is done
// when it is not.
func bornDone(name, id string, look func() (string, any, error)) (any, error) {
	verb, uid, _ := strings.Cut(id, "-")
	if verb != verbCreate && verb != verbDelete || uid == "" {
		return nil, tarn.NotFound("no operation is called %s", name)
	}
	found, resource, err := look()
	here := err == nil && found == uid
	switch {
	case err != nil && tarn.KindOf(err) != tarn.KindNotFound:
		return nil, err
	case verb == verbCreate && !here:
		return nil, tarn.NotFound("no operation is called %s", name)
	case verb == verbDelete:
		resource = nil
	}
	return operationOf(tarn.Operation{Name: name, Verb: verb, Done: verb == verbCreate || !here}, resource)
}

func (d *operationDoor) ofSyncedTable(ctx context.Context, name, table, id string) (any, error) {
	n, err := tarn.ParseTableName(table)
	if err != nil {
		return nil, nothing(err)
	}
	return bornDone(name, id, func() (string, any, error) {
		t, err := d.synced.Get(ctx, n)
		return t.UID, syncedOf(t), err
	})
}

func (d *operationDoor) ofFeed(ctx context.Context, name, branch, config, id string) (any, error) {
	b, err := tarn.ParseBranchName(branch)
	if err != nil {
		return nil, nothing(err)
	}
	return bornDone(name, id, func() (string, any, error) {
		f, err := d.feeds.Get(ctx, b, config)
		return f.UID, configOf(f), err
	})
}

func (d *operationDoor) ofDatabase(ctx context.Context, name, branch, id, operation string) (any, error) {
	b, err := tarn.ParseBranchName(branch)
	if err != nil {
		return nil, err
	}
	return bornDone(name, operation, func() (string, any, error) {
		db, err := d.control.Databases.Get(ctx, b, id)
		return db.ID, postgresDatabaseOf(db), err
	})
}

func (d *operationDoor) ofCatalog(ctx context.Context, q *query, name, id, operation string) (any, error) {
	return bornDone(name, operation, func() (string, any, error) {
		r, err := d.catalog.Registered(ctx, id)
		if err == nil {
			err = q.need(ctx, r.Branch.Parent(), tarn.CanCreate)
		}
		return r.UID, registeredOf(r), err
	})
}
