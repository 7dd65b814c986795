package pagestore

import (
	"syscall"
	"time"

	"github.com/tarndb/tarn/internal/layer"
)

// copyPages is how many pages are shared at once: writers of the two files wait
// meanwhile.
const copyPages = 4096

// CopyRange copies n bytes of a file into one, itself perhaps, and returns how
// many: fewer at the end of src. Whole pages are not copied, the two files share
// them until either is written. The ranges must not overlap. With an error the
// bytes counted are copied.
func (v *Volume) CopyRange(src layer.Ino, srcOff uint64, dst layer.Ino, dstOff, n uint64) (uint64, error) {
	if srcOff > maxFileSize || dstOff > maxFileSize || n > maxFileSize-max(srcOff, dstOff) {
		return 0, &fileError{"copy to", dst, "", syscall.EFBIG}
	}
	from, err := v.ix.regular(src)
	if err == nil {
		_, err = v.ix.regular(dst)
	}
	if err == nil && src == dst && srcOff < dstOff+n && dstOff < srcOff+n {
		err = syscall.EINVAL
	}
	if err != nil {
		return 0, &fileError{"copy to", dst, "", err}
	}
	size := from.size.Load() // src may grow by being dst too
	n = min(n, max(size, srcOff)-srcOff)
	done := uint64(0)
	for done < n {
		left := n - done
		var k uint64
		if (srcOff+done)%layer.PageSize == 0 && (dstOff+done)%layer.PageSize == 0 {
			k, err = share(v, src, srcOff+done, dst, dstOff+done, left)
		}
		if err == nil && k == 0 {
			k, err = copyThrough(v, src, srcOff+done, dst, dstOff+done, left)
		}
		if err != nil {
			return done, &fileError{"copy to", dst, "", err}
		}
		if k == 0 {
			break
		}
		done += k
	}
	return done, nil
}

// share makes whole pages of dst show what src shows, and a part of a page
// where both files end with it. It returns how many bytes; 0 when bytes have to
// be copied. Offsets are those of pages.
func share(v *Volume, src layer.Ino, srcOff uint64, dst layer.Ino, dstOff, n uint64) (uint64, error) {
	if err := v.enter(); err != nil {
		return 0, err
	}
	defer v.freeze.RUnlock()
	v.names.Lock() // src keeps its name until the record is in the log: a replay must find it
	defer v.names.Unlock()
	from, err := v.ix.regular(src)
	if err != nil {
		return 0, err
	}
	to, err := v.ix.regular(dst)
	if err != nil {
		return 0, err
	}
	first, second := from, to
	if first.ino > second.ino {
		first, second = second, first
	}
	first.write.Lock()
	defer first.write.Unlock()
	if first != second {
		second.write.Lock()
		defer second.write.Unlock()
	}
	pages, used := n/layer.PageSize, uint64(layer.PageSize)
	if rest := n % layer.PageSize; pages < copyPages && rest != 0 && srcOff+n == from.size.Load() && dstOff+n >= to.size.Load() {
		pages, used = pages+1, rest // nothing but zeros behind it
	}
	if pages > copyPages {
		pages, used = copyPages, layer.PageSize
	}
	if pages == 0 || from.nlink.Load() == 0 {
		return 0, nil
	}
	r := layer.Record{Kind: layer.KindCopy, Ino: dst, Page: uint32(dstOff / layer.PageSize), Count: uint32(pages), Used: uint32(used),
		From: src, FromPage: uint32(srcOff / layer.PageSize), Time: time.Now().UnixNano()}
	if err := v.ix.prepare(to, &r); err != nil {
		return 0, v.contents.unreadable(err)
	}
	if _, err := v.log.append(nil, &r); err != nil {
		return 0, err
	}
	v.ix.applyData(to, &r, 0)
	return (pages-1)*layer.PageSize + used, nil
}

// copyThrough copies bytes up to the next page of src by reading and writing.
func copyThrough(v *Volume, src layer.Ino, srcOff uint64, dst layer.Ino, dstOff, n uint64) (uint64, error) {
	p := v.store.scratch.Get().(*[layer.PageSize]byte)
	defer v.store.scratch.Put(p)
	k, err := v.ReadAt(src, p[:min(n, layer.PageSize-srcOff%layer.PageSize)], srcOff)
	if err != nil || k == 0 {
		return 0, err
	}
	done, err := v.WriteAt(dst, p[:k], dstOff)
	return uint64(done), err
}
