//go:build !linux

package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
)

// Other systems: listeners can be opened, served and closed. TakeOver is not
// written for any of them yet, and without it nothing is promised for Drain.

// TakeOver sends new connections to the newest listeners of this address. It is
// for Linux only so far: here it returns an error that wraps
// errors.ErrUnsupported, or net.ErrClosed after Drain or Close.
func (g *Group) TakeOver(_ context.Context, members int) error {
	if members < 0 || members > 0 && members < len(g.listeners) {
		return fmt.Errorf("group: %w: %d members, and the group has %d listeners", os.ErrInvalid, members, len(g.listeners))
	}
	if g.isEnded() {
		return &net.OpError{Op: "take over", Net: g.network, Addr: g.Addr(), Err: net.ErrClosed}
	}
	return unsupported()
}

// Drain closes the group and returns an error that wraps errors.ErrUnsupported, as
// connections may be lost.
func (g *Group) Drain(context.Context) error {
	if err := g.Close(); err != nil {
		return err
	}
	return unsupported()
}

// DrainListener closes a plain listener and returns an error that wraps
// errors.ErrUnsupported, as connections may be lost.
func DrainListener(_ context.Context, l net.Listener) error {
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
	hold   struct{}
	lock   struct{}
	probes struct{}
)

func (*probes) swallow(*net.TCPConn, *member) bool   { return false }
func (*lock) release()                               {}
func acquire(context.Context, string) (*lock, error) { return nil, nil }
func addressKey(string, *net.TCPAddr) string         { return "" }
func detach(*member) error                           { return nil }
func blind(*net.TCPListener) error                   { return nil }
func cookieOf(*net.TCPListener) (uint64, error)      { return 0, nil }
func (g *Group) stopHolding()                        {}
func (g *Group) releaseHold()                        {}
func (g *Group) detachHold() error                   { return nil }
