package pagestore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

const (
	// stretchPages is what is put in order or left alone together: 1 MiB of a
	// file, as much as one request of a mount reads.
	stretchPages = 128
	// shortRun is where a run of pages is worth reading at once: 128 KiB.
	shortRun = 16
	// looseLeast is how much out of order is worth a compaction, however small
	// the timeline is.
	looseLeast = 8 << 20
	// quietFor is how long nothing was written when less than half of what there
	// is may be put in order.
	quietFor = 30 * time.Second
	// compactPart is which part of what collections may read and write is for
	// compactions: nobody waits for them.
	compactPart = 4
)

// progress is how far a timeline is put in order. Guarded by registry.mu; who
// collects changes where.
type progress struct {
	running bool
	where   pageOf
	loose   int64 // when it began
	head    tarn.Seq
	since   time.Time // head is the same since then
}

// pageOf names a page of a file.
type pageOf struct {
	ino  layer.Ino
	page uint32
}

// compaction writes pages that stand out of order into an image, in the order
// of their files, so that reading a file in order needs few large requests
// again. What a page shows does not change, only where it stands: records of the
// log say that (layer.KindMove). The places before are garbage once nobody keeps
// an older seq.
type compaction struct {
	store   *Store
	of      *timeline
	volume  *Volume // nil of a closed timeline
	ix      *index  // at the seq at which pages are read; nobody changes it
	end     end     // of a closed timeline's log
	epoch   uint64  // of its manifest
	own     []bool  // by slot: files of the timeline itself
	keeping bool    // older seqs are kept, and with them the places before
	pace    *pace

	image  *segment
	out    *flowing
	blocks uint32 // the image has
	limit  uint32 // blocks it may have
	moves  []move
	buf    []byte
}

// move is pages of a file, one after the other, that stand in the image too.
type move struct {
	pageOf
	refs  []pageRef // where they stood
	block uint32    // of the image
}

// movePages is how many pages one record moves: their file's writers wait
// meanwhile.
const movePages = 1024

// stretch is up to stretchPages pages of a file.
type stretch struct {
	pageOf
	refs [stretchPages]pageRef
	n    int
	keep bool // older seqs are kept
	own  func(pageRef) bool
}

// choice says whether a stretch is put in order.
type choice func(*stretch) bool

// worth reports whether reading a stretch in order takes many small reads more
// than it has to, and putting it in order pays: of a child's pages at least half
// are its own, and where older places are kept, at least a quarter stand loose.
func (s *stretch) worth() bool {
	pages, runs, groups, loose, own, length := 0, 0, 0, 0, 0, 0
	endRun := func() {
		if length < shortRun {
			loose += length
		}
		length = 0
	}
	for i, r := range s.refs[:s.n] {
		if r == 0 {
			endRun()
			continue
		}
		pages++
		if s.own(r) {
			own++
		}
		switch {
		case i == 0 || s.refs[i-1] == 0:
			groups++
			runs++
		case s.refs[i-1].place()+layer.PageBlocks != r.place():
			endRun()
			runs++
		}
		length++
	}
	endRun()
	least := 8
	if s.keep {
		least = 4
	}
	return runs-groups >= max(4, pages/shortRun) && own*2 >= pages && loose*least >= pages
}

// unordered says whether a timeline is to be compacted: half of what it shows
// was written out of order, or some of it and nothing is written any more.
func (s *shelf) unordered(t *timeline, now time.Time) bool {
	s.mu.Lock()
	if s.closed || !t.remote.writable() || t.state != stateIdle && t.state != stateHeld || now.Before(t.notBefore) {
		s.mu.Unlock()
		return false
	}
	loose, head, maps := t.loose, t.man.Closed.Head, t.man.maps()
	if v := t.volume; v != nil {
		loose += v.ix.loose.Load()
		head = v.Head()
	}
	if head != t.order.head {
		t.order.head, t.order.since = head, now
	}
	running, quiet := t.order.running, now.Sub(t.order.since) >= quietFor
	s.mu.Unlock()
	switch {
	case running:
		return true
	case loose < looseLeast || len(maps) == 0:
		return false
	}
	visible, err := s.visible(t.id, maps[len(maps)-1].Number)
	return err == nil && (loose >= visible/2 || quiet && loose >= visible/16)
}

// compact puts some of a timeline in order, as much as one image holds. more
// says that it is not done.
//
//  1. fix a seq, with the log up to there on disk    crash: nothing
//  2. write an image and sync it                     crash: litter
//  3. list it in the manifest                        crash: an image in which
//     nothing is visible, which the next collection drops
//  4. append records that move the pages that still  crash: some of them; the
//     stand where they did                           rest stays where it was
//
// What a page showed is there before and after each step. One compaction or
// collection runs at a time, so that no place of a page is given back between.
func compact(ctx context.Context, s *Store, t *timeline, chosen choice) (more bool, err error) {
	select {
	case s.collecting <- struct{}{}:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	defer func() { <-s.collecting }()
	if !t.remote.writable() {
		return false, nil
	}
	c := &compaction{store: s, of: t, pace: newPace(max(s.options.CollectBytesPerSecond/compactPart, 1)), blocks: 1}
	if err = c.fix(ctx); err == nil && c.ix != nil {
		more, err = c.run(ctx, chosen)
	}
	if c.ix != nil {
		c.ix.release()
	}
	if errors.Is(err, errClosed) {
		return false, nil // it was closed meanwhile; another time
	}
	if err != nil {
		return false, fmt.Errorf("compact timeline %s: %w", t.id, err)
	}
	return more, nil
}

// fix does step 1. ix stays nil when this is not the time.
func (c *compaction) fix(ctx context.Context) error {
	s, t := c.store, c.of
	if err := s.wait(ctx, t); err != nil {
		return err
	}
	defer t.pass()
	s.mu.Lock()
	v, idle, man := t.volume, t.state == stateIdle, t.man
	bytes := int64(0)
	for _, l := range man.Layers {
		bytes += l.Bytes
	}
	c.keeping = s.window(man) > 0 || len(s.beginnings(t)) > 0
	s.mu.Unlock()
	// A part of what there is, so that little is there twice until it is collected.
	c.limit = uint32(min(max(bytes/8, 1<<20)/layer.BlockSize, int64(s.limit)))
	if _, free, err := s.files.Usage(s.dir); err != nil || int64(free) < 4*int64(c.limit)*layer.BlockSize {
		return err // the last of the space is for the log
	}
	var err error
	switch {
	case v != nil:
		if c.ix, _, err = v.snapshot(forMap); err == nil {
			c.volume = v
			err = v.log.sync()
		}
	case idle:
		if c.ix, c.end, err = s.head(ctx, t); err == nil {
			err = s.putClosed(t, c.ix, c.end, nil)
		}
	}
	s.mu.Lock()
	c.epoch = t.man.Epoch
	s.mu.Unlock()
	if c.ix != nil {
		for _, f := range *c.ix.segs.Load() {
			c.own = append(c.own, f != nil && f.id.Timeline == t.id)
		}
	}
	return err
}

// run does the rest.
func (c *compaction) run(ctx context.Context, chosen choice) (more bool, err error) {
	s, t := c.store, c.of
	s.mu.Lock()
	if !t.order.running {
		t.order.running, t.order.where = true, pageOf{}
		t.order.loose = t.loose
		if c.volume != nil {
			t.order.loose += c.volume.ix.loose.Load()
		}
	}
	from := t.order.where
	s.mu.Unlock()
	next, err := c.write(ctx, from, chosen)
	if err == nil && len(c.moves) > 0 {
		err = c.install(ctx)
	}
	if err != nil {
		if c.image != nil {
			err = errors.Join(err, c.abandon())
		}
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.order.where = next
	if next != (pageOf{}) {
		return true, nil
	}
	t.order.running = false
	t.due = t.due || len(t.man.images()) > 0 // what the last of them left behind
	left := t.order.loose
	if v := t.volume; v != nil {
		n := min(left, v.ix.loose.Load())
		v.ix.loose.Add(-n)
		left -= n
	}
	t.loose = max(t.loose-left, 0)
	return false, nil
}

// abandon removes the image unless the manifest lists it.
func (c *compaction) abandon() error {
	c.store.mu.Lock()
	listed := c.of.man.has(layer.FileImage, c.image.id.Number)
	c.store.mu.Unlock()
	if listed {
		return nil
	}
	return ignoreMissing(c.store.files.Remove(c.image.path))
}

// write does step 2, from a page on, and says where to go on: nowhere at the end.
func (c *compaction) write(ctx context.Context, from pageOf, chosen choice) (next pageOf, err error) {
	defer func() {
		if c.out != nil {
			err = errors.Join(err, c.out.Close())
		}
	}()
	for n := range c.ix.inodes.all() {
		if n.ino < from.ino || n.nlink.Load() == 0 || n.pages.Load() == nil {
			continue
		}
		page := uint64(0)
		if n.ino == from.ino {
			page = uint64(from.page)
		}
		for end := uint64(len(n.pages.Load().slots)) * chunkPages; page < end; {
			if c.limit-c.blocks < layer.PageBlocks {
				return pageOf{n.ino, uint32(page)}, c.finish()
			}
			st, err := c.stretch(n, uint32(page), end)
			if err == nil && chosen(st) {
				if !c.fits(st) && c.blocks > 1 {
					return st.pageOf, c.finish()
				}
				err = c.copy(st)
			}
			if err != nil && !errors.Is(err, layer.ErrCorrupt) {
				return pageOf{}, err
			}
			if err != nil { // it stays where it is, and whoever reads it is told
				c.store.slog.Warn("stretch not put in order", "timeline", c.of.id, "err", err)
			}
			if err := c.pace.wait(ctx); err != nil {
				return pageOf{}, err
			}
			page += uint64(st.n)
		}
	}
	if c.image == nil {
		return pageOf{}, nil
	}
	return pageOf{}, c.finish()
}

// stretch looks at the pages of a file from one on.
func (c *compaction) stretch(n *node, page uint32, end uint64) (*stretch, error) {
	st := &stretch{pageOf: pageOf{n.ino, page}, keep: c.keeping, own: c.isOwn}
	st.n = int(min(uint64(stretchPages-page%stretchPages), end-uint64(page)))
	t := n.pages.Load()
	for i := 0; i < st.n; {
		at := int(page) + i
		k := min(chunkPages-at%chunkPages, st.n-i)
		s := &t.slots[at/chunkPages]
		if ch, w := s.chunk.Load(), s.where.Load(); ch != nil {
			for j := range k {
				st.refs[i+j] = pageRef(ch.refs[(at+j)%chunkPages].Load())
			}
		} else if w != 0 {
			var refs [chunkPages]uint64
			if err := c.ix.readTable(n.ino, uint32(at/chunkPages), layer.TableRef(w), &refs); err != nil {
				return st, err
			}
			for j := range k {
				st.refs[i+j] = pageRef(refs[(at+j)%chunkPages])
			}
			c.pace.add(layer.TableRef(w).Bytes())
		}
		i += k
	}
	return st, nil
}

func (c *compaction) isOwn(r pageRef) bool {
	slot := r.place().segment()
	return slot < len(c.own) && c.own[slot]
}

func (c *compaction) fits(st *stretch) bool {
	return c.blocks+uint32(st.n)*layer.PageBlocks <= c.limit
}

// copy copies the pages of a stretch into the image; what does not fit is cut
// off the stretch.
func (c *compaction) copy(st *stretch) error {
	if !c.fits(st) {
		st.n = int(c.limit-c.blocks) / layer.PageBlocks
	}
	if c.buf == nil {
		c.buf = make([]byte, stretchPages*layer.PageSize)
	}
	in := contents{ix: c.ix}
	pages := 0
	for i := 0; i < st.n; {
		if st.refs[i] == 0 {
			i++
			continue
		}
		k := 1
		crcs := []uint32{st.refs[i].crc()}
		for i+k < st.n && st.refs[i+k] != 0 && st.refs[i+k-1].place()+layer.PageBlocks == st.refs[i+k].place() {
			crcs = append(crcs, st.refs[i+k].crc())
			k++
		}
		p := c.buf[pages*layer.PageSize:][:k*layer.PageSize]
		if err := in.readFile(st.refs[i].place(), p, crcs); err != nil {
			for j := range k { // one of them, which the bucket may have
				one := p[j*layer.PageSize:][:layer.PageSize]
				err := in.readFile(st.refs[i+j].place(), one, crcs[j:j+1])
				if err != nil {
					err = in.reread(st.refs[i+j], one, err)
				}
				if err != nil {
					return err
				}
			}
		}
		pages += k
		i += k
	}
	if pages == 0 {
		return nil
	}
	if err := c.begin(); err != nil {
		return err
	}
	if _, err := c.out.WriteAt(c.buf[:pages*layer.PageSize], int64(c.blocks)*layer.BlockSize); err != nil {
		return fmt.Errorf("write %s: %w", c.image.path, err)
	}
	for i, r := range st.refs[:st.n] {
		if r == 0 {
			continue
		}
		at := pageOf{st.ino, st.page + uint32(i)}
		last := len(c.moves) - 1
		if last >= 0 && len(c.moves[last].refs) < movePages && c.moves[last].ino == at.ino && c.moves[last].page+uint32(len(c.moves[last].refs)) == at.page {
			c.moves[last].refs = append(c.moves[last].refs, r)
		} else {
			c.moves = append(c.moves, move{at, []pageRef{r}, c.blocks})
		}
		c.blocks += layer.PageBlocks
	}
	c.pace.add(2 * int64(pages) * layer.PageSize)
	return nil
}

// begin makes the image's file.
func (c *compaction) begin() error {
	if c.image != nil {
		return nil
	}
	s, t := c.store, c.of
	s.mu.Lock()
	number := max(t.nextImage, t.man.Counted.Image+1)
	for _, l := range t.man.images() {
		number = max(number, l.Number+1)
	}
	t.nextImage = number + 1
	s.mu.Unlock()
	c.image = newSegment(s.files, s.manifests.dir, layer.FileID{Timeline: t.id, Kind: layer.FileImage, Number: number})
	f, err := s.files.Open(c.image.path, createNew)
	if err != nil {
		return fmt.Errorf("begin image: %w", err)
	}
	c.out = &flowing{file: f}
	return nil
}

// finish makes the image whole and durable.
func (c *compaction) finish() error {
	if c.image == nil {
		return nil
	}
	pages := (c.blocks - 1) / layer.PageBlocks
	b, err := layer.ImageHeader{Timeline: c.of.id, Number: c.image.id.Number, Pages: pages, Seq: c.ix.seq}.Encode()
	if err == nil {
		_, err = c.out.file.WriteAt(b, 0)
	}
	if err == nil {
		err = c.out.Sync()
	}
	if err == nil {
		err = c.store.files.SyncDir(filepath.Dir(c.image.path))
	}
	if err != nil {
		return fmt.Errorf("end %s: %w", c.image.path, err)
	}
	return nil
}

// list adds the image to a manifest.
func (c *compaction) list(man *manifest) {
	man.Layers = append(slices.Clone(man.Layers), layerFile{Kind: layer.FileImage, Number: c.image.id.Number,
		First: c.ix.seq, Last: c.ix.seq, Bytes: int64(c.blocks) * layer.BlockSize})
	man.Counted.Image = max(man.Counted.Image, c.image.id.Number)
}

// install does steps 3 and 4.
func (c *compaction) install(ctx context.Context) error {
	s, t := c.store, c.of
	c.image.retain()
	defer c.image.release()
	if v := c.volume; v != nil {
		if err := s.whileOpen(ctx, v, func() error { return s.amend(t, c.list) }); err != nil {
			return err
		}
		return c.relocate(v)
	}
	if err := s.wait(ctx, t); err != nil {
		return err
	}
	defer t.pass()
	s.mu.Lock()
	same := t.state == stateIdle && t.man.Epoch == c.epoch && !s.closed && t.remote.writable()
	s.mu.Unlock()
	if !same {
		return errClosed // opened or changed meanwhile
	}
	if err := s.amend(t, c.list); err != nil {
		return err
	}
	s.mu.Lock()
	v := s.newVolume(t, c.ix, c.end) // whoever opens it waits for the turn
	s.mu.Unlock()
	c.ix = nil // the volume's
	err := c.relocate(v)
	return errors.Join(err, closeTurn(s, v))
}

// relocate appends the records.
func (c *compaction) relocate(v *Volume) error {
	slot := v.ix.addSegment(c.image)
	moved := 0
	for _, m := range c.moves {
		k, err := c.move(v, slot, m)
		moved += k
		if err != nil {
			return err
		}
	}
	// A map is due sooner: the tables of what was moved stay in memory until then.
	v.ix.behind.Add(int64(moved) * 128)
	c.store.slog.Debug("pages put in order", "timeline", c.of.id, "seq", v.Head(), "count", moved)
	return nil
}

// move moves those pages that still stand where they did.
func (c *compaction) move(v *Volume, slot int, m move) (moved int, err error) {
	if err := v.enter(); err != nil {
		return 0, err
	}
	defer v.freeze.RUnlock()
	n := v.ix.inodes.get(m.ino)
	if n == nil || n.nlink.Load() == 0 {
		return 0, nil
	}
	n.write.Lock()
	defer n.write.Unlock()
	if err := v.ix.ready(n, uint64(m.page), uint64(m.page)+uint64(len(m.refs)), loadWhole); err != nil {
		return 0, err
	}
	for i := 0; i < len(m.refs); {
		k := 0
		for i+k < len(m.refs) && n.inMemory(m.page+uint32(i+k)) == m.refs[i+k] {
			k++
		}
		if k == 0 {
			i++
			continue
		}
		r := layer.Record{Kind: layer.KindMove, Ino: m.ino, Page: m.page + uint32(i), Count: uint32(k), Time: n.mtime.Load(),
			Image: c.image.id.Number, Block: m.block + uint32(i*layer.PageBlocks)}
		if _, err := v.log.append(nil, &r); err != nil {
			return moved, err
		}
		if err := applyMove(v.ix, n, &r, makeRef(makePlace(slot, r.Block), 0)); err != nil {
			panic("pagestore: a checked record does not apply: " + err.Error())
		}
		moved += k
		i += k
	}
	v.log.writeBehind()
	return moved, nil
}
