package reuse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

// Listen is [net.ListenConfig.Listen] with c's options: network is "tcp", "tcp4",
// "tcp6", "unix" or "unixpacket", port 0 lets the kernel choose, and the
// listener's Addr tells which port it chose. ctx is for resolving a host name.
//
// Options are set before the bind. As in package net, a TCP listener on Linux is
// a Multipath TCP listener where the kernel can make one, and a plain one
// otherwise.
//
// The error is a [*net.OpError], as in package net. One that is about an option
// contains an [*OptionError]; see [Config.Control] and [Config.Check]. No socket
// is left behind.
func (c Config) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if err := c.ready(network, address, false); err != nil {
		return nil, opError("listen", network, err)
	}
	s := optionSetter{config: c, checked: true}
	l, err := s.listenConfig().Listen(ctx, network, address)
	if err != nil {
		return nil, s.bothErrors(err)
	}
	return l, nil
}

// ListenPacket is [net.ListenConfig.ListenPacket] with c's options: network is
// "udp", "udp4", "udp6", or "unixgram" or an "ip" network, where every option
// that is On is unsupported. Errors are as for [Config.Listen].
//
// With port 0 the socket never gets a port that another socket of this address has,
// whichever of Addr, Port and PortLB is On or Prefer. Linux would give that out to
// sockets that share, so there the socket binds first and shares afterwards. gVisor
// ignores what is set after the bind: there On is unsupported with port 0, and Prefer
// does without. The other kernels look for a free port by themselves (measured on
// FreeBSD 14.0 and NetBSD 7.99, from source on OpenBSD, DragonFly, macOS and illumos;
// not known for AIX, and for Windows with Addr On).
func (c Config) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	if err := c.ready(network, address, false); err != nil {
		return nil, opError("listen", network, err)
	}
	s := optionSetter{config: c, checked: true, setAfterBind: true}
	p, err := s.listenConfig().ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if s.pending == 0 {
		return p, nil
	}
	if err := s.setPending(p.(syscall.Conn)); err != nil {
		p.Close()
		return nil, &net.OpError{Op: "listen", Net: network, Addr: p.LocalAddr(), Err: err}
	}
	return p, nil
}

// ListenConfig returns base with a Control function that sets c's options and
// then calls base's Control, if it has one. Everything else of base is kept. If an
// option that is On is not in force any more after base's Control has run, the error
// is an [*OptionError] that wraps [ErrConflict].
//
// It fails with an [*OptionError] if Check does, or if an option is On that no
// listener can have on this system. If there is nothing to be set on this system,
// it returns base as it is. See [Config.Control] for what the Control function
// refuses.
func (c Config) ListenConfig(base net.ListenConfig) (net.ListenConfig, error) {
	if err := c.ready("", "", false); err != nil {
		return base, err
	}
	if c.idle() {
		return base, nil
	}
	next := base.Control
	if next == nil {
		base.Control = c.Control
		return base, nil
	}
	base.Control = func(network, address string, rc syscall.RawConn) error {
		s := optionSetter{config: c}
		return s.controlThen(network, address, rc, func() error { return next(network, address, rc) })
	}
	return base, nil
}

// ready tells whether c can be used for a listener, or for a dialed socket, as
// far as that is known without a socket.
func (c Config) ready(network, address string, dial bool) error {
	if err := c.Check(); err != nil {
		return err
	}
	// The kernel would take the part before the NUL, and leave its file behind.
	if strings.HasPrefix(network, "unix") && !strings.HasPrefix(address, "@") && strings.IndexByte(address, 0) > 0 {
		return syscall.EINVAL
	}
	return c.possible(network, dial)
}

func (s *optionSetter) listenConfig() *net.ListenConfig {
	if s.config.idle() {
		return &net.ListenConfig{}
	}
	return &net.ListenConfig{Control: s.control}
}

// bothErrors adds to the error of Listen the one that Control returned for an
// MPTCP socket, which package net forgets when it tries plain TCP.
func (s *optionSetter) bothErrors(err error) error {
	var op *net.OpError
	if s.firstErr == nil || sameReason(s.firstErr, err) || !errors.As(err, &op) {
		return err
	}
	both := *op
	both.Err = fmt.Errorf("%w (with Multipath TCP: %w)", op.Err, s.firstErr)
	return &both
}

// sameReason tells whether two errors report the same failure of the same option.
func sameReason(a, b error) bool {
	var x, y *OptionError
	if !errors.As(a, &x) || !errors.As(b, &y) || x.Op != y.Op || x.Option != y.Option {
		return false
	}
	var p, q *os.SyscallError
	if errors.As(x, &p) && errors.As(y, &q) {
		return p.Syscall == q.Syscall && errors.Is(p.Err, q.Err)
	}
	return errors.Is(x.Err, y.Err)
}
