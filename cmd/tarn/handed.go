package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute"
)

// A node that is restarted executes its program again, the one that stands at
// its path by then. Process id, supervisor and the descriptors of the mounts
// stay; what else the program must know comes through a file in memory whose
// descriptor is its flag.
const handedFlag = "handed"

// readHanded reads what the program before this one left; nil without one.
func readHanded(fd int) (*compute.Handed, error) {
	if fd == 0 {
		return nil, nil
	}
	f := os.NewFile(uintptr(fd), handedFlag)
	if f == nil {
		return nil, tarn.Invalid("read what was handed over: %d is no descriptor", fd)
	}
	defer f.Close()
	h := new(compute.Handed)
	if err := json.NewDecoder(io.NewSectionReader(f, 0, 1<<32)).Decode(h); err != nil {
		return nil, fmt.Errorf("read what was handed over: %w", err)
	}
	return h, nil
}

// execute makes this process the node's program anew. It returns only when that
// is not possible; then nothing has happened.
func (c *serverConfig) execute(h *compute.Handed) error {
	if err := c.executeWith(h); err != nil {
		return fmt.Errorf("execute the node's program: %w", err)
	}
	return nil
}

func (c *serverConfig) executeWith(h *compute.Handed) (err error) {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	fds, err := h.Devices()
	if err != nil {
		return err
	}
	memory, err := unix.MemfdCreate("tarn-handed", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(memory), handedFlag)
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(b); err != nil {
		return err
	}
	// Nothing else is executed meanwhile: the fleet is closed.
	fds = append(fds, memory)
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
		defer unix.CloseOnExec(fd)
	}
	args := append([]string{exe}, c.command("node")...)
	return unix.Exec(exe, append(args, "--"+handedFlag, strconv.Itoa(memory)), os.Environ())
}

// restartable is a fleet that is only restarted when the program at its path
// can run: a broken one would take every compute with it.
type restartable struct{ *compute.Fleet }

func (r restartable) Restart(ctx context.Context, from string) (string, error) {
	if from != "" {
		if err := tryProgram(ctx); err != nil {
			return "", err
		}
	}
	return r.Fleet.Restart(ctx, from)
}

func tryProgram(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(limit, exe, "version").CombinedOutput(); err != nil {
		return tarn.Unavailable("restart the node: %s version: %w: %s", exe, err, out).WithHint("put a program there that runs on this computer; nothing was restarted")
	}
	return nil
}
