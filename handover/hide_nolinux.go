//go:build unix && !linux

package handover

import (
	"errors"
	"fmt"
	"net"
)

// hide has nothing for TCP here: no option makes a listener invisible.
func (s *socket) hide() error {
	if l, ok := s.listener.(*net.UnixListener); ok {
		return hidePath(l)
	}
	return fmt.Errorf("%w on this system", errors.ErrUnsupported)
}
