package pagestore

import (
	"bytes"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/tarndb/tarn/internal/layer"
)

// contents reads and writes the pages of a volume's files.
type contents struct {
	ix      *index
	log     *log
	scratch *sync.Pool // of *[layer.PageSize]byte
}

// zeroPage is compared with, never written.
var zeroPage [layer.PageSize]byte

func isZero(p []byte) bool { return bytes.Equal(p, zeroPage[:len(p)]) }

func (c *contents) read(n *node, p []byte, off uint64) error {
	for len(p) > 0 {
		page, in := uint32(off/layer.PageSize), int(off%layer.PageSize)
		if in != 0 || len(p) < layer.PageSize {
			k := min(len(p), layer.PageSize-in)
			if err := c.readPart(n, p[:k], page, in); err != nil {
				return err
			}
			p, off = p[k:], off+uint64(k)
			continue
		}
		k, err := c.readRun(n, p[:len(p)/layer.PageSize*layer.PageSize], page)
		if err != nil {
			return err
		}
		p, off = p[k:], off+uint64(k)
	}
	return nil
}

// readPart reads a part of one page. Its checksum is of the whole.
func (c *contents) readPart(n *node, p []byte, page uint32, in int) error {
	whole := c.scratch.Get().(*[layer.PageSize]byte)
	defer c.scratch.Put(whole)
	if err := c.readPage(n, page, whole[:]); err != nil {
		return err
	}
	copy(p, whole[in:])
	return nil
}

// readRun reads the pages from page on that stand one after the other in a
// file, at most what fills p, and returns the bytes read.
func (c *contents) readRun(n *node, p []byte, page uint32) (int, error) {
	ref, err := c.ix.page(n, page)
	if err != nil {
		return 0, c.unreadable(err)
	}
	if ref == 0 {
		clear(p[:layer.PageSize])
		return layer.PageSize, nil
	}
	var crcs [128]uint32
	pages := min(len(p)/layer.PageSize, len(crcs))
	crcs[0] = ref.crc()
	k := 1
	for ; k < pages; k++ {
		r, err := c.ix.page(n, page+uint32(k))
		want := ref.place() + place(k*layer.PageBlocks)
		if err != nil || r.place() != want || r == 0 || want.segment() != ref.place().segment() {
			break
		}
		crcs[k] = r.crc()
	}
	last := ref.place() + place((k-1)*layer.PageBlocks)
	if k > 1 && !c.log.mayBuffer(last) {
		if err := c.readFile(ref.place(), p[:k*layer.PageSize], crcs[:k]); err == nil {
			return k * layer.PageSize, nil
		}
	}
	// One page, or one of them may be in memory, or something is wrong with
	// one, perhaps only that it was overwritten meanwhile.
	return layer.PageSize, c.readPage(n, page, p[:layer.PageSize])
}

// readPage reads one whole page. A page that was overwritten after it was
// looked up may be gone from its file; then the newer one is read.
func (c *contents) readPage(n *node, page uint32, p []byte) error {
	var last pageRef
	var failed error
	for {
		ref, err := c.ix.page(n, page)
		switch {
		case err != nil:
			return c.unreadable(err)
		case ref == 0:
			clear(p)
			return nil
		case failed != nil && ref == last:
			if failed = c.reread(ref, p, failed); failed != nil {
				return c.unreadable(failed)
			}
			return nil
		case c.log.buffered(ref.place(), p) && layer.Checksum(p) == ref.crc():
			return nil // the place of a page of long ago may be another's now
		}
		crc := [1]uint32{ref.crc()}
		if failed = c.readFile(ref.place(), p, crc[:]); failed == nil {
			return nil
		}
		last = ref
	}
}

// readFile reads pages that stand in a file one after the other and compares
// their checksums.
func (c *contents) readFile(at place, p []byte, crcs []uint32) error {
	seg := c.ix.segment(at)
	if seg == nil {
		return errNoFile
	}
	off := int64(at.block()) * layer.BlockSize
	f, err := seg.open()
	if err == nil {
		var got int
		if got, err = f.ReadAt(p, off); got == len(p) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("read %s at byte %d: %w", seg.path, off, err)
	}
	return checkPages(seg.path, off, p, crcs)
}

// checkPages compares the checksums of pages that were read at an offset.
func checkPages(path string, off int64, p []byte, crcs []uint32) error {
	for i, want := range crcs {
		if got := layer.Checksum(p[i*layer.PageSize : (i+1)*layer.PageSize]); got != want {
			return &layer.CorruptError{File: path, Offset: off + int64(i)*layer.PageSize,
				Expected: fmt.Sprintf("page with checksum %08x", want), Found: fmt.Sprintf("%08x", got)}
		}
	}
	return nil
}

// unreadable tells the log, since FUSE passes on a number only.
func (c *contents) unreadable(err error) error {
	c.log.slog.Error("page unreadable", "timeline", c.log.timeline, "err", err)
	return fmt.Errorf("%w: %w", syscall.EIO, err)
}

// write goes page by page. The caller holds n.write.
func (c *contents) write(n *node, p []byte, off uint64) (done int, err error) {
	if err := c.ix.ready(n, off/layer.PageSize, pagesIn(off+uint64(len(p))), loadWhole); err != nil {
		return 0, c.unreadable(err)
	}
	now := time.Now().UnixNano()
	for done < len(p) {
		at := off + uint64(done)
		page, in := uint32(at/layer.PageSize), int(at%layer.PageSize)
		k := min(len(p)-done, layer.PageSize-in)
		part := p[done : done+k]
		switch {
		case isZero(part) && (k == layer.PageSize || c.hole(n, page)):
			if k, err = c.writeZeros(n, p[done:], at, now); err != nil {
				return done, err
			}
		case k == layer.PageSize:
			err = c.writePage(n, page, layer.PageSize, part, now)
		default:
			err = c.writePart(n, page, in, part, now)
		}
		if err != nil {
			return done, err
		}
		done += k
	}
	return done, nil
}

// hole reports whether a page is one; its table is in memory.
func (c *contents) hole(n *node, page uint32) bool {
	ref, err := c.ix.page(n, page)
	return ref == 0 && err == nil
}

// writePage makes data the newest version of a page whose table is in memory;
// the file then has at least used bytes of it.
func (c *contents) writePage(n *node, page, used uint32, data []byte, now int64) error {
	w := pageWrite{ino: n.ino, page: page, used: used, crc: layer.Checksum(data), time: now, data: data}
	ref, err := c.log.append(&w, nil)
	if err != nil {
		return err
	}
	c.ix.applyPage(n, page, used, now, ref)
	return nil
}

// writePart writes a part of a page as a new whole page.
func (c *contents) writePart(n *node, page uint32, in int, part []byte, now int64) error {
	whole := c.scratch.Get().(*[layer.PageSize]byte)
	defer c.scratch.Put(whole)
	if err := c.readPage(n, page, whole[:]); err != nil {
		return err
	}
	copy(whole[in:], part)
	return c.writePage(n, page, uint32(in+len(part)), whole[:], now)
}

// writeZeros writes the zeros that p begins with, either whole pages or a part
// of one that is a hole: pages become holes and holes stay holes. It returns
// how many bytes. Where nothing changes nothing is logged. The pages' tables
// are in memory.
func (c *contents) writeZeros(n *node, p []byte, at uint64, now int64) (int, error) {
	k := min(len(p), int(layer.PageSize-at%layer.PageSize))
	first := uint32(at / layer.PageSize)
	hole := c.hole(n, first)
	for k < len(p) && k <= len(p)-layer.PageSize && isZero(p[k:k+layer.PageSize]) {
		hole = c.hole(n, uint32((at+uint64(k))/layer.PageSize)) && hole
		k += layer.PageSize
	}
	end := at + uint64(k)
	r := layer.Record{Kind: layer.KindSize, Ino: n.ino, Size: end, Time: now}
	if !hole {
		last := uint32((end - 1) / layer.PageSize)
		r = layer.Record{Kind: layer.KindZero, Ino: n.ino, Page: first, Count: last - first + 1,
			Used: uint32(end - uint64(last)*layer.PageSize), Time: now}
	} else if end <= n.size.Load() {
		return k, nil
	}
	if _, err := c.log.append(nil, &r); err != nil {
		return 0, err
	}
	c.ix.applyData(n, &r, 0)
	return k, nil
}

// cut truncates within a page: what is cut off must read as zeros should the
// file grow again, so the page is written anew, in one batch with r. The
// tables that r changes are in memory, and that of the page.
func (c *contents) cut(n *node, r *layer.Record) error {
	page, in := uint32(r.Set.Size/layer.PageSize), uint32(r.Set.Size%layer.PageSize)
	if c.hole(n, page) {
		if _, err := c.log.append(nil, r); err != nil {
			return err
		}
		c.ix.applyData(n, r, 0)
		return nil
	}
	whole := c.scratch.Get().(*[layer.PageSize]byte)
	defer c.scratch.Put(whole)
	if err := c.readPage(n, page, whole[:]); err != nil {
		return err
	}
	clear(whole[in:])
	w := pageWrite{ino: n.ino, page: page, used: in, crc: layer.Checksum(whole[:]), time: r.Time, data: whole[:]}
	ref, err := c.log.append(&w, r)
	if err != nil {
		return err
	}
	c.ix.applyPage(n, page, in, r.Time, ref)
	c.ix.applyData(n, r, 0)
	return nil
}
