package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tarndb/tarn"
)

// A node that is killed while it starts and stops computes ends at once, whatever
// it was doing with its own mounts, and the next one works.
func TestNodeKilledWhileStarting(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 10*time.Minute)
	var endpoints []tarn.EndpointName
	for i := range 3 {
		project := fmt.Sprintf("p%d", i)
		in.tarn("project", "create", project)
		endpoints = append(endpoints, tarn.ProjectName{Project: project}.Branch(tarn.DefaultBranch).Endpoint(tarn.DefaultEndpoint))
	}
	c := in.client()
	work, stop := context.WithCancel(ctx)
	defer stop()
	var churn sync.WaitGroup
	for _, e := range endpoints {
		churn.Go(func() {
			for work.Err() == nil {
				// What a killed node does not answer is asked again.
				_, _ = c.Wake(work, e)
				_ = c.Suspend(work, e)
			}
		})
	}
	for round := range rounds(t) * 3 / 2 {
		// Until a node answers; the others suspend what we wake.
		if _, err := c.Wake(ctx, endpoints[round%len(endpoints)]); err != nil && !strings.Contains(err.Error(), "it was suspended") {
			t.Errorf("round %d: %v", round, err)
		}
		pause(ctx, time.Duration(rand.IntN(400))*time.Millisecond)
		in.killWhole(in.record().Node.PID)
	}
	stop()
	churn.Wait()
	// The node runs again when it answers, and stands in the record.
	if _, err := c.Wake(ctx, endpoints[0]); err != nil {
		t.Error(err)
	}
	r := in.record()
	for _, pid := range []int{r.Up.PID, r.Control.PID, r.Node.PID} {
		in.killWhole(pid)
	}
	in.up()
	for _, e := range endpoints {
		if _, err := c.Wake(ctx, e); err != nil {
			t.Errorf("after the next tarn up: %v", err)
		}
	}
}

// pause waits; when a kill comes is what the test varies.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// killWhole kills a process and waits until its last thread is gone.
func (in *instance) killWhole(pid int) {
	in.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		in.t.Logf("kill %d: %v", pid, err) // it has ended by itself, or is being started again
		return
	}
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		threads := threadsOf(pid)
		if len(threads) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-patience.C:
			in.t.Fatalf("node %d was killed and does not end: %s", pid, strings.Join(threads, "; "))
		}
	}
}

// threadsOf lists the threads of a process that have not ended, with what they
// wait for.
func threadsOf(pid int) (all []string) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "task")
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name(), "stat"))
		if err != nil || strings.Contains(string(b), ") Z ") || strings.Contains(string(b), ") X ") {
			continue
		}
		stack, _ := os.ReadFile(filepath.Join(dir, e.Name(), "stack"))
		all = append(all, string(b)+string(stack))
	}
	return all
}
