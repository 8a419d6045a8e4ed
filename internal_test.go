package reuse

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/sockopt"
)

// TupleErrno is what connect says here when the four-tuple exists already.
const TupleErrno = errTupleInUse

// Resolve is what Dial makes of a local address.
var Resolve = resolve

// What support.go says of each system is what the kernel's rules imply.
func TestSupportFollowsFromTheRules(t *testing.T) {
	t.Parallel()
	addrs := []semantics.Binding{ // in the order of the kinds
		{Addr: netip.MustParseAddr("127.0.0.1")},
		{Addr: netip.IPv4Unspecified()},
		{Addr: netip.IPv6Loopback()},
		{Addr: netip.IPv6Unspecified(), V6Only: true},
		{Addr: netip.IPv6Unspecified()},
	}
	for _, s := range semantics.Systems() {
		name := s.Name()
		switch name {
		case "linux-3.8":
			continue // the package makes no difference between the versions
		case "freebsd-14":
			name = "freebsd"
		}
		var lb, exclusive sockKinds
		for i := range 2 * len(addrs) {
			kind, b := tcp4<<i, addrs[i%len(addrs)]
			b.Proto, b.State = semantics.TCP, semantics.Listening
			if kind >= udp4 {
				b.Proto, b.State = semantics.UDP, semantics.Bound
			}
			if s.Balances(b) {
				lb |= kind
			}
			if s.Exclusive(b) {
				exclusive |= kind
			}
		}
		for kind, proto := range map[sockKinds]semantics.Proto{dialedTCP: semantics.TCP, dialedUDP: semantics.UDP} {
			connected := true
			for _, addr := range []netip.Addr{addrs[0].Addr, addrs[2].Addr} {
				connected = connected && s.Exclusive(semantics.Binding{Proto: proto, State: semantics.Established, Dialed: true, Addr: addr})
			}
			if connected {
				exclusive |= kind
			}
		}
		assert.Equal(t, lb, portLBSupport(name).kinds, "PortLB, %s", s.Name())
		assert.Equal(t, exclusive, exclusiveSupport(name).kinds, "Exclusive, %s", s.Name())
		assert.Equal(t, lb != listeners, portLBSupport(name).reason != "", "%s: a reason exactly where it does not hold", name)
		assert.Equal(t, exclusive != everySocket, exclusiveSupport(name).reason != "", "%s: a reason exactly where it does not hold", name)
	}
	assert.Equal(t, support{reason: noOptions}, portLBSupport("a system to come"))
	assert.Equal(t, support{reason: noOptions}, exclusiveSupport("a system to come"))
}

func TestSolarisName(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"11.4.0.15.0": solaris114, "11.4": solaris114, "11.10": solaris114,
		"11.3": "solaris", "10": "solaris", "Generic_150400-61": "solaris", "illumos-3974": "solaris",
		"joyent_20240101T000000Z": "solaris", "omnios-r151050": "solaris", "12.4": "solaris", "": "solaris",
	} {
		assert.Equal(t, want, solarisName(version), version)
	}
}

// What is supported depends on the kind of address. TestExclusive has those that depend on
// the socket.
func TestAddrKind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network, address string
		want             sockKinds
	}{
		{"tcp4", "127.0.0.1:0", tcp4},
		{"tcp4", "0.0.0.0:0", tcp4Any},
		{"tcp4", ":0", tcp4Any},
		{"udp4", "127.0.0.1:0", udp4},
		{"udp4", "224.0.0.1:5353", udp4Any},
		{"tcp6", "[::1]:0", tcp6},
		{"udp6", "[::1]:0", udp6},
	} {
		s := optionSetter{network: tt.network, address: tt.address}
		got, err := s.addrKind(0)
		require.NoError(t, err)
		assert.Equal(t, tt.want, got, tt)
	}
}

// On is an error if another option would clear it, and Prefer is cleared, as with PortLB and
// Addr on Solaris. On Linux Check refuses such a Config.
func TestPreferGivesWay(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("other systems have no such options, or not for these sockets")
	}
	s := optionSetter{config: Config{Addr: On, Exclusive: On}, network: "tcp6", address: "[::1]:1"}
	assert.ErrorIs(t, s.checkSocket(Exclusive, 0), unsupportedReason("not together with Addr"))

	s.config.Addr, s.network, s.address = Prefer, "udp", ":1"
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error { return sockopt.Control(rc, s.prepare) }}
	p, err := lc.ListenPacket(t.Context(), "udp", ":0")
	require.NoError(t, err)
	defer p.Close()
	got, err := Inspect(p.(syscall.Conn))
	require.NoError(t, err)
	assert.Equal(t, Off, got.Addr)
}

// For an MPTCP listener that falls back to plain TCP, package net calls Control a
// second time and forgets the first error. Listen joins them if they differ.
func TestListenReportsBothErrors(t *testing.T) {
	t.Parallel()
	listen := func(errs ...error) error {
		var s optionSetter
		for _, err := range errs {
			require.Error(t, s.control("tcp4", "127.0.0.1:0", failingConn{err: err}))
		}
		return s.bothErrors(&net.OpError{Op: "listen", Err: s.err})
	}
	both := listen(os.ErrPermission, os.ErrClosed)
	assert.ErrorIs(t, both, os.ErrPermission)
	assert.ErrorIs(t, both, os.ErrClosed)
	var oe *net.OpError
	require.ErrorAs(t, both, &oe)
	assert.Equal(t, "listen", oe.Op)
	assert.Equal(t, listen(os.ErrClosed).Error(), listen(os.ErrClosed, os.ErrClosed).Error(), "the same twice is said once")
}

// failingConn is a RawConn whose Control fails, each time with a new error.
type failingConn struct {
	syscall.RawConn
	err error
}

func (f failingConn) Control(func(uintptr)) error { return &OptionError{Err: f.err} }
