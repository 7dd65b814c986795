package pagestore

import (
	"bytes"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
)

// maxFileSize is what 32 bits of page numbers reach: 32 TiB.
const maxFileSize = uint64(layer.PageSize) << 32

// zeroPage is compared with, never written.
var zeroPage [layer.PageSize]byte

func isZero(p []byte) bool { return bytes.Equal(p, zeroPage[:len(p)]) }

// regular finds a regular file.
func (v *Volume) regular(ino layer.Ino) (*node, error) {
	n := v.ix.inodes.get(ino)
	if n == nil {
		return nil, syscall.ENOENT
	}
	switch n.mode.Load() & unix.S_IFMT {
	case unix.S_IFREG:
		return n, nil
	case unix.S_IFDIR:
		return nil, syscall.EISDIR
	}
	return nil, syscall.EINVAL
}

// ReadAt reads a file; it is short at its end. It waits for no writer.
func (v *Volume) ReadAt(ino layer.Ino, p []byte, off uint64) (int, error) {
	n, err := v.regular(ino)
	if err == nil && v.closed.Load() {
		err = errClosed
	}
	if err != nil {
		return 0, &fileError{"read", ino, "", err}
	}
	size := n.size.Load()
	if off >= size {
		return 0, nil
	}
	p = p[:min(uint64(len(p)), size-off)]
	if err := v.read(n, p, off); err != nil {
		return 0, &fileError{"read", ino, "", err}
	}
	return len(p), nil
}

func (v *Volume) read(n *node, p []byte, off uint64) error {
	for len(p) > 0 {
		page, in := uint32(off/layer.PageSize), int(off%layer.PageSize)
		if in != 0 || len(p) < layer.PageSize {
			k := min(len(p), layer.PageSize-in)
			if err := v.readPart(n, p[:k], page, in); err != nil {
				return err
			}
			p, off = p[k:], off+uint64(k)
			continue
		}
		k, err := v.readRun(n, p[:len(p)/layer.PageSize*layer.PageSize], page)
		if err != nil {
			return err
		}
		p, off = p[k:], off+uint64(k)
	}
	return nil
}

// readPart reads a part of one page. Its checksum is of the whole.
func (v *Volume) readPart(n *node, p []byte, page uint32, in int) error {
	ref := n.page(page)
	if ref == 0 {
		clear(p)
		return nil
	}
	whole := v.store.scratch.Get().(*[layer.PageSize]byte)
	defer v.store.scratch.Put(whole)
	if err := v.readRef(ref, whole[:]); err != nil {
		return err
	}
	copy(p, whole[in:])
	return nil
}

// readRun reads the pages from page on that stand one after the other in the
// log, at most what fills p, and returns the bytes read.
func (v *Volume) readRun(n *node, p []byte, page uint32) (int, error) {
	ref := n.page(page)
	if ref == 0 {
		clear(p[:layer.PageSize])
		return layer.PageSize, nil
	}
	pages := len(p) / layer.PageSize
	if pages == 1 || n.page(page+1).place() != ref.place()+layer.PageBlocks {
		return layer.PageSize, v.readRef(ref, p[:layer.PageSize])
	}
	var crcs [128]uint32
	pages = min(pages, len(crcs))
	crcs[0] = ref.crc()
	k := 1
	for ; k < pages; k++ {
		r := n.page(page + uint32(k))
		want := ref.place() + place(k*layer.PageBlocks)
		if r.place() != want || r == 0 || want.segment() != ref.place().segment() {
			break
		}
		crcs[k] = r.crc()
	}
	last := ref.place() + place((k-1)*layer.PageBlocks)
	if uint64(last) >= v.log.written.Load() { // some may still be in memory
		return layer.PageSize, v.readRef(ref, p[:layer.PageSize])
	}
	return k * layer.PageSize, v.readFile(ref.place(), p[:k*layer.PageSize], crcs[:k])
}

// readRef reads one whole page.
func (v *Volume) readRef(ref pageRef, p []byte) error {
	if v.log.buffered(ref.place(), p) {
		return nil
	}
	crc := [1]uint32{ref.crc()}
	return v.readFile(ref.place(), p, crc[:])
}

// readFile reads pages that stand in a segment one after the other and
// compares their checksums.
func (v *Volume) readFile(at place, p []byte, crcs []uint32) error {
	seg := (*v.ix.segs.Load())[at.segment()]
	off := int64(at.block()) * layer.BlockSize
	f, err := seg.open()
	if err == nil {
		var got int
		if got, err = f.ReadAt(p, off); got == len(p) {
			err = nil
		}
	}
	if err != nil {
		return v.unreadable(fmt.Errorf("read %s at byte %d: %w", seg.path, off, err))
	}
	for i, want := range crcs {
		if got := layer.Checksum(p[i*layer.PageSize : (i+1)*layer.PageSize]); got != want {
			return v.unreadable(&layer.CorruptError{File: seg.path, Offset: off + int64(i)*layer.PageSize,
				Expected: fmt.Sprintf("page with checksum %08x", want), Found: fmt.Sprintf("%08x", got)})
		}
	}
	return nil
}

// unreadable tells the log, since FUSE passes on a number only.
func (v *Volume) unreadable(err error) error {
	v.store.slog.Error("page unreadable", "timeline", v.of.id, "err", err)
	return fmt.Errorf("%w: %w", syscall.EIO, err)
}

// WriteAt writes to a file; every whole page is written atomically. With an
// error the bytes counted are written.
func (v *Volume) WriteAt(ino layer.Ino, p []byte, off uint64) (int, error) {
	if off+uint64(len(p)) > maxFileSize || off > maxFileSize {
		return 0, &fileError{"write", ino, "", syscall.EFBIG}
	}
	if err := v.enter(); err != nil {
		return 0, &fileError{"write", ino, "", err}
	}
	n, err := v.regular(ino)
	if err != nil {
		v.freeze.RUnlock()
		return 0, &fileError{"write", ino, "", err}
	}
	n.write.Lock()
	done, err := v.write(n, p, off)
	n.write.Unlock()
	v.freeze.RUnlock()
	v.log.writeBehind()
	if err != nil {
		return done, &fileError{"write", ino, "", err}
	}
	return done, nil
}

// write goes page by page. The caller holds n.write.
func (v *Volume) write(n *node, p []byte, off uint64) (done int, err error) {
	now := time.Now().UnixNano()
	for done < len(p) {
		at := off + uint64(done)
		page, in := uint32(at/layer.PageSize), int(at%layer.PageSize)
		k := min(len(p)-done, layer.PageSize-in)
		part := p[done : done+k]
		switch {
		case isZero(part) && (k == layer.PageSize || n.page(page) == 0):
			if k, err = v.writeZeros(n, p[done:], at, now); err != nil {
				return done, err
			}
		case k == layer.PageSize:
			err = v.writePage(n, page, layer.PageSize, part, now)
		default:
			err = v.writePart(n, page, in, part, now)
		}
		if err != nil {
			return done, err
		}
		done += k
	}
	return done, nil
}

// writePage makes data the newest version of a page; the file then has at
// least used bytes of it.
func (v *Volume) writePage(n *node, page, used uint32, data []byte, now int64) error {
	w := pageWrite{ino: n.ino, page: page, used: used, crc: layer.Checksum(data), time: now, data: data}
	ref, err := v.log.append(&w, nil)
	if err != nil {
		return err
	}
	v.ix.applyPage(n, page, used, now, ref)
	return nil
}

// writePart writes a part of a page as a new whole page.
func (v *Volume) writePart(n *node, page uint32, in int, part []byte, now int64) error {
	whole := v.store.scratch.Get().(*[layer.PageSize]byte)
	defer v.store.scratch.Put(whole)
	if ref := n.page(page); ref == 0 {
		clear(whole[:])
	} else if err := v.readRef(ref, whole[:]); err != nil {
		return err
	}
	copy(whole[in:], part)
	return v.writePage(n, page, uint32(in+len(part)), whole[:], now)
}

// writeZeros writes the zeros that p begins with, either whole pages or a part
// of one that is a hole: pages become holes and holes stay holes. It returns
// how many bytes. Where nothing changes nothing is logged.
func (v *Volume) writeZeros(n *node, p []byte, at uint64, now int64) (int, error) {
	k := min(len(p), int(layer.PageSize-at%layer.PageSize))
	first := uint32(at / layer.PageSize)
	hole := n.page(first) == 0
	for k < len(p) && k <= len(p)-layer.PageSize && isZero(p[k:k+layer.PageSize]) {
		hole = n.page(uint32((at+uint64(k))/layer.PageSize)) == 0 && hole
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
	if _, err := v.log.append(nil, &r); err != nil {
		return 0, err
	}
	v.ix.applyData(n, &r, 0)
	return k, nil
}

// Allocate makes the file reach at least to off+n. The space itself is the
// log's concern: a page takes it when it is written.
func (v *Volume) Allocate(ino layer.Ino, off, n uint64) error {
	if off > maxFileSize || n > maxFileSize-off {
		return &fileError{"allocate", ino, "", syscall.EFBIG}
	}
	if err := v.enter(); err != nil {
		return &fileError{"allocate", ino, "", err}
	}
	defer v.freeze.RUnlock()
	f, err := v.regular(ino)
	if err != nil {
		return &fileError{"allocate", ino, "", err}
	}
	f.write.Lock()
	defer f.write.Unlock()
	if off+n <= f.size.Load() {
		return nil
	}
	r := layer.Record{Kind: layer.KindSize, Ino: ino, Size: off + n, Time: time.Now().UnixNano()}
	if _, err := v.log.append(nil, &r); err != nil {
		return &fileError{"allocate", ino, "", err}
	}
	v.ix.applyData(f, &r, 0)
	return nil
}
