package e2e

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Open sessions of real clients are as they were after their compute was
// suspended, and after the whole node was killed.
func TestSessionsCarriedOver(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 3*time.Minute)
	in.tarn("project", "create", "shop")
	url := in.url("shop/production")
	cmd := exec.CommandContext(ctx, absolute(t, "../build/venv/bin/python"), filepath.Join("testdata", "carried.py"), url, "2")
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	ready := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("the clients say %q, want %q: %v", lines.Text(), want, cmd.Wait())
		}
	}
	ready("ready")
	in.tarn("endpoint", "suspend", "shop")
	if s := in.tarn("connections"); strings.Count(s, "parked") != 3 {
		t.Errorf("tarn connections:\n%s", s)
	}
	fmt.Fprintln(stdin)

	ready("ready")
	c := in.onSocket(ctx, t)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n < 3; { // once they are silent the gateway asks what they have
		const sqlAsked = `SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' AND starts_with(query, '/* tarn: what this session must')`
		if err := c.QueryRow(ctx, sqlAsked).Scan(&n); err != nil {
			t.Fatal(err)
		}
		<-tick.C
	}
	in.kill(t, "node")
	for strings.Count(in.tarn("connections"), "parked") != 3 { // who speaks before that loses its statement
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the sessions are not carried over:\n%s", in.tarn("connections"))
		}
	}
	fmt.Fprintln(stdin)
	ready("done")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
