package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// membership is `<data>/storage.json`: the object store that a data directory
// belongs to, and its own name there.
type membership struct {
	Storage  string `json:"storage"`
	Endpoint string `json:"endpoint,omitempty"`
	Region   string `json:"region,omitempty"`
	ID       string `json:"id"`   // of the Tarn in the store
	Node     string `json:"node"` // this data directory among those that ever used the store
	// Lease is the store's: 0 = the usual one.
	Lease time.Duration `json:"lease,omitempty"`
}

func membershipFile(data string) string { return filepath.Join(data, "storage.json") }

// readMembership is zero for a data directory that belongs to no store.
func readMembership(data string) (m membership, err error) {
	b, err := os.ReadFile(membershipFile(data))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("read %s: %w", membershipFile(data), err)
	}
	return m, nil
}

// write replaces the file durably: a node that forgot its name could not go on.
func (m membership) write(data string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	path := membershipFile(data)
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(path+".new", path)
}

// identityKey names the object that says whose a store is.
const identityKey = "tarn.json"

// identity is that object.
type identity struct {
	ID      string        `json:"id"`
	Created time.Time     `json:"created"`
	Lease   time.Duration `json:"lease,omitempty"` // 0 = the usual one
}

// agree makes the lease in force that of the store, or chooses it for a new one.
func (c *serverConfig) agree(there identity, m *membership) error {
	if there.ID != "" && c.storage.Lease != 0 && c.storage.Lease != cmp.Or(there.Lease, usualLease) {
		return tarn.Conflict("storage %s began with a lease of %s, not %s", c.storage.Place, cmp.Or(there.Lease, usualLease), c.storage.Lease).
			WithHint("leave --storage-lease out: whoever uses a storage must agree on it")
	}
	if there.ID != "" {
		c.storage.Lease = cmp.Or(there.Lease, usualLease)
	}
	m.Lease = c.storage.lease()
	return nil
}

// joinStore makes a data directory and a store belong to each other, or refuses.
//
//		data directory   store       outcome
//		new              empty       a new Tarn
//		new              a Tarn      comes back from the store
//		of this store    the same    goes on
//		without a store  empty       goes on, and is copied
//		otherwise                    refused
//
//	 1. Write the membership, with an id that was made up or that the store has.
//	    Crash: a membership in an id that the store does not have yet; the same
//	    id is put at the next start, if the data directory is new. Otherwise that
//	    start is refused: an empty store can also be one that is not mounted.
//	 2. Put the identity, unless it is there.
func (c *serverConfig) joinStore(ctx context.Context, b blob.Store) (membership, error) {
	m, err := readMembership(c.Data)
	if err != nil {
		return m, err
	}
	if m.Storage != c.storage.Place {
		m = membership{} // of a start that came to nothing: see complete
	}
	there, err := readIdentity(ctx, b)
	if err != nil && !errors.Is(err, blob.ErrNotExist) {
		return m, fmt.Errorf("read whose storage %s is: %w", b.URL(), err)
	}
	known := m.ID != ""
	switch {
	case known && there.ID != "" && there.ID != m.ID:
		return m, tarn.Conflict("storage %s holds another Tarn by now, made at %s", b.URL(), there.Created.Format(time.RFC3339)).
			WithHint("give this one a storage of its own, or bring the other back into an empty data directory with --data")
	case known && there.ID == "" && begun(c.Data):
		empty, err := isEmpty(ctx, b)
		if err == nil && empty {
			return m, tarn.Conflict("storage %s is empty, and %s was copied there: is the right one mounted?", b.URL(), c.Data).
				WithHint(fmt.Sprintf("mount it, then: tarn up --data %s; to begin again with an empty one: rm %s, then: tarn up --data %[1]s --storage %[3]s", c.Data, membershipFile(c.Data), c.storage.Place))
		}
		if err != nil || !empty {
			return m, errors.Join(err, tarn.Conflict("storage %s has lost %s, which says whose it is", b.URL(), identityKey).
				WithHint(fmt.Sprintf(`put it back if nobody else uses the storage: {"id": %q}`, m.ID)))
		}
	case !known && there.ID != "" && begun(c.Data):
		return m, tarn.Conflict("storage %s holds another Tarn, made at %s, and %s has data of its own", b.URL(), there.Created.Format(time.RFC3339), c.Data).
			WithHint("name an empty data directory with --data to bring the other back, or another prefix with --storage for this one")
	case !known && there.ID != "":
		m.ID = there.ID
	case !known:
		if m.ID, err = newName(); err != nil {
			return m, err
		}
	}
	if m.Node == "" {
		if m.Node, err = newName(); err != nil {
			return m, err
		}
	}
	if err := c.agree(there, &m); err != nil {
		return m, err
	}
	m.Storage, m.Endpoint, m.Region = c.storage.Place, c.storage.Endpoint, c.storage.Region
	if err := m.write(c.Data); err != nil || there.ID != "" {
		return m, err
	}
	text, err := json.Marshal(identity{ID: m.ID, Created: time.Now().UTC().Truncate(time.Second), Lease: m.Lease})
	if err != nil {
		return m, err
	}
	err = b.PutIfAbsent(ctx, identityKey, append(text, '\n'))
	if errors.Is(err, blob.ErrExists) || errors.Is(err, blob.ErrAmbiguous) {
		if there, err = readIdentity(ctx, b); err == nil && there.ID != m.ID {
			err = tarn.Conflict("another Tarn took storage %s just now", b.URL())
		}
	}
	if err != nil {
		return m, fmt.Errorf("write whose storage %s is: %w", b.URL(), err)
	}
	return m, nil
}

// begun tells whether the data directory holds anything that a Tarn made.
func begun(data string) bool {
	for _, sub := range [...]string{"control/pgdata", "timelines/*.json", "store/*"} {
		if found, _ := filepath.Glob(filepath.Join(data, sub)); len(found) > 0 {
			return true
		}
	}
	return false
}

func readIdentity(ctx context.Context, b blob.Store) (id identity, err error) {
	text, _, err := readTagged(ctx, b, identityKey)
	if err == nil {
		err = json.Unmarshal(text, &id)
	}
	if err == nil && id.ID == "" {
		err = fmt.Errorf("object %s names no id", identityKey)
	}
	return id, err
}

// readTagged reads a small object, with the ETag it had just before.
func readTagged(ctx context.Context, b blob.Store, key string) (text []byte, etag string, err error) {
	o, err := b.Head(ctx, key)
	if err != nil {
		return nil, "", err
	}
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	text, err = io.ReadAll(io.LimitReader(r, 1<<16))
	return text, o.ETag, err
}

func isEmpty(ctx context.Context, b blob.Store) (bool, error) {
	for o, err := range b.List(ctx, "", "") {
		if err != nil {
			return false, err
		}
		if !strings.HasPrefix(o.Key, "probe/") {
			return false, nil
		}
	}
	return true, nil
}

func newName() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(b[:]), nil
}
