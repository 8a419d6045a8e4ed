package handover

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// hide makes the kernel find a listener for no new connection. A TCP listener is bound
// to an interface that does not exist, which needs no privilege once (Linux 5.7). Handshakes
// under way and the queue are not affected. A Unix listener loses its file.
func (s *socket) hide() error {
	if l, ok := s.listener.(*net.UnixListener); ok {
		return hidePath(l)
	}
	rc, err := s.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		const noInterface = math.MaxInt32
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, noInterface); err != nil {
			err = os.NewSyscallError("setsockopt", err)
			return
		}
		// gVisor takes unknown options without effect.
		if v, gerr := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); gerr != nil || v != noInterface {
			err = unix.ENOPROTOOPT
		}
	})
	if err != nil {
		err = fmt.Errorf("%w: SO_BINDTOIFINDEX: %w", errors.ErrUnsupported, err)
	}
	return errors.Join(cerr, err)
}
