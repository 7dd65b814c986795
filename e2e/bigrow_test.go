package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// rowBytesEnv asks for rows as large as Postgres makes them: 1000000000.
const rowBytesEnv = "TARN_ROW_BYTES"

// A large row passes through the gateway without being held there, both ways.
func TestLargeRow(t *testing.T) {
	size := 48 << 20
	if s := os.Getenv(rowBytesEnv); s != "" {
		var err error
		if size, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	in := start(t)
	ctx := testContext(t, 5*time.Minute)
	in.tarn("project", "create", "shop")
	if size > 48<<20 {
		in.tarn("endpoint", "update", "shop/production", "--min-cu", "4", "--max-cu", "4") // Postgres holds it several times
		in.tarn("endpoint", "suspend", "shop/production")
	}
	c := in.connect(ctx, in.url("shop/production"))
	before := in.peakMemory(t, "control")
	var got string
	if err := c.QueryRow(ctx, "SELECT repeat('x', $1)", size).Scan(&got); err != nil || len(got) != size {
		t.Fatalf("a row of %d bytes: %d came, %v", size, len(got), err)
	}
	var length int
	if err := c.QueryRow(ctx, "SELECT length($1::text)", got[:size/2]).Scan(&length); err != nil || length != size/2 {
		t.Errorf("a value of %d bytes: %d came, %v", size/2, length, err)
	}
	grew := in.peakMemory(t, "control") - before
	t.Logf("the gateway's process grew by %d KiB", grew)
	if grew > 24<<10 {
		t.Errorf("the gateway's process grew by %d KiB for a row of %d bytes", grew, size)
	}
}

// peakMemory is the most memory a process of Tarn ever had, in KiB.
func (in *instance) peakMemory(t *testing.T, name string) int {
	t.Helper()
	var s status
	in.tarnJSON(&s, "status")
	for _, p := range s.Processes {
		if p.Role != name {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
				kb, err := strconv.Atoi(f[1])
				if err != nil {
					t.Fatal(err)
				}
				return kb
			}
		}
	}
	t.Fatalf("no process %s in %+v", name, s.Processes)
	return 0
}
