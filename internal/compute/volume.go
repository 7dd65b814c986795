package compute

import (
	"fmt"

	"github.com/tarndb/tarn/internal/postgres"
)

const controlFile = "global/pg_control"

// readControl reads pg_control of a volume that is not shown.
func readControl(v volume) (postgres.Control, error) {
	b, err := v.ReadFile(controlFile)
	if err != nil {
		return postgres.Control{}, err
	}
	return postgres.ParseControl(b)
}

// A fork inherits these from its parent but must not use them: replication
// slots belong to the parent's consumers, who would get the child's changes or
// hold its WAL forever; what logical decoding left for them goes too.
var dropInFork = [...]string{"pg_replslot", "pg_logical/snapshots", "pg_logical/mappings"}

// detachFork makes a forked volume, not shown, independent of its parent. Its
// first start writes the rest (engine.start).
func detachFork(v volume) error {
	for _, dir := range dropInFork {
		if err := v.EmptyDir(dir); err != nil {
			return fmt.Errorf("drop what belongs to the parent: %w", err)
		}
	}
	return nil
}
