// Command soak runs Tarn under transfers between accounts while it forks
// branches at now, at past times and at LSNs, restores them, kills processes,
// fills the disk, suspends computes and deletes branches, for as long as it is
// told. Every branch it makes is checked against a ledger of what was
// acknowledged when: money is neither made nor lost, every transfer
// acknowledged before the branch's moment is in it, none that began after it
// is, and what it began with never changes. It knows Tarn only as a user does:
// the program, its processes and its Postgres.
//
//	go run ./e2e/soak -tarn build/tarn [-minutes N] [-seed N] [-storage]
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o Options
	var err error
	minutes := flag.Float64("minutes", 10, "how long")
	flag.Uint64Var(&o.Seed, "seed", rand.Uint64(), "of all choices")
	flag.StringVar(&o.Tarn, "tarn", "build/tarn", "the program")
	flag.StringVar(&o.PGBin, "pg-bin", "", "directory of Postgres programs (default: what tarn up finds)")
	flag.StringVar(&o.Dir, "dir", "/var/tmp", "where the disk image and the logs go")
	flag.Int64Var(&o.DiskMB, "disk", 8<<10, "size of the disk, MiB; as root it is a file system of its own in a sparse file")
	flag.StringVar(&o.KeepIn, "keep", "", "copy logs and the list of steps of a failed run to this directory")
	storage := flag.Bool("storage", false, "with an object store (an S3 server, build/bin/versitygw: make setup-test), faults before it, and the loss of the whole data directory")
	flag.Parse()
	if *storage {
		if o.Storage, err = filepath.Abs(filepath.Join(filepath.Dir(o.Tarn), "bin", "versitygw")); err != nil {
			fmt.Fprintf(os.Stderr, "soak: %v\n", err)
			os.Exit(2)
		}
	}
	o.Length = time.Duration(*minutes * float64(time.Minute))
	o.Say = func(line string) { fmt.Println(line) }
	if o.Tarn, err = filepath.Abs(o.Tarn); err == nil {
		err = Run(ctx, o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "soak: %v\nagain: make soak ARGS=\"-seed %d -minutes %g -storage=%t\"\n", err, o.Seed, *minutes, *storage)
		os.Exit(1)
	}
}
