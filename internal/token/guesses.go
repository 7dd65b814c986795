package token

import (
	"sync"
	"time"
)

// Guesses counts wrong secrets, so that guessing becomes slow: after a few free
// ones, whoever goes on must stay away, twice as long each time. The zero value
// is ready.
type Guesses struct {
	mu sync.Mutex
	by map[string]guessed
}

type guessed struct {
	n    int
	last time.Time
}

const (
	freeGuesses   = 5
	firstGuess    = time.Second
	longestGuess  = time.Minute
	guessMemory   = 15 * time.Minute
	guessBookSize = 8192 // keys remembered; an attacker who fills it slows nobody down for longer
)

// Wait is how long the one behind key must stay away; 0 = it may try.
func (g *Guesses) Wait(key string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.by[key]
	since := time.Since(c.last)
	if c.n < freeGuesses || since > guessMemory {
		return 0
	}
	return max(0, min(firstGuess<<min(c.n-freeGuesses, 10), longestGuess)-since)
}

// Wrong counts a wrong secret.
func (g *Guesses) Wrong(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.by == nil {
		g.by = make(map[string]guessed)
	}
	c := g.by[key]
	if now.Sub(c.last) > guessMemory {
		c.n = 0
	}
	if c.n == 0 && len(g.by) >= guessBookSize {
		g.makeRoom(now)
	}
	g.by[key] = guessed{n: c.n + 1, last: now}
}

// Right forgets what was wrong before.
func (g *Guesses) Right(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.by, key)
}

// makeRoom drops what is over, and when that is too little, any eighth of all.
func (g *Guesses) makeRoom(now time.Time) {
	for k, c := range g.by {
		if now.Sub(c.last) > guessMemory {
			delete(g.by, k)
		}
	}
	for k := range g.by {
		if len(g.by) < guessBookSize*7/8 {
			return
		}
		delete(g.by, k)
	}
}
