package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// clientMark makes this program the client that does the operations: another
// process, as Postgres is one.
const clientMark = "client"

// filePages is the length of the client's file: 64 MB.
const filePages = 8192

func timelineID(s string) tarn.TimelineID { return tarn.TimelineID(s) }

// runClient fills a file, says so, waits for a line, does an operation for some
// seconds and prints how many times, how many microseconds that took and how many of processor time.
func runClient(context.Context) error {
	path, op := os.Args[2], os.Args[3]
	seconds, err := strconv.Atoi(os.Args[4])
	if err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	page := make([]byte, layer.PageSize)
	for i := range page {
		page[i] = byte(i*7 + i>>8)
	}
	for i := range filePages {
		page[0] = byte(i)
		if _, err := unix.Pwrite(fd, page, int64(i)*layer.PageSize); err != nil {
			return err
		}
	}
	if err := unix.Fsync(fd); err != nil {
		return err
	}
	do, ok := map[string]func(i int) (int, error){
		"pwrite": func(i int) (int, error) { return 1, pwrite(fd, page, i) },
		"lseek-after-pwrite": func(i int) (int, error) {
			err := pwrite(fd, page, i)
			if err == nil {
				_, err = unix.Seek(fd, 0, unix.SEEK_END)
			}
			return 1, err
		},
		"read-miss": func(i int) (int, error) {
			const batch = 64
			if i%batch == 0 {
				if err := unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM); err != nil {
					return 0, err
				}
				if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
					return 0, err
				}
			}
			_, err := unix.Pread(fd, page, int64(i*4099%filePages)*layer.PageSize)
			return 1, err
		},
		"cold-scan": func(int) (int, error) {
			if err := errors.Join(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), evict(filepath.Dir(filepath.Dir(path)))); err != nil {
				return 0, err
			}
			for i := range filePages {
				if _, err := unix.Pread(fd, page, int64(i)*layer.PageSize); err != nil {
					return 0, err
				}
			}
			return filePages, nil
		},
		"pwrite-fsync": func(i int) (int, error) {
			err := pwrite(fd, page, i)
			if err == nil {
				err = unix.Fdatasync(fd)
			}
			return 1, err
		},
	}[op]
	if !ok {
		return fmt.Errorf("no operation %s", op)
	}
	return measure(do, time.Duration(seconds)*time.Second)
}

// evict drops every file below dir, the store's segments, from the page cache.
func evict(dir string) error {
	return filepath.WalkDir(filepath.Join(dir, "store"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	})
}

func pwrite(fd int, page []byte, i int) error {
	page[0], page[1] = byte(i), byte(i>>8)
	_, err := unix.Pwrite(fd, page, int64(i%filePages)*layer.PageSize)
	return err
}

func measure(do func(i int) (int, error), d time.Duration) error {
	fmt.Println("filled")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	cpu, err := processorTime()
	if err != nil {
		return err
	}
	began, count := time.Now(), 0
	for i := 0; time.Since(began) < d; i++ {
		n, err := do(i)
		if err != nil {
			return err
		}
		count += n
	}
	wall := time.Since(began)
	used, err := processorTime()
	if err != nil {
		return err
	}
	_, err = fmt.Println(count, wall.Microseconds(), used-cpu)
	return err
}
