package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// proxy stands before an object store and lets a share of its requests fail, as
// networks and servers do.
type proxy struct {
	server *http.Server
	addr   string
	ended  chan struct{} // closed at its end: whoever waits goes
	served chan struct{} // closed when Serve has returned
	share  atomic.Uint64 // of requests with a fault, in thousandths
	faults [faultCount]atomic.Int64

	mu sync.Mutex // guards r
	r  *rand.Rand
}

// fault is what happens to one request.
type fault int

const (
	refused fault = iota // 503, and nothing happened
	lost                 // it happened, and the connection ends without an answer
	late                 // it happened, and the answer does not come for a while; then the connection ends
	slow                 // it takes a while longer
	partial              // half of the answer comes, and the connection ends
	faultCount
)

var faultNames = [faultCount]string{"refused", "lost", "late", "slow", "partial"}

func (p *proxy) String() string {
	s := ""
	for i := range p.faults {
		s += fmt.Sprintf(" %s %d", faultNames[i], p.faults[i].Load())
	}
	return "faults of the storage:" + s
}

// startProxy begins to serve what is at target.
func startProxy(target string, seed uint64) (*proxy, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{addr: l.Addr().String(), ended: make(chan struct{}), served: make(chan struct{}), r: rand.New(rand.NewPCG(seed, 1))}
	forward := &httputil.ReverseProxy{
		// The host that was signed stays.
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		ModifyResponse: p.answer,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(forward, w, r) })}
	go func() {
		defer close(p.served)
		p.server.Serve(l) //nolint:errcheck // it ends with close, or its clients fail
	}()
	return p, nil
}

// close ends the proxy at once, whatever its clients wait for: they may be
// processes that were killed or stopped, which never hang up.
func (p *proxy) close() error {
	close(p.ended)
	err := p.server.Close()
	<-p.served
	return err
}

type faultKey struct{}

func (p *proxy) serve(forward http.Handler, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	f, some := fault(p.r.IntN(int(faultCount))), uint64(p.r.IntN(1000)) < p.share.Load()
	p.mu.Unlock()
	if !some {
		forward.ServeHTTP(w, r)
		return
	}
	p.faults[f].Add(1)
	switch f {
	case refused:
		http.Error(w, "<Error><Code>SlowDown</Code></Error>", http.StatusServiceUnavailable)
		return
	case slow:
		p.wait(r.Context(), slowBy)
	}
	forward.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), faultKey{}, f)))
}

// answer spoils the answer of what happened.
func (p *proxy) answer(r *http.Response) error {
	f, ok := r.Request.Context().Value(faultKey{}).(fault)
	if !ok {
		return nil
	}
	switch f {
	case late:
		p.wait(r.Request.Context(), lateBy)
		fallthrough
	case lost:
		return errors.New("the answer is lost")
	case partial:
		if r.ContentLength > 1 {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.LimitReader(r.Body, r.ContentLength/2), r.Body}
		}
	}
	return nil
}

// delays is how long requests were made to wait in all.
func (p *proxy) delays() time.Duration {
	return time.Duration(p.faults[late].Load())*lateBy + time.Duration(p.faults[slow].Load())*slowBy
}

const lateBy, slowBy = 5 * time.Second, 2 * time.Second

// wait ends early with the client or the proxy.
func (p *proxy) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-p.ended:
	}
}
