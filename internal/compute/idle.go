package compute

import (
	"time"

	"github.com/tarndb/tarn"
)

// lastActive moves the time of the last client statement: now while somebody is
// busy, else when a session last changed. It never goes back: a session that
// has left takes its time with it.
func lastActive(last, now time.Time, a activity) time.Time {
	seen := a.changed
	if a.busy > 0 {
		seen = now
	}
	if seen.After(last) {
		return seen
	}
	return last
}

// isIdle tells whether a compute has waited long enough; suspendAfter of 0 or
// less is never.
func isIdle(last, now time.Time, suspendAfter time.Duration) bool {
	return suspendAfter > 0 && now.Sub(last) >= suspendAfter
}

// pollEvery is how often a compute is asked who is active: often enough to be
// no more than a tenth late.
func pollEvery(suspendAfter time.Duration) time.Duration {
	const least, most = 50 * time.Millisecond, time.Second
	if suspendAfter <= 0 {
		return most
	}
	return min(max(suspendAfter/10, least), most)
}

// needsMark tells whether a compute whose WAL is flushed up to lsn should be
// marked: never without new WAL, else when the last mark is old or far behind.
func needsMark(last tarn.Mark, lsn tarn.LSN, now time.Time, every time.Duration, bytes int64) bool {
	return lsn > last.LSN && (now.Sub(last.Time) >= every || int64(lsn-last.LSN) >= bytes)
}
