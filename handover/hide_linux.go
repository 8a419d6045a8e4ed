package handover

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// hideTCP binds a listener to an interface that does not exist, which needs no privilege
// once (Linux 5.7). Then the kernel finds it for no new connection. Handshakes under way
// and the queue are not affected.
func hideTCP(s *socket) error {
	return control(s, func(fd int) error {
		const noInterface = math.MaxInt32
		err := os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, noInterface))
		if err == nil {
			// gVisor takes unknown options without effect.
			if v, gerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); gerr != nil || v != noInterface {
				err = unix.ENOPROTOOPT
			}
		}
		if err != nil {
			return fmt.Errorf("%w: SO_BINDTOIFINDEX: %w", errors.ErrUnsupported, err)
		}
		return nil
	})
}
