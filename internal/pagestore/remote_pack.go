package pagestore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/tarndb/tarn/internal/layer"
)

const (
	// packLeast is how much an object must lose to be packed.
	packLeast = 16 << 10
	// packStep is how much of an object is read at once while it is packed.
	packStep = 4 << 20
)

// newPackID tells packed copies of one layer apart: an object is never put twice
// under one key with different bytes, whatever became of the first put.
func newPackID() uint32 { return 1 + rand.Uint32N(1<<24-1) }

// wishes notes which objects of the bucket are half garbage or more, with the
// blocks that stay: an object store knows no holes, so the next upload puts a
// packed copy. It does for what is in the bucket only what punching does here.
func (c *collection) wishes() {
	l := c.of.remote
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wish = map[layer.FileID]*bitmap{}
	if l.man == nil || !c.ghost && c.limit.segment == 0 {
		return
	}
	for _, o := range l.man.Objects {
		id := o.id(c.of.id)
		if o.Kind == layer.FileMap || o.Kind == layer.FileLog && o.Number > c.limit.segment {
			continue
		}
		keep := new(bitmap)
		if b := c.blocks[id]; b != nil {
			*keep = *b
		}
		keep.set(0)
		if o.Kind == layer.FileLog && o.Number == c.limit.segment {
			for block := c.limit.block; block < 1<<blockBits; block++ {
				keep.set(block)
			}
		}
		if stored := layer.PackHeader + keep.count()*layer.BlockSize; stored <= o.Bytes/2 && o.Bytes-stored >= packLeast {
			l.wish[id] = keep
		}
	}
}

// pack puts a packed copy of an object. It is made of what the bucket has and
// not of what is here, where bits may have rotted since.
func (u *uploading) pack(ctx context.Context, o *object, keep *bitmap) error {
	r := u.store.remote
	f := newSegment(u.store.files, u.store.manifests.dir, o.id(u.of.id))
	ref, ok := r.files.find(f.path)
	if !ok {
		return fmt.Errorf("pack %s: it is not in the bucket", f.path)
	}
	p := layer.NewPack(f.id, ref.bytes, keep.get)
	header, err := p.Encode()
	if err != nil {
		return err
	}
	at, step := int64(0), []byte(nil)
	body := readFunc(func(b []byte) (int, error) {
		for len(step) == 0 {
			if at >= ref.bytes {
				return 0, io.EOF
			}
			whole, err := r.files.direct(ctx, ref, at, min(packStep, ref.bytes-at))
			if err != nil {
				return 0, err
			}
			for i := 0; i < len(whole); i += layer.BlockSize {
				if p.Has(uint32((at + int64(i)) / layer.BlockSize)) {
					step = append(step, whole[i:min(i+layer.BlockSize, len(whole))]...)
				}
			}
			at += int64(len(whole))
			u.pace.add(int64(len(whole)))
			if err := u.pace.wait(ctx); err != nil {
				return 0, err
			}
		}
		n := copy(b, step)
		step = step[n:]
		return n, nil
	})
	o.Bytes = p.Stored()
	if err := r.blobs.Put(ctx, objectKey(u.of.id, *o), io.MultiReader(bytes.NewReader(header), body)); err != nil {
		return err
	}
	u.store.slog.Debug("layer packed", "timeline", u.of.id, "path", f.path, "count", o.Bytes)
	return nil
}

// pack gives the header of a packed object.
func (l *layeredFiles) pack(ctx context.Context, ref remoteRef) (*layer.Pack, error) {
	l.mu.Lock()
	p := l.packs[ref.key]
	l.mu.Unlock()
	if p != nil {
		return p, nil
	}
	b, err := l.r.readRange(ctx, ref.key, 0, layer.PackHeader)
	if err == nil {
		p, err = layer.DecodePack(ref.key, b, ref.id, ref.bytes)
	}
	if err == nil && p.Stored() != ref.stored {
		err = &layer.CorruptError{File: ref.key, Offset: layer.BlockSize, Expected: fmt.Sprintf("a packed layer of %d bytes", ref.stored), Found: fmt.Sprint(p.Stored())}
	}
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.packs[ref.key] = p
	return p, nil
}

// cached reads a part of a layer by ranges of its object that are kept.
func (l *layeredFiles) cached(ctx context.Context, ref remoteRef, p []byte, off int64) (int, error) {
	if !ref.packed {
		return l.r.cache.ReadAt(ctx, ref.key, ref.stored, p, off)
	}
	pack, err := l.pack(ctx, ref)
	if err != nil {
		return 0, err
	}
	n := max(min(int64(len(p)), ref.bytes-off), 0)
	for part := range pack.Parts(off, n) {
		b := p[part.At-off:][:part.Bytes]
		if part.Stored < 0 {
			clear(b)
		} else if k, err := l.r.cache.ReadAt(ctx, ref.key, ref.stored, b, part.Stored); k < len(b) {
			return int(part.At - off), err
		}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// direct reads a part of a layer from its object, past every copy.
func (l *layeredFiles) direct(ctx context.Context, ref remoteRef, off, n int64) ([]byte, error) {
	if !ref.packed {
		return l.r.readRange(ctx, ref.key, off, n)
	}
	p, err := l.pack(ctx, ref)
	if err != nil {
		return nil, err
	}
	out := make([]byte, n)
	first, stored := span(p, off, n)
	if stored == 0 {
		return out, nil
	}
	b, err := l.r.readRange(ctx, ref.key, first, stored)
	if err != nil {
		return nil, err
	}
	for part := range p.Parts(off, n) {
		if part.Stored >= 0 {
			copy(out[part.At-off:][:part.Bytes], b[part.Stored-first:])
		}
	}
	return out, nil
}

// span says where a range of a layer stands in its packed copy: in one piece.
func span(p *layer.Pack, off, n int64) (first, bytes int64) {
	for part := range p.Parts(off, n) {
		if part.Stored < 0 {
			continue
		}
		if bytes == 0 {
			first = part.Stored
		}
		bytes += part.Bytes
	}
	return first, bytes
}

// invalidate forgets what the cache has of a part of a layer.
func (l *layeredFiles) invalidate(ctx context.Context, ref remoteRef, off, n int64) {
	if ref.packed {
		p, err := l.pack(ctx, ref)
		if err != nil {
			return // then the cache has none of it that anybody reads
		}
		if off, n = span(p, off, n); n == 0 {
			return
		}
	}
	l.r.cache.Invalidate(ref.key, off, n)
}
