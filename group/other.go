//go:build !darwin && !freebsd && !linux && !netbsd && !openbsd

package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
)

// Other systems: listeners can be opened, served and closed. Nothing steers new
// connections there, and so nothing can be promised for a Drain.

func (g *Group) takeOver(context.Context, int) error {
	if g.isEnded() {
		return &net.OpError{Op: "take over", Net: g.network, Addr: g.Addr(), Err: net.ErrClosed}
	}
	return unsupported()
}

func (g *Group) drainAll(context.Context) error {
	if err := g.Close(); err != nil {
		return err
	}
	return unsupported()
}

func drainListener(_ context.Context, l net.Listener) error {
	if l == nil {
		return fmt.Errorf("group: %w: no listener", os.ErrInvalid)
	}
	if err := l.Close(); err != nil {
		return err
	}
	return unsupported()
}

func unsupported() error {
	return fmt.Errorf("group: %w: new connections cannot be steered on %s", errors.ErrUnsupported, runtime.GOOS)
}

type (
	steered struct{}
	lock    struct{}
)

func (*lock) release()                                                  {}
func (*Group) lockAddress(context.Context, *net.TCPAddr) (*lock, error) { return nil, nil }
func detach(*member) error                                              { return nil }
func blind(*net.TCPListener) error                                      { return nil }
func cookieOf(*net.TCPListener) (uint64, error)                         { return 0, nil }
func (g *Group) stopHolding()                                           {}
func (g *Group) releaseHold()                                           { g.steered = steered{} }
func (g *Group) detachHold() error                                      { return nil }
func (g *Group) standIn(*listener)                                      {}
