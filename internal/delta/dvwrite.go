package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/google/uuid"
)

// dvFile gathers the deletion vectors of one commit in one file, which begins
// with the version of its format, 1; dv.go draws the rest.
type dvFile struct {
	id  uuid.UUID
	buf bytes.Buffer
}

// add gives the descriptor of a vector that put makes durable.
func (d *dvFile) add(m *roaring64.Bitmap) (*dvDescriptor, error) {
	if d.buf.Len() == 0 {
		id, err := uuid.NewRandom()
		if err != nil {
			return nil, fmt.Errorf("name a deletion vector: %w", err)
		}
		d.id = id
		d.buf.WriteByte(1)
	}
	m.RunOptimize()
	var data bytes.Buffer
	data.Write(binary.LittleEndian.AppendUint32(nil, dvMagic))
	if _, err := m.WriteTo(&data); err != nil {
		return nil, fmt.Errorf("write a deletion vector: %w", err)
	}
	if d.buf.Len()+data.Len() > math.MaxInt32-8 {
		return nil, fmt.Errorf("deletion vectors of one commit are larger than 2 GiB")
	}
	offset := int32(d.buf.Len())
	d.buf.Write(binary.BigEndian.AppendUint32(nil, uint32(data.Len())))
	d.buf.Write(data.Bytes())
	d.buf.Write(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(data.Bytes())))
	return &dvDescriptor{
		StorageType: "u", PathOrDV: z85Encode(d.id[:]), Offset: &offset,
		SizeInBytes: int32(data.Len()), Cardinality: int64(m.GetCardinality()),
	}, nil
}

// put writes the file, if there is anything to write.
func (d *dvFile) put(ctx context.Context, x *Tx) error {
	if d.buf.Len() == 0 {
		return nil
	}
	key := x.table.key("deletion_vector_" + d.id.String() + ".bin")
	x.keys = append(x.keys, key)
	if err := x.table.store.Put(ctx, key, bytes.NewReader(d.buf.Bytes())); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	d.buf.Reset()
	return nil
}

// z85Encode encodes whole fours of bytes.
func z85Encode(b []byte) string {
	out := make([]byte, 0, len(b)/4*5)
	for i := 0; i < len(b); i += 4 {
		v := binary.BigEndian.Uint32(b[i:])
		var five [5]byte
		for k := 4; k >= 0; k-- {
			five[k] = z85Alphabet[v%85]
			v /= 85
		}
		out = append(out, five[:]...)
	}
	return string(out)
}

// withVector gives the file with another deletion vector. Its bounds hold still
// but need not be reached any more.
func (a *addAction) withVector(d *dvDescriptor, rows int64) (*addAction, error) {
	c := *a
	c.DV = d
	c.DataChange = true
	stats := map[string]json.RawMessage{}
	if a.Stats != "" && json.Unmarshal([]byte(a.Stats), &stats) != nil {
		stats = map[string]json.RawMessage{} // as good as none
	}
	n, err := json.Marshal(rows)
	if err != nil {
		return nil, err
	}
	stats["numRecords"], stats["tightBounds"] = n, json.RawMessage("false")
	text, err := json.Marshal(stats)
	if err != nil {
		return nil, err
	}
	c.Stats, c.rows = string(text), -1
	return &c, nil
}
