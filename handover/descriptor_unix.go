//go:build unix

package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// adopt makes a value of package net of a descriptor, which stays open.
func adopt(fd int) (netSocket, error) {
	// First, so that Accept of another process that has the socket does not block.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	// A copy for os.File to close. Its Fd leaves a descriptor that is non-blocking as
	// it is (source: os.newFile).
	copied, err := dup(fd)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(copied), "socket")
	defer f.Close()
	var s any
	if kind == unix.SOCK_STREAM || kind == unix.SOCK_SEQPACKET {
		s, err = net.FileListener(f)
	} else {
		s, err = net.FilePacketConn(f)
	}
	if err != nil {
		return nil, err
	}
	return s.(netSocket), nil
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
		if err := control(f, func(fd int) (err error) {
			s.netSocket, err = adopt(fd)
			return err
		}); err != nil {
			closeSockets(list)
			return nil, fmt.Errorf("socket %d of Files: %w", i, err)
		}
		_, s.isPacket = s.netSocket.(net.PacketConn)
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
	list, _ := unix.ParseSocketControlMessage(oob[:oobn]) // take reports what is missing
	for _, m := range list {
		fds, _ := unix.ParseUnixRights(&m)
		r.fds = append(r.fds, fds...)
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
}

// sendDescriptor sends a message with the descriptor of c, which is not copied: there
// may be none free.
func (l *link) sendDescriptor(m message, c syscall.Conn) error {
	b := m.encode()
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return control(c, func(fd int) error {
		n, _, err := l.conn.WriteMsgUnix(b, unix.UnixRights(fd), nil)
		if err == nil {
			_, err = l.conn.Write(b[n:])
		}
		return err
	})
}

// open reports whether the other end of the connection is open, and has sent nothing.
func (l *link) open() bool {
	return errors.Is(control(l.conn, func(fd int) error {
		_, err := unix.Read(fd, make([]byte, 1))
		return err
	}), unix.EAGAIN)
}

// unlinkOnClose sets whether Close removes the file of a Unix listener. A parent's file
// always stays.
func (s *socket) unlinkOnClose(unlink bool) {
	if l, ok := s.netSocket.(*net.UnixListener); ok && !(unlink && s.parent) {
		l.SetUnlinkOnClose(unlink)
	}
}

func (s *socket) setNonblock() {
	_ = control(s, func(fd int) error { return unix.SetNonblock(fd, true) }) // an error says that it is closed
}

// pending reports whether connections wait in a listener's queue.
func (s *socket) pending() bool {
	n := 0
	err := control(s, func(fd int) (err error) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err
	})
	return n > 0 || errors.Is(err, unix.EINTR) // which tells nothing
}

// hide makes the kernel find a listener for no new connection. A Unix listener loses
// its file.
func (s *socket) hide() error {
	l, ok := s.netSocket.(*net.UnixListener)
	if !ok {
		return hideTCP(s)
	}
	path := l.Addr().String()
	if strings.HasPrefix(path, "@") {
		return fmt.Errorf("%w for an abstract name", errors.ErrUnsupported)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeStale removes a Unix socket's file that no socket listens on. Processes of one
// Name do this one after the other, as only one is about to be current.
func removeStale(ctx context.Context, r request) bool {
	file, err := os.Lstat(r.address)
	if err != nil || file.Mode().Type() != os.ModeSocket { // a file of another kind also refuses
		return false
	}
	for since := time.Now(); ; {
		conn, err := new(net.Dialer).DialContext(ctx, r.network, r.address)
		if err == nil {
			conn.Close()
		}
		switch {
		case !errors.Is(err, syscall.ECONNREFUSED):
			return false
		case time.Since(since) >= staleAfter:
			now, err := os.Lstat(r.address)
			return err == nil && os.SameFile(file, now) && os.Remove(r.address) == nil
		case !pause(ctx.Done(), 10*time.Millisecond):
			return false
		}
	}
}
