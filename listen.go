package reuse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
)

// Listen is [net.ListenConfig.Listen] with c's options. network is "tcp", "tcp4",
// "tcp6", "unix" or "unixpacket". With port 0 the kernel chooses the port, and the
// listener's Addr returns it. ctx is for resolving a host name.
//
// Options are set before the bind. A TCP listener of package net on Linux is a Multipath
// TCP listener where the kernel supports that. The options have the same effect there. If
// anything fails, package net tries again with plain TCP. If options are refused both
// times, for different reasons, the error contains both errors.
//
// The error is a [*net.OpError], as in package net. An error about an option contains
// an [*OptionError], see [Config.Control] and [Config.Check]. Listen closes the socket if
// it fails.
func (c Config) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if err := c.validate(network, address, false); err != nil {
		return nil, opError("listen", network, err)
	}
	s := optionSetter{config: c}
	l, err := s.listenConfig().Listen(ctx, network, address)
	if err != nil {
		return nil, s.bothErrors(err)
	}
	return l, nil
}

// ListenPacket is [net.ListenConfig.ListenPacket] with c's options. network is "udp",
// "udp4", "udp6", "unixgram" or an "ip" network. "unixgram" and "ip" support no option.
// Errors are as for [Config.Listen].
//
// With port 0 the socket never gets a port that another socket of this address has,
// with any of Addr, Port and PortLB. Linux can return such a port to a sharing socket, so
// there ListenPacket binds first and sets the options afterwards. gVisor ignores options
// that are set after the bind. On is unsupported there with port 0, and Prefer continues
// without. Other kernels look for a free port. docs/semantics.md has the evidence. AIX,
// and Windows with Addr On, are unverified.
func (c Config) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	if err := c.validate(network, address, false); err != nil {
		return nil, opError("listen", network, err)
	}
	s := optionSetter{config: c, setAfterBind: true}
	p, err := s.listenConfig().ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := s.setPending(p); err != nil {
		p.Close()
		return nil, &net.OpError{Op: "listen", Net: network, Addr: p.LocalAddr(), Err: err}
	}
	return p, nil
}

// ListenConfig returns base with a Control function that sets c's options and then
// calls base's Control. The other fields of base are unchanged. If an option that is On is
// no longer in force after base's Control, Listen fails with an [*OptionError] that wraps
// [ErrConflict].
//
// The error is an [*OptionError]. ListenConfig fails if Check fails, or if an option is
// On that no listener can have on this system. If c changes nothing on this system,
// ListenConfig returns base unchanged. The Control function fails as [Config.Control]
// does.
func (c Config) ListenConfig(base net.ListenConfig) (net.ListenConfig, error) {
	if err := c.validate("", "", false); err != nil {
		return base, err
	}
	if c.changesNothing() {
		return base, nil
	}
	base.Control = c.controlFunc(false, base.Control)
	return base, nil
}

func (s *optionSetter) listenConfig() *net.ListenConfig {
	if s.config.changesNothing() {
		return &net.ListenConfig{}
	}
	return &net.ListenConfig{Control: s.control}
}

// bothErrors adds the error of Control for an MPTCP socket to the error of Listen. Package
// net drops that error when it tries plain TCP.
func (s *optionSetter) bothErrors(err error) error {
	var op *net.OpError
	if s.firstErr == nil || reflect.DeepEqual(s.firstErr, s.err) || !errors.As(err, &op) {
		return err
	}
	both := *op
	both.Err = fmt.Errorf("%w (with Multipath TCP: %w)", op.Err, s.firstErr)
	return &both
}
