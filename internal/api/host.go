package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// hostDoor tells clients what kind of host this is and who they are.
type hostDoor struct{ workspace tarn.Workspace }

// config touches nothing that could be slow: clients ask it first and an SDK
// may wait minutes for it.
func (d *hostDoor) config(_ context.Context, q *query) (any, error) {
	id := strconv.FormatInt(d.workspace.ID, 10)
	return wire.HostConfig{
		OIDCEndpoint: q.base + "/oidc",
		AccountID:    AccountID(d.workspace),
		WorkspaceID:  id,
		Cloud:        "AWS", // SDKs know AWS, Azure and GCP; only this one adds no login of its own
		HostType:     "workspace",
	}, nil
}

// AccountID is the id of the account a workspace is in. An account has one
// workspace here; its id must only be stable.
func AccountID(w tarn.Workspace) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("tarn account of workspace "+strconv.FormatInt(w.ID, 10))).String()
}

// nowhere answers every path and method no route takes.
func (d *hostDoor) nowhere(_ context.Context, q *query) (any, error) {
	return nil, &failure{
		status: http.StatusNotFound, code: "ENDPOINT_NOT_FOUND",
		msg: "this Tarn has no API for " + q.r.Method + " " + q.r.URL.Path,
	}
}
