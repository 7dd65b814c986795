package pagestore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/layer"
)

// A check of the bucket finds a flipped bit, an object that is cut short and one
// that is missing, by key and offset, though the directory's copies are whole;
// and puts them again from those when it is asked to.
func TestCheckOfTheBucket(t *testing.T) {
	ctx := context.Background()
	b := memory.New()
	o := remoteOptions(b)
	o.Remote.SealEvery = time.Hour
	s, _ := openRunning(t, t.TempDir(), o)
	must(t, s.Create(ctx, lineA, worldRoot))
	v := takeVolume(t, s, lineA)
	ino := plainFile(t, v, "f")
	writePages(t, v, ino, 0, 200, 1)
	must(t, v.Sync())
	must(t, s.Upload(ctx, lineA))
	writePages(t, v, ino, 50, 100, 2)
	must(t, v.Close())
	must(t, s.Upload(ctx, lineA))

	// Others beside it: they are read at once, and all of them.
	for _, child := range []tarn.TimelineID{lineB, lineC} {
		_, err := s.Fork(ctx, lineA, child)
		must(t, err)
		v := takeVolume(t, s, child)
		writePages(t, v, ino, 0, 20, 3)
		must(t, v.Close())
		must(t, s.Upload(ctx, child))
	}
	none := func(f Finding) { t.Errorf("found %+v", f) }
	one, err := s.Check(ctx, none)
	must(t, err)
	if all, err := checkAtOnce(ctx, s, 8, none); err != nil || all != one || all.Timelines != 3 {
		t.Errorf("at once: %+v, %v; one by one: %+v", all, err, one)
	}

	check := func(how RepairKind) (found []Finding, sum RemoteChecked) {
		t.Helper()
		before := objectsOf(t, b)
		sum, err := s.CheckRemote(ctx, RemoteCheck{Dir: t.TempDir(), Repair: how, Damaged: func(string) bool { return false }}, func(f Finding) { found = append(found, f) })
		must(t, err)
		if how == RepairNothing && objectsOf(t, b) != before {
			t.Errorf("the bucket was\n%s and is\n%s", before, objectsOf(t, b))
		}
		return found, sum
	}
	found, sum := check(RepairNothing)
	if len(found) != 0 || sum.Manifests != 3 || sum.Seen.Timelines != 3 || sum.Objects < 2 || sum.Seen.Pages < 200 {
		t.Fatalf("a sound bucket: %+v, %v", sum, found)
	}
	var keys []string
	for o, err := range b.List(ctx, remoteStore+string(lineA)+"/log-", "") {
		must(t, err)
		keys = append(keys, o.Key)
	}
	whole := map[string][]byte{}
	for _, key := range keys {
		whole[key] = bytesOf(t, b, key)
	}
	first := keys[0]
	const at = 40 << 10
	for what, damage := range map[string]func() (offset int64){
		"bit":     func() int64 { c := slices.Clone(whole[first]); c[at] ^= 1; putBytes(t, b, first, c); return at },
		"short":   func() int64 { putBytes(t, b, first, whole[first][:at]); return at },
		"missing": func() int64 { must(t, b.Delete(ctx, first)); return 0 },
	} {
		offset := damage()
		found, _ := check(RepairNothing)
		hit := slices.ContainsFunc(found, func(f Finding) bool {
			bad, ok := errors.AsType[*layer.CorruptError](f.Err)
			return ok && f.Timeline == lineA && bad.File == first && bad.Offset <= offset && offset < bad.Offset+2*layer.PageSize
		})
		if !hit {
			t.Errorf("%s: not found: %v", what, found)
		}
		found, sum := check(RepairObjects)
		if len(found) != 0 || sum.Repaired == 0 || !bytes.Equal(bytesOf(t, b, first)[at:at+8192], whole[first][at:at+8192]) {
			t.Errorf("%s: repaired %d, left %v", what, sum.Repaired, found)
		}
	}
	m := manifestKey(lineA)
	c := bytesOf(t, b, m)
	c[20] ^= 1
	putBytes(t, b, m, c)
	if found, _ := check(RepairNothing); len(found) != 1 || !strings.Contains(found[0].Err.Error(), m) {
		t.Errorf("manifest: %v", found)
	}
	if found, sum := check(RepairObjects); len(found) != 0 || sum.Repaired != 1 {
		t.Errorf("manifest: repaired %d, left %v", sum.Repaired, found)
	}
	// What is damaged here too is not put there.
	bad := slices.Clone(whole[first])
	bad[at] ^= 1
	putBytes(t, b, first, bad)
	path := filepath.Join(s.manifests.dir, string(lineA))
	var left []Finding
	sum, err = s.CheckRemote(ctx, RemoteCheck{Dir: t.TempDir(), Repair: RepairObjects, Damaged: func(p string) bool { return strings.HasPrefix(p, path) }},
		func(f Finding) { left = append(left, f) })
	if must(t, err); sum.Repaired != 0 || len(left) == 0 {
		t.Errorf("repaired %d from what is damaged, left %v", sum.Repaired, left)
	}
	putBytes(t, b, first, whole[first])
}

func bytesOf(t *testing.T, b blob.Store, key string) []byte {
	t.Helper()
	r, err := b.Get(context.Background(), key, 0, -1)
	must(t, err)
	defer r.Close()
	all, err := io.ReadAll(r)
	must(t, err)
	return all
}

func putBytes(t *testing.T, b blob.Store, key string, c []byte) {
	t.Helper()
	must(t, b.Put(context.Background(), key, bytes.NewReader(c)))
}
