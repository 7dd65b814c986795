package pagestore

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
)

// Attr gives a file's attributes without a lock.
func (v *Volume) Attr(ino layer.Ino) (layer.Attr, error) {
	n := v.ix.inodes.get(ino)
	if n == nil {
		return layer.Attr{}, &fileError{"attributes of", ino, "", syscall.ENOENT}
	}
	return n.attr(), nil
}

// SetAttr changes attributes. A smaller size cuts the file, a larger one ends
// it with a hole; either sets the mtime to now unless s does.
func (v *Volume) SetAttr(ino layer.Ino, s layer.SetAttr) (layer.Attr, error) {
	if err := v.enter(); err != nil {
		return layer.Attr{}, &fileError{"set attributes of", ino, "", err}
	}
	defer v.freeze.RUnlock()
	n, err := v.setAttr(ino, s)
	if err != nil {
		return layer.Attr{}, &fileError{"set attributes of", ino, "", err}
	}
	return n.attr(), nil
}

func (v *Volume) setAttr(ino layer.Ino, s layer.SetAttr) (*node, error) {
	n := v.ix.inodes.get(ino)
	if n == nil {
		return nil, syscall.ENOENT
	}
	if s.Has&layer.SetSize != 0 {
		if _, err := v.ix.regular(ino); err != nil {
			return nil, err
		}
		if s.Size > maxFileSize {
			return nil, syscall.EFBIG
		}
		if s.Has&layer.SetMtime == 0 {
			s.Has |= layer.SetMtime
			s.Mtime = time.Now().UnixNano()
		}
	}
	if s.Has == 0 {
		return n, nil
	}
	s.Mode &^= unix.S_IFMT
	r := layer.Record{Kind: layer.KindSetAttr, Ino: ino, Time: s.Mtime, Set: s}
	if n.mode.Load()&unix.S_IFMT == unix.S_IFDIR { // changes of names set its mtime too
		v.names.Lock()
		defer v.names.Unlock()
	}
	n.write.Lock()
	defer n.write.Unlock()
	if s.Has&layer.SetSize != 0 && s.Size < n.size.Load() {
		err := v.ix.prepare(n, &r)
		if err == nil && s.Size%layer.PageSize != 0 {
			err = v.ix.ready(n, s.Size/layer.PageSize, pagesIn(s.Size), loadWhole)
		}
		if err != nil {
			return n, v.contents.unreadable(err)
		}
		if s.Size%layer.PageSize != 0 {
			return n, v.contents.cut(n, &r)
		}
	}
	if _, err := v.log.append(nil, &r); err != nil {
		return nil, err
	}
	v.ix.applyData(n, &r, 0)
	return n, nil
}
