package delta

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// sidecarRows is how many actions of files go into one sidecar. Fewer than that
// stay in the manifest.
const sidecarRows = 50_000

const sidecarFolder = logFolder + "_sidecars/"

// putManifest writes a checkpoint of version 2 and gives the size of its
// manifest.
//
//  1. put _sidecars/<uuid>.parquet …        (crash: files that nobody names)
//  2. put <version>.checkpoint.<uuid>.parquet
func (t *place) putManifest(ctx context.Context, version int64, actions []action, perSidecar int) (int64, error) {
	head := []action{{manifest: &version}}
	var files []action
	for _, a := range actions {
		if a.Add != nil || a.Remove != nil {
			files = append(files, a)
		} else {
			head = append(head, a)
		}
	}
	if len(files) < perSidecar {
		head, files = append(head, files...), nil
	}
	for part := range slices.Chunk(files, perSidecar) {
		id, err := uuid.NewRandom()
		if err != nil {
			return 0, fmt.Errorf("name a sidecar: %w", err)
		}
		name := id.String() + ".parquet"
		size, err := t.putActions(ctx, sidecarFolder+name, checkpointSchema("add", "remove"), part)
		if err != nil {
			return 0, err
		}
		head = append(head, action{Sidecar: &sidecarAction{Path: name, SizeInBytes: size, ModificationTime: time.Now().UnixMilli()}})
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return 0, fmt.Errorf("name a checkpoint: %w", err)
	}
	schema := checkpointSchema("txn", "add", "remove", "metaData", "protocol", "domainMetadata", "sidecar", "checkpointMetadata")
	return t.putActions(ctx, fmt.Sprintf("%s%020d.checkpoint.%s.parquet", logFolder, version, id), schema, head)
}
