package reuse_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// From the port of a listener two peers can be dialed, but none of them twice, and not
// the listener itself. The listener serves on.
func TestDialFromListeningPort(t *testing.T) {
	t.Parallel()
	supportedHere(t, reuse.Port.Supported())
	for _, network := range []string{"tcp", "tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			needNetwork(t, network)
			host := net.JoinHostPort(localhost(network), "0")
			c := reuse.Config{Port: reuse.On}
			l, err := c.Listen(t.Context(), network, host)
			require.NoError(t, err)
			defer l.Close()
			for range 2 {
				remote := peer(t, network, host)
				conn, err := c.Dial(t.Context(), network, local(l), remote)
				require.NoError(t, err)
				defer discard(conn)
				assert.Equal(t, local(l), local(conn))

				again := netError(t, "dial", closed(c.Dial(t.Context(), network, local(l), remote)))
				require.ErrorIs(t, again, reuse.ErrTupleInUse)
				assert.ErrorIs(t, again, reuse.TupleErrno)
			}
			err = closed(c.Dial(t.Context(), network, local(l), local(l)))
			require.Error(t, err)
			if runtime.GOOS == "linux" {
				assert.ErrorIs(t, err, reuse.ErrSelfDial)
			}
			go says(l, "listener")
			assert.Equal(t, "listener", who(t, network, local(l)))
		})
	}
}

// ErrTupleInUse is not for other failures that have the same errno.
func TestOtherErrorsAreNotErrTupleInUse(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("package net has no system to dial on here")
	}
	remote := peer(t, "tcp4", "127.0.0.1:0")
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	for _, tt := range []struct{ laddr, raddr, why string }{
		{"192.0.2.250:4321", remote, "not an address of this machine"},
		{local(free), "127.0.0.1:1", "there is no listener"},
		{remote, remote, "the listener has the port"},
	} {
		err := closed(reuse.Config{}.Dial(t.Context(), "tcp4", tt.laddr, tt.raddr))
		require.Error(t, err, tt.why)
		assert.NotErrorIs(t, err, reuse.ErrTupleInUse, tt.why)
	}
}

// The kernel connects a socket to itself when it is dialed from where it dials to. That
// is an error, and the port is free again at once.
func TestSelfDialIsAnError(t *testing.T) {
	t.Parallel()
	switch runtime.GOOS {
	case "js", "wasip1":
		t.Skip("package net has no system to dial on here")
	case "windows":
		t.Skip("whether Windows connects a socket to itself is unverified")
	}
	for _, tt := range []struct{ network, laddr string }{
		{"tcp4", "127.0.0.1"}, {"tcp", ""}, {"tcp6", "::1"}, {"udp4", "127.0.0.1"}, {"udp", ""}, {"udp6", ""},
	} {
		t.Run(tt.network+" "+tt.laddr, func(t *testing.T) {
			t.Parallel()
			needNetwork(t, tt.network)
			for range 20 { // another test may take the port in between
				free, err := net.ListenPacket("udp"+tt.network[3:], net.JoinHostPort(localhost(tt.network), "0"))
				require.NoError(t, err)
				require.NoError(t, free.Close())
				dial := func() error {
					err := closed(reuse.Config{}.Dial(t.Context(), tt.network, net.JoinHostPort(tt.laddr, portOf(free)), local(free)))
					return netError(t, "dial", err)
				}
				if !errors.Is(dial(), reuse.ErrSelfDial) {
					continue
				}
				if testproc.OnGVisor() || errors.Is(dial(), reuse.ErrSelfDial) { // gVisor keeps the port of a wildcard
					return
				}
			}
			require.Fail(t, "no connection to itself, or its port was not free again at once")
		})
	}
}

func TestDialRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		option         reuse.Option
		network, laddr string
	}{
		{reuse.PortLB, "tcp4", "127.0.0.1:0"},
		{reuse.PortLB, "udp4", ""},
		{reuse.DeferPort, "tcp4", ""},
		{reuse.DeferPort, "tcp4", "127.0.0.1:4321"},
		{reuse.DeferPort, "udp4", "127.0.0.1:0"},
	} {
		err := closed(with(tt.option, reuse.On).Dial(t.Context(), tt.network, tt.laddr, "127.0.0.1:9"))
		isOptionError(t, netError(t, "dial", err), tt.option, errors.ErrUnsupported, tt)
		assert.NotRegexp(t, ": $", err.Error(), "%v: there is a reason", tt)
	}
}

// A Dialer keeps what it was given, and calls its Control functions as package net would.
// From the zero Config it has none.
func TestDialerComposes(t *testing.T) {
	t.Parallel()
	d, err := reuse.Config{}.Dialer(net.Dialer{})
	require.NoError(t, err)
	assert.Nil(t, d.Control)
	supportedHere(t, reuse.Addr.Supported())
	remote := peer(t, "tcp4", "127.0.0.1:0")
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, 7)
	var calls []string
	base := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)},
		Control: func(string, string, syscall.RawConn) error {
			calls = append(calls, "Control")
			return nil
		},
	}
	dial := func() error {
		d, err := reuse.Config{Addr: reuse.On}.Dialer(base)
		require.NoError(t, err)
		assert.Equal(t, base.LocalAddr, d.LocalAddr)
		return closed(d.DialContext(ctx, "tcp4", remote))
	}
	require.NoError(t, dial())
	base.ControlContext = func(ctx context.Context, _, _ string, rc syscall.RawConn) error {
		assert.Equal(t, 7, ctx.Value(key{}))
		assert.Equal(t, reuse.On, inspect(t, rawConn{RawConn: rc}).Addr)
		calls = append(calls, "ControlContext")
		return os.ErrPermission
	}
	require.ErrorIs(t, dial(), os.ErrPermission)
	assert.Equal(t, []string{"Control", "ControlContext"}, calls, "package net ignores Control where there is a ControlContext")
}

// A context that has ended ends the dial, and the look-up of the local address.
func TestCancelledContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, laddr := range []string{"127.0.0.1:0", "name.invalid:0"} {
		err := closed(reuse.Config{Addr: reuse.Prefer}.Dial(ctx, "tcp4", laddr, "127.0.0.1:9"))
		assert.ErrorIs(t, netError(t, "dial", err), context.Canceled, laddr)
	}
}

// The local address that Dial binds is the one that package net resolves. The name has an
// address of each family, of which the resolver puts IPv6 first.
func TestResolveLikeNet(t *testing.T) {
	resolver := net.DefaultResolver
	defer func() { net.DefaultResolver = resolver }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: nameServer}
	for _, address := range []string{
		"127.0.0.1:0", "127.0.0.1:80", "127.0.0.1:080", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1", "[127.0.0.1]:1",
		"[::1]:0", "[::1%1]:5", "[::]:0", "[::1]", "::1:5", "0.0.0.0:7", ":7", ":", "[::ffff:127.0.0.1]:5", "[::127.0.0.1]:5", "224.0.0.251:5353", "[ff02::fb%1]:5353",
		"[fe80::1%lo]:5", "name.invalid.:7",
	} {
		for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"} {
			var theirs net.Addr
			var want error
			if network[0] == 't' {
				theirs, want = net.ResolveTCPAddr(network, address)
			} else {
				theirs, want = net.ResolveUDPAddr(network, address)
			}
			ours, err := reuse.Resolve(t.Context(), network, address)
			if want != nil {
				assert.Error(t, err, "%s %q: %v", network, address, ours)
				continue
			}
			if assert.NoError(t, err, "%s %q", network, address) {
				assert.Equal(t, theirs.String(), ours.String(), "%s %q", network, address)
				assert.IsType(t, theirs, ours)
			}
		}
	}
	a, err := reuse.Resolve(t.Context(), "ip6:icmp", "fe80::1%lo")
	require.NoError(t, err)
	assert.Equal(t, "fe80::1%lo", a.String())
}

// nameServer connects to a server that answers one query of DNS over TCP (RFC 1035, section
// 4) with the loopback address of the wanted family.
func nameServer(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		message := make([]byte, 512)
		if _, err := server.Read(message); err != nil {
			return
		}
		const header = 2 + 12 // of which 2 are the length
		question := message[:header+bytes.IndexByte(message[header:], 0)+5]
		kind, ip := question[len(question)-3], net.IPv6loopback
		if kind == 1 {
			ip = net.IP{127, 0, 0, 1}
		}
		answer := append(question, 0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 1, 0, byte(len(ip)))
		answer = append(answer, ip...)
		binary.BigEndian.PutUint16(answer, uint16(len(answer)-2))
		copy(answer[4:], []byte{0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0}) // a response with one answer
		_, _ = server.Write(answer)
	}()
	return client, nil
}
