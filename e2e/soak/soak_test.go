package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestSoak is a short soak, another one each time, with an object store, its faults
// and the loss of the computer; TARN_SOAK_STORAGE=0 leaves these out.
// TARN_SOAK_MINUTES makes it longer and TARN_SOAK_SEED repeats the choices of one
// that failed; when each happens still depends on the machine.
func TestSoak(t *testing.T) {
	o := Options{Seed: rand.Uint64(), Dir: "/var/tmp", DiskMB: 8 << 10, Say: func(line string) { t.Log(line) }}
	if v := os.Getenv("TARN_SOAK_MINUTES"); v != "" {
		minutes, err := strconv.ParseFloat(v, 64)
		if err != nil {
			t.Fatalf("TARN_SOAK_MINUTES: %v", err)
		}
		o.Length = time.Duration(minutes * float64(time.Minute))
	}
	if v := os.Getenv("TARN_SOAK_SEED"); v != "" {
		seed, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("TARN_SOAK_SEED: %v", err)
		}
		o.Seed = seed
	}
	with := os.Getenv("TARN_SOAK_STORAGE") != "0"
	if program, err := filepath.Abs("../../build/bin/versitygw"); err != nil {
		t.Fatal(err)
	} else if _, err := os.Stat(program); err == nil && with {
		o.Storage = program
	}
	switch {
	case o.Length != 0:
	case o.Storage != "":
		o.Length = 30 * time.Second // and what the loss of the computer takes
	default:
		o.Length = 90 * time.Second
	}
	o.Tarn = filepath.Join(t.TempDir(), "tarn")
	if out, err := exec.Command("go", "build", "-o", o.Tarn, "../../cmd/tarn").CombinedOutput(); err != nil {
		t.Fatalf("build tarn: %v\n%s", err, out)
	}
	if err := Run(t.Context(), o); err != nil {
		t.Errorf("seed %d: %v", o.Seed, err)
	}
}
