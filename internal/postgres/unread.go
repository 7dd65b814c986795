package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The parts of the kernel's sock_diag(7) for unix sockets that we need.
const (
	sockDiagByFamily = 20
	diagShowName     = 1 << 0
	diagShowQueues   = 1 << 4
	diagAttrName     = 0
	diagAttrQueues   = 4
	diagHead         = 16 // bytes of struct unix_diag_msg
)

// Unread tells whether a client waits for the server: it connected, or sent
// something, that Postgres has not read. Nothing is asked of Postgres, which may
// be frozen: the kernel lists its sockets with what is queued in them.
func (s *Server) Unread() (bool, error) {
	waits, err := unread(socketPath(s.c.SocketDir, s.c.Port))
	if err != nil {
		return false, fmt.Errorf("look for unread data of Postgres %d: %w", s.proc.pid, err)
	}
	return waits, nil
}

func unread(socket string) (bool, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(5 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return false, err
	}
	// nlmsghdr: length u32, type u16, flags u16, sequence u32, port u32
	// unix_diag_req: family u8, protocol u8, pad u16, states u32, inode u32, show u32, cookie [2]u32
	ne := binary.NativeEndian
	q := make([]byte, unix.SizeofNlMsghdr+24)
	ne.PutUint32(q, uint32(len(q)))
	ne.PutUint16(q[4:], sockDiagByFamily)
	ne.PutUint16(q[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	q[16] = unix.AF_UNIX
	ne.PutUint32(q[20:], 1<<32-1)
	ne.PutUint32(q[28:], diagShowName|diagShowQueues)
	if err := unix.Sendto(fd, q, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	buf := make([]byte, 64<<10)
	waits := false
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, err
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(ne.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return false, errors.New("a message of the kernel is cut off")
			}
			body := b[unix.SizeofNlMsghdr:size]
			switch ne.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return waits, nil
			case unix.NLMSG_ERROR:
				if len(body) < 4 {
					return false, errors.New("the kernel refuses to list sockets")
				}
				return false, unix.Errno(-int32(ne.Uint32(body)))
			case sockDiagByFamily:
				waits = waits || queued(body, socket)
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// queued tells whether one listed socket is the server's and has something in
// its receive queue; that of a listening socket holds connections.
func queued(b []byte, socket string) bool {
	ne := binary.NativeEndian
	if len(b) < diagHead {
		return false
	}
	ours, waits := false, false
	for b = b[diagHead:]; len(b) >= 4; {
		size := int(ne.Uint16(b)) // rtattr: length u16, type u16
		if size < 4 || size > len(b) {
			break
		}
		value := b[4:size]
		switch ne.Uint16(b[2:]) {
		case diagAttrName:
			ours = string(value) == socket || string(value) == socket+"\x00"
		case diagAttrQueues:
			waits = len(value) >= 4 && ne.Uint32(value) > 0
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return ours && waits
}
