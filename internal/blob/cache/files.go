package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FORMAT.md draws these files.
const (
	dataSuffix = ".data"
	mapSuffix  = ".map"

	magic      = "TARNRNGE"
	version    = 1
	flagLinked = 1
	headerSize = 2048
	keyAt      = 34
	sumAt      = headerSize - 4
	maxKey     = sumAt - keyAt
	recordSize = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// folder is the directory of a cache.
type folder string

func (d folder) path(name, suffix string) string { return filepath.Join(string(d), name+suffix) }

func (e *entry) header() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], version)
	if e.linked {
		binary.LittleEndian.PutUint32(b[12:], flagLinked)
	}
	binary.LittleEndian.PutUint64(b[16:], uint64(e.size))
	binary.LittleEndian.PutUint64(b[24:], uint64(e.step))
	binary.LittleEndian.PutUint16(b[32:], uint16(len(e.key)))
	copy(b[keyAt:], e.key)
	binary.LittleEndian.PutUint32(b[sumAt:], checksum(b[:sumAt]))
	return b
}

// parse reads a map file; nil for one that is torn, or of another time.
func parse(name string, b []byte) *entry {
	if len(b) < headerSize || string(b[:8]) != magic || binary.LittleEndian.Uint32(b[8:]) != version ||
		binary.LittleEndian.Uint32(b[sumAt:]) != checksum(b[:sumAt]) {
		return nil
	}
	n := int(binary.LittleEndian.Uint16(b[32:]))
	if n == 0 || n > maxKey {
		return nil
	}
	e := &entry{
		key: string(b[keyAt : keyAt+n]), name: name, made: true, slots: map[int64]*slot{},
		size: int64(binary.LittleEndian.Uint64(b[16:])), step: int64(binary.LittleEndian.Uint64(b[24:])),
		linked: binary.LittleEndian.Uint32(b[12:])&flagLinked != 0,
	}
	if e.size <= 0 || e.step <= 0 {
		return nil
	}
	if e.linked {
		e.slots[0] = &slot{e: e, state: kept}
		return e
	}
	for i, r := int64(0), b[headerSize:]; len(r) >= recordSize && i*e.step < e.size; i, r = i+1, r[recordSize:] {
		if sum, ok := decodeRecord(r, i); ok {
			e.slots[i] = &slot{e: e, index: i, state: unproven, sum: sum}
		}
	}
	return e
}

// record is what stands in a map file for the i-th range on disk.
func record(sum uint32, i int64) []byte {
	var b [4 + 8]byte
	binary.LittleEndian.PutUint32(b[:], sum)
	binary.LittleEndian.PutUint64(b[4:], uint64(i))
	return binary.LittleEndian.AppendUint32(b[:4:4], ^checksum(b[:]))
}

func decodeRecord(b []byte, i int64) (sum uint32, ok bool) {
	sum = binary.LittleEndian.Uint32(b)
	return sum, string(record(sum, i)) == string(b[:recordSize])
}

// writeRecord says that the i-th range is on disk; zeros say that it is not.
func (d folder) writeRecord(e *entry, i int64, rec []byte) error {
	f, err := os.OpenFile(d.path(e.name, mapSuffix), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(rec, headerSize+i*recordSize)
	return errors.Join(err, f.Close())
}

// acquire gives the open data file of e, which it makes when there is none. The
// caller releases it.
func (c *Cache) acquire(e *entry) (*os.File, error) {
	for {
		c.mu.Lock()
		f, gone := e.data, e.gone
		if f != nil {
			e.users++
		}
		c.mu.Unlock()
		if f != nil {
			return f, nil
		}
		if gone {
			return nil, fs.ErrClosed
		}
		if _, err, _ := c.opens.Do(e.name, func() (any, error) { return nil, c.openData(e) }); err != nil {
			return nil, err
		}
	}
}

// openData opens e's data file, or makes both files; one caller at a time per entry.
func (c *Cache) openData(e *entry) error {
	c.mu.Lock()
	made, done := e.made, e.data != nil || e.gone
	c.mu.Unlock()
	if done {
		return nil
	}
	var f *os.File
	var err error
	switch {
	case !made:
		f, err = c.dir.makeFiles(e)
	case e.linked:
		f, err = os.Open(c.dir.path(e.name, dataSuffix))
	default:
		f, err = os.OpenFile(c.dir.path(e.name, dataSuffix), os.O_RDWR, 0)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	gone := e.gone
	var idle []*os.File
	if !gone {
		e.made, e.data = true, f
		c.open++
		idle = c.idle()
	}
	c.mu.Unlock()
	for _, old := range idle {
		old.Close() // was written through WriteAt, whose errors are known
	}
	if gone {
		f.Close()
		if !made { // who took the entry out saw no files
			return c.dir.removeFiles(e.name)
		}
	}
	return nil
}

// makeFiles makes both files of e.
//
//  1. the data file, a hole       (crash: without a map, removed by load)
//  2. the map file with no record (crash: an entry without ranges)
func (d folder) makeFiles(e *entry) (*os.File, error) {
	if len(e.key) > maxKey {
		return nil, fmt.Errorf("the key is longer than %d bytes", maxKey)
	}
	f, err := os.OpenFile(d.path(e.name, dataSuffix), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err = f.Truncate(e.size); err == nil {
		err = os.WriteFile(d.path(e.name, mapSuffix), e.header(), 0o600)
	}
	if err != nil {
		f.Close()
		return nil, errors.Join(err, d.removeFiles(e.name))
	}
	return f, nil
}

// idle takes files that nobody uses from their entries when too many are open;
// mu is held.
func (c *Cache) idle() []*os.File {
	var files []*os.File
	for _, e := range c.entries {
		if c.open <= openFiles {
			break
		}
		if e.data != nil && e.users == 0 {
			files = append(files, e.data)
			e.data = nil
			c.open--
		}
	}
	return files
}

// release gives back what acquire gave.
func (c *Cache) release(e *entry) {
	c.mu.Lock()
	e.users--
	var f *os.File
	if e.gone && e.users == 0 && e.data != nil {
		f, e.data = e.data, nil
		c.open--
	}
	c.mu.Unlock()
	if f != nil {
		f.Close() // was written through WriteAt, whose errors are known
	}
}

func (d folder) removeFiles(name string) error {
	var errs []error
	// The map first: data without a map is nothing.
	for _, suffix := range []string{mapSuffix, dataSuffix} {
		if err := os.Remove(d.path(name, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// punch gives a range's blocks back.
func punch(f *os.File, off, n int64) error {
	n = (n + block - 1) &^ (block - 1)
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// load takes up what an earlier cache left, and removes what is of no use.
func (c *Cache) load() error {
	list, err := os.ReadDir(c.o.Dir)
	if err != nil {
		return err
	}
	type found struct {
		e    *entry
		used time.Time
	}
	var all []found
	for _, d := range list {
		name, isMap := strings.CutSuffix(d.Name(), mapSuffix)
		bare, isData := strings.CutSuffix(d.Name(), dataSuffix)
		if isData {
			name = bare
		}
		n, err := strconv.ParseUint(name, 10, 64)
		if err != nil || !isMap && !isData {
			continue // not ours
		}
		c.serial = max(c.serial, n)
		if isData {
			if _, err := os.Lstat(c.dir.path(name, mapSuffix)); errors.Is(err, fs.ErrNotExist) {
				if err := c.dir.removeFiles(name); err != nil {
					return err
				}
			}
			continue
		}
		b, err := os.ReadFile(c.dir.path(name, mapSuffix))
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		e := parse(name, b)
		data, err := os.Stat(c.dir.path(name, dataSuffix))
		if e == nil || err != nil || data.Size() != e.size || len(e.slots) == 0 || !e.linked && e.step != c.o.Range {
			if err := c.dir.removeFiles(name); err != nil {
				return err
			}
			continue
		}
		all = append(all, found{e, st.ModTime()})
	}
	slices.SortFunc(all, func(a, b found) int { return a.used.Compare(b.used) })
	for _, f := range all {
		if old := c.entries[f.e.key]; old != nil { // a crash while it was replaced
			if err := c.dir.discard(c.detach(old)); err != nil {
				return err
			}
		}
		c.entries[f.e.key] = f.e
		for i, s := range f.e.slots {
			c.recent.push(s)
			c.usage.Bytes += f.e.length(i)
		}
	}
	return nil
}

// remember leaves the order of use in the times of the map files. After a crash
// they say when something was fetched, which will do.
func (d folder) remember(order []string) {
	now := time.Now()
	for i, name := range order {
		at := now.Add(time.Duration(i-len(order)) * time.Millisecond)
		_ = os.Chtimes(d.path(name, mapSuffix), at, at) // only the order of eviction depends on it
	}
}
