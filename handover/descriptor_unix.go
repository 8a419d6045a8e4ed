//go:build unix

package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// adopt makes a value of package net of a descriptor, which stays open.
func adopt(fd int) (l net.Listener, p net.PacketConn, err error) {
	// First, so that Accept of another process that has the socket does not block.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, nil, os.NewSyscallError("getsockopt", err)
	}
	// A copy for os.File to close. Its Fd leaves a descriptor that is non-blocking as
	// it is (source: os.newFile).
	copied, err := dup(fd)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(copied), "socket")
	defer f.Close()
	if kind == unix.SOCK_STREAM || kind == unix.SOCK_SEQPACKET {
		l, err = net.FileListener(f)
	} else {
		p, err = net.FilePacketConn(f)
	}
	return l, p, err
}

func dup(fd int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	copied, err := unix.Dup(fd)
	if err != nil {
		return -1, os.NewSyscallError("dup", err)
	}
	unix.CloseOnExec(copied)
	return copied, nil
}

// adoptFiles copies the sockets of a parent.
func adoptFiles(files []*os.File) (list []*socket, err error) {
	for i, f := range files {
		s := &socket{parent: true}
		// Not f.Fd, which may make the socket blocking for all who hold it.
		rc, err := f.SyscallConn()
		if err == nil {
			cerr := rc.Control(func(fd uintptr) { s.listener, s.packet, err = adopt(int(fd)) })
			err = errors.Join(err, cerr)
		}
		if err != nil {
			closeSockets(list)
			return nil, fmt.Errorf("socket %d of Files: %w", i, err)
		}
		s.isPacket = s.packet != nil
		list = append(list, s)
	}
	return list, nil
}

// A receiver reads from a connection and keeps the descriptors that arrive, one with
// each message.
type receiver struct {
	conn *net.UnixConn
	fds  []int
}

func (r *receiver) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(b, oob)
	if oobn > 0 {
		list, perr := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range list {
			fds, rerr := unix.ParseUnixRights(&m)
			r.fds = append(r.fds, fds...)
			perr = errors.Join(perr, rerr)
		}
		if err == nil {
			err = perr
		}
	}
	if flags&unix.MSG_CTRUNC != 0 && err == nil {
		// This process has no room for it. The bytes would make io.ReadFull drop the error.
		return 0, os.NewSyscallError("recvmsg", unix.EMFILE)
	}
	return n, err
}

func (r *receiver) take() (int, error) {
	if len(r.fds) != 1 {
		return -1, fmt.Errorf("a message came with %d descriptors", len(r.fds))
	}
	fd := r.fds[0]
	r.fds = nil
	return fd, nil
}

func (r *receiver) close() {
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	r.fds = nil
}

// sendDescriptor sends a message with the descriptor of sc, which is not copied: there
// may be none free.
func (l *link) sendDescriptor(m message, sc syscall.Conn) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		var n int
		if n, _, err = l.conn.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil); err == nil {
			_, err = l.conn.Write(b[n:])
		}
	})
	return errors.Join(cerr, err)
}

// open looks whether the other end of the connection is open, and has sent nothing.
func (l *link) open() bool {
	rc, err := l.conn.SyscallConn()
	if err != nil {
		return false
	}
	cerr := rc.Read(func(fd uintptr) bool {
		_, err = unix.Read(int(fd), make([]byte, 1))
		return true
	})
	return cerr == nil && errors.Is(err, unix.EAGAIN)
}

func (s *socket) setNonblock() error {
	rc, err := s.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), true) })
	return errors.Join(cerr, err)
}

// pending tells whether connections wait in a listener's queue.
func (s *socket) pending() (bool, error) {
	rc, err := s.SyscallConn()
	if err != nil {
		return false, err
	}
	n := 0
	cerr := rc.Control(func(fd uintptr) {
		list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if n, err = unix.Poll(list, 0); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		err = os.NewSyscallError("poll", err)
	})
	return n > 0, errors.Join(cerr, err)
}

func isV6Only(c syscall.RawConn) (v6only bool, err error) {
	cerr := c.Control(func(fd uintptr) {
		var v int
		v, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		v6only, err = v != 0, os.NewSyscallError("getsockopt", err)
	})
	return v6only, errors.Join(cerr, err)
}
