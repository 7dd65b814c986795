package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// bucket is an object store of a run: a real S3 server in a directory beside the
// disk, behind a proxy with faults.
type bucket struct {
	server *exec.Cmd
	out    strings.Builder // of the server; read when it has ended
	proxy  *proxy
	dir    string
}

const (
	bucketName  = "soak"
	bucketKey   = "tarn"
	bucketLease = 8 * time.Second
	faultShare  = 60 // thousandths of the requests: the client tries thrice
)

// openBucket starts the server and the proxy. program is versitygw, which keeps
// ETags in extended attributes of files in dir.
func openBucket(ctx context.Context, program, dir string, seed uint64) (*bucket, error) {
	b := &bucket{dir: filepath.Join(dir, "bucket")}
	if err := os.MkdirAll(filepath.Join(b.dir, bucketName), 0o755); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	b.server = exec.Command(program, "--port", addr, "--region", "us-east-1", "--health", "/health", "--keep-alive", "--quiet", "posix", b.dir)
	b.server.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+bucketKey, "ROOT_SECRET_KEY="+bucketKey)
	b.server.Stdout, b.server.Stderr = &b.out, &b.out
	b.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.server.Start(); err != nil {
		return nil, fmt.Errorf("start S3 server: %w", err)
	}
	err = await(ctx, "the S3 server", func() error {
		r, err := http.Get("http://" + addr + "/health")
		if err == nil {
			err = r.Body.Close()
		}
		return err
	})
	if err == nil {
		b.proxy, err = startProxy("http://"+addr, seed)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bucket) close() error {
	if b == nil {
		return nil
	}
	err := b.server.Process.Kill()
	_ = b.server.Wait() // it was killed
	http.DefaultClient.CloseIdleConnections()
	if b.proxy != nil {
		err = errors.Join(err, b.proxy.close())
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// flags name the store to tarn up.
func (b *bucket) flags() []string {
	return []string{"--storage", "s3://" + bucketName + "/home", "--storage-endpoint", "http://" + b.proxy.addr, "--storage-region", "us-east-1", "--storage-lease", bucketLease.String()}
}

func (b *bucket) env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + bucketKey, "AWS_SECRET_ACCESS_KEY=" + bucketKey}
}

// archived waits until the object store has everything that was acknowledged.
// Nobody works meanwhile.
func (s *ground) archived(ctx context.Context) error {
	began, seen := time.Now(), 0
	return await(ctx, "the storage to have everything", func() error {
		out, err := s.in.tarn(ctx, "status", "--json")
		if err != nil {
			return err
		}
		var st struct {
			Storage struct {
				Control  float64 `json:"control_seconds"`
				Branches []struct {
					LagBytes int64   `json:"lag_bytes"`
					LagSecs  float64 `json:"lag_seconds"`
					Waiting  bool    `json:"waiting"`
					Problem  string  `json:"problem"`
				} `json:"branches"`
			} `json:"storage"`
		}
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			return err
		}
		if st.Storage.Control == 0 || st.Storage.Control+1 > time.Since(began).Seconds() {
			seen = 0
			return fmt.Errorf("the control database was copied %.1f s ago", st.Storage.Control)
		}
		for _, b := range st.Storage.Branches {
			// The age is that of the last answer: one that was asked since counts.
			if b.LagBytes > 0 || b.LagSecs+1 > time.Since(began).Seconds() || b.Waiting || b.Problem != "" {
				seen = 0
				return fmt.Errorf("%+v", b)
			}
		}
		if seen++; seen < 3 || len(st.Storage.Branches) == 0 { // the first answers may be of before
			return errors.New("not yet seen often enough")
		}
		return nil
	})
}

// loseComputer kills everything at once and removes the data directory. What the
// object store has brings all of it back.
func (s *soak) loseComputer(ctx context.Context) error {
	s.rest()
	began := time.Now()
	took := func(what string) {
		s.say("lose the computer: %s after %s", what, time.Since(began).Round(time.Millisecond))
		began = time.Now()
	}
	if err := s.archived(ctx); err != nil {
		return err
	}
	took("all archived")
	frozen := map[int]bool{}
	for len(s.in.left()) > 0 {
		for pid := range s.in.left() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may end in between
			if thaw(pid) {
				frozen[pid] = true
			}
		}
	}
	if err := s.in.unmount(); err != nil {
		return err
	}
	if err := os.RemoveAll(s.in.data); err != nil {
		return err
	}
	took(fmt.Sprintf("all gone, %d of them frozen,", len(frozen)))
	if err := s.in.up(ctx, "--take-over"); err != nil {
		return err
	}
	took("taken over")
	for _, b := range append([]*branch{s.main}, s.children...) {
		if err := s.judge(ctx, b); err != nil {
			return err
		}
		took(b.name + " judged")
	}
	s.work(ctx)
	return s.progress(ctx, 10)
}

// thaw lets a killed process end that was frozen: in a control group of version 1
// SIGKILL waits for that.
func thaw(pid int) (frozen bool) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // it may have ended
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] == "freezer" && f[2] != "/" {
			file := filepath.Join("/sys/fs/cgroup/freezer", f[2], "freezer.state")
			was, _ := os.ReadFile(file)                 // it may be gone
			_ = os.WriteFile(file, []byte("THAWED"), 0) // tried again
			frozen = frozen || strings.HasPrefix(string(was), "FR")
		}
	}
	return frozen
}

// checkStorage verifies everything here and in the bucket, while it is written.
func (s *soak) checkStorage(ctx context.Context) error {
	if s.in.bucket == nil {
		_, err := s.in.tarn(ctx, "store", "check")
		return err
	}
	began, before := time.Now(), s.in.bucket.proxy.delays()
	_, err := s.in.tarn(ctx, "store", "check")
	s.say("check the storage: %s, of which faults may have made %s", time.Since(began).Round(time.Millisecond), s.in.bucket.proxy.delays()-before)
	if err != nil && strings.Contains(err.Error(), "is damaged") {
		return finding(err.Error())
	}
	return err
}
