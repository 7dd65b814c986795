package feed

import "math"

// fullXID widens a 32-bit transaction id to 64 bits: the one nearest to a known
// recent full id.
func fullXID(xid uint32, near uint64) uint64 {
	const half = math.MaxUint32/2 + 1
	full := near&^math.MaxUint32 | uint64(xid)
	switch {
	case full > near && full-near > half && full > math.MaxUint32:
		return full - (1 << 32)
	case near > full && near-full > half:
		return full + (1 << 32)
	}
	return full
}
