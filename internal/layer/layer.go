// Package layer knows the bytes of a timeline's log: records of pages and of
// metadata, each under a CRC, and the names of the few kinds of values they
// carry. It does not know which timeline a file belongs to nor what is
// visible. FORMAT.md is the specification.
package layer

// PageSize is the size of a page in bytes, as Postgres writes it.
const PageSize = 8192

// Ino numbers a file of a volume; RootIno is its root directory.
type Ino uint64

// RootIno is the root directory of every volume.
const RootIno Ino = 1

// Attr is what stat(2) shows of a file of a volume.
type Attr struct {
	Ino   Ino
	Mode  uint32 // S_IFMT and permission bits
	UID   uint32
	GID   uint32
	Nlink uint32
	Size  uint64 // bytes
	Mtime int64  // nanoseconds since 1970
}

// SetAttr changes the attributes whose Has bit is set.
type SetAttr struct {
	Has   SetMask
	Mode  uint32 // permission bits only
	UID   uint32
	GID   uint32
	Size  uint64 // bytes; smaller truncates, larger makes a hole
	Mtime int64  // nanoseconds since 1970
}

// SetMask says which fields of a SetAttr are meant.
type SetMask uint8

// The fields of a SetAttr.
const (
	SetMode SetMask = 1 << iota
	SetUID
	SetGID
	SetSize
	SetMtime
)

// NewFile describes a file, directory or symbolic link to be made.
type NewFile struct {
	Mode   uint32 // S_IFMT and permission bits
	UID    uint32
	GID    uint32
	Target string // of a symbolic link
}

// DirEntry is one name in a directory. Cookie is stable while other names are
// added and removed; reading continues after a cookie.
type DirEntry struct {
	Name   string
	Ino    Ino
	Mode   uint32
	Cookie uint64
}
