package api

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// burstSeconds is how many seconds' worth of requests may come at once.
const burstSeconds = 10

// rates bounds how many requests a principal sends, by a bucket of tokens for
// each: it holds burstSeconds' worth, every request takes one.
type rates struct {
	perSecond float64 // 0 = no bound, as of a nil one

	mu      sync.Mutex // held for no I/O
	buckets map[string]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// mostBuckets is how many buckets are kept before the full ones, which say nothing,
// are dropped.
const mostBuckets = 4096

// take counts one request of a principal at now and refuses it, with 429 and
// the seconds until the next, when there were too many.
func (l *rates) take(name string, now time.Time) error {
	if l == nil || l.perSecond <= 0 {
		return nil
	}
	full := math.Max(1, l.perSecond*burstSeconds)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buckets == nil {
		l.buckets = map[string]bucket{}
	}
	b, known := l.buckets[name]
	if !known {
		if len(l.buckets) >= mostBuckets {
			l.dropFull(full, now)
		}
		b = bucket{full, now}
	}
	b.tokens = math.Min(full, b.tokens+math.Max(0, now.Sub(b.at).Seconds())*l.perSecond)
	b.at = now
	short := 1 - b.tokens
	if short <= 0 {
		b.tokens--
	}
	l.buckets[name] = b
	if short <= 0 {
		return nil
	}
	return &failure{
		status: http.StatusTooManyRequests, code: "REQUEST_LIMIT_EXCEEDED",
		msg:   name + " sent more than " + strconv.FormatFloat(l.perSecond, 'f', -1, 64) + " requests a second to the API for too long",
		hint:  "send fewer, or raise the server's --api-rate",
		after: time.Duration(math.Ceil(short/l.perSecond)) * time.Second,
	}
}

func (l *rates) dropFull(full float64, now time.Time) {
	for name, b := range l.buckets {
		if b.tokens+now.Sub(b.at).Seconds()*l.perSecond >= full {
			delete(l.buckets, name)
		}
	}
}
