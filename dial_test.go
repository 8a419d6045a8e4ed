package reuse_test

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// needPort skips a test where two sockets cannot share a port for a dial.
func needPort(t testing.TB) {
	t.Helper()
	if err := reuse.Port.Supported(); err != nil {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		t.Skip(err)
	}
}

// From the port of a listener two peers can be dialed, but none of them twice;
// the listener serves on.
func TestDialFromListeningPort(t *testing.T) {
	t.Parallel()
	needPort(t)
	for _, network := range []string{"tcp", "tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			needNetwork(t, network)
			host := "127.0.0.1:0"
			if network == "tcp6" {
				host = "[::1]:0"
			}
			c := reuse.Config{Port: reuse.On}
			l, err := c.Listen(t.Context(), network, host)
			require.NoError(t, err)
			defer l.Close()
			for range 2 {
				remote := peer(t, network, host)
				conn, err := c.Dial(t.Context(), network, l.Addr().String(), remote)
				require.NoError(t, err)
				defer discard(conn)
				assert.Equal(t, l.Addr().String(), conn.LocalAddr().String())

				again, err := c.Dial(t.Context(), network, l.Addr().String(), remote)
				require.ErrorIs(t, err, reuse.ErrTupleInUse)
				assert.Nil(t, again)
				assert.ErrorIs(t, netError(t, "dial", err), reuse.TupleErrno)
			}
			in, err := net.Dial(network, l.Addr().String())
			require.NoError(t, err)
			defer discard(in)
			got, err := l.Accept()
			require.NoError(t, err)
			discard(got)
		})
	}
}

// ErrTupleInUse is not for other failures that have the same errno.
func TestDialOtherErrors(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("package net has no system to dial on here")
	}
	remote := peer(t, "tcp4", "127.0.0.1:0")
	_, err := reuse.Config{}.Dial(t.Context(), "tcp4", "192.0.2.250:0", remote)
	require.Error(t, err, "not an address of this machine")
	assert.NotErrorIs(t, err, reuse.ErrTupleInUse)
	_, err = reuse.Config{}.Dial(t.Context(), "tcp4", "192.0.2.250:4321", remote)
	require.Error(t, err, "not an address of this machine")
	assert.NotErrorIs(t, err, reuse.ErrTupleInUse)
	nobody, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, nobody.Close())
	_, err = reuse.Config{}.Dial(t.Context(), "tcp4", nobody.Addr().String(), "127.0.0.1:1")
	require.Error(t, err, "nobody listens there")
	assert.NotErrorIs(t, err, reuse.ErrTupleInUse)
	_, err = reuse.Config{}.Dial(t.Context(), "tcp4", remote, remote)
	require.Error(t, err, "the listener has the port")
	assert.NotErrorIs(t, err, reuse.ErrTupleInUse)
}

// A UDP socket that is dialed without a port gets one that no other socket has,
// though they all share.
func TestDialPacketPortZero(t *testing.T) {
	t.Parallel()
	remote := peer(t, "udp4", "127.0.0.1:0")
	for _, o := range []reuse.Option{reuse.Port, reuse.Addr} {
		for _, local := range []string{"127.0.0.1:0", ""} {
			t.Run(o.String()+" "+local, func(t *testing.T) {
				if o.Supported() != nil || runtime.GOOS != "linux" {
					t.Skip("what other systems do is not known")
				}
				if _, err := with(o, reuse.On).Dial(t.Context(), "udp4", local, remote); testproc.OnGVisor() {
					require.ErrorIs(t, err, errors.ErrUnsupported)
					t.Skip(err)
				}
				ports := map[string]bool{}
				for range 900 { // of 28,232 ports; 14 would be expected twice
					conn, err := with(o, reuse.On).Dial(t.Context(), "udp4", local, remote)
					require.NoError(t, err)
					defer conn.Close()
					got, err := reuse.Inspect(conn.(syscall.Conn))
					require.NoError(t, err)
					require.Equal(t, reuse.On, get(got, o))
					ports[portOf(conn.LocalAddr())] = true
				}
				assert.Len(t, ports, 900)
			})
		}
	}
}

// A listener that shares its port does not keep a socket from being connected to
// itself there.
func TestSelfDialBesideListener(t *testing.T) {
	t.Parallel()
	needPort(t)
	l, err := reuse.Config{Port: reuse.On}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, err = reuse.Config{Port: reuse.On}.Dial(t.Context(), "tcp4", l.Addr().String(), l.Addr().String())
	require.Error(t, err)
	if runtime.GOOS == "linux" {
		assert.ErrorIs(t, err, reuse.ErrSelfDial)
	}
}

// The kernel connects a socket to itself when it is dialed from where it dials to.
func TestSelfDial(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("package net has no system to dial on here")
	}
	for _, tt := range []struct{ network, local, remote string }{
		{"tcp4", "127.0.0.1", "127.0.0.1"},
		{"tcp", "", "127.0.0.1"},
		{"udp4", "127.0.0.1", "127.0.0.1"},
		{"udp", "", "127.0.0.1"},
		{"tcp6", "::1", "::1"},
		{"udp6", "", "::1"},
	} {
		t.Run(tt.network+" "+tt.local, func(t *testing.T) {
			t.Parallel()
			needNetwork(t, tt.network)
			want := 2
			if testproc.OnGVisor() && tt.local == "" && tt.network == "tcp" {
				want = 1 // whose port of a wildcard is not free at once
			}
			// Somebody else may take the port in between, but not every time.
			for range 20 {
				if selfDials(t, tt.network, tt.local, tt.remote) == want {
					return
				}
			}
			require.Fail(t, "no connection to itself, or its port was not free again at once")
		})
	}
}

// selfDials dials a free port from itself twice and returns how often the socket
// was connected to itself.
func selfDials(t *testing.T, network, local, remote string) (n int) {
	free, err := net.ListenPacket("udp"+network[3:], net.JoinHostPort(remote, "0"))
	require.NoError(t, err)
	port := portOf(free.LocalAddr())
	require.NoError(t, free.Close())
	for range 2 {
		conn, err := reuse.Config{}.Dial(t.Context(), network, net.JoinHostPort(local, port), net.JoinHostPort(remote, port))
		if errors.Is(err, reuse.ErrSelfDial) {
			assert.Nil(t, conn)
			_ = netError(t, "dial", err)
			n++
			continue
		}
		if runtime.GOOS == "windows" {
			t.Skipf("whether Windows connects a socket to itself is not known: %v", err)
		}
		require.Error(t, err, "a connection to itself")
	}
	return n
}

func TestDialRefuses(t *testing.T) {
	t.Parallel()
	remote := "127.0.0.1:9"
	for _, tt := range []struct {
		name           string
		c              reuse.Config
		network, local string
		option         reuse.Option
	}{
		{"PortLB", reuse.Config{PortLB: reuse.On}, "tcp4", "127.0.0.1:0", reuse.PortLB},
		{"PortLB, UDP", reuse.Config{PortLB: reuse.On}, "udp4", "", reuse.PortLB},
		{"DeferPort without an address", reuse.Config{DeferPort: reuse.On}, "tcp4", "", reuse.DeferPort},
		{"DeferPort with a port", reuse.Config{DeferPort: reuse.On}, "tcp4", "127.0.0.1:4321", reuse.DeferPort},
		{"DeferPort, UDP", reuse.Config{DeferPort: reuse.On}, "udp4", "127.0.0.1:0", reuse.DeferPort},
	} {
		conn, err := tt.c.Dial(t.Context(), tt.network, tt.local, remote)
		assert.Nil(t, conn, tt.name)
		require.ErrorIs(t, err, errors.ErrUnsupported, tt.name)
		var oe *reuse.OptionError
		require.ErrorAs(t, netError(t, "dial", err), &oe, tt.name)
		assert.Equal(t, tt.option, oe.Option, tt.name)
		if tt.option == reuse.PortLB && reuse.PortLB.Supported() == nil {
			assert.Contains(t, err.Error(), "use Port", tt.name)
		}
	}
	_, err := reuse.Config{Exclusive: reuse.On}.Dialer(net.Dialer{})
	switch runtime.GOOS {
	case "linux", "android", "windows", "solaris", "illumos":
		assert.NoError(t, err)
	default: // a socket with SO_REUSEADDR binds beside a connected one
		assert.ErrorIs(t, err, errors.ErrUnsupported)
	}
}

// A Dialer keeps what it was given, and calls its Control functions afterwards as
// package net would.
func TestDialerComposes(t *testing.T) {
	t.Parallel()
	if reuse.Addr.Supported() != nil {
		t.Skip("no options here")
	}
	remote := peer(t, "tcp4", "127.0.0.1:0")
	c := reuse.Config{Addr: reuse.On}
	addrOn := func(rc syscall.RawConn) bool {
		got, err := reuse.Inspect(rawConn{rc})
		return assert.NoError(t, err) && got.Addr == reuse.On
	}
	type key struct{}
	var control, controlContext atomic.Int32
	base := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)},
		Control: func(_, _ string, rc syscall.RawConn) error {
			assert.True(t, addrOn(rc), "base's Control comes after")
			control.Add(1)
			return nil
		},
	}
	d, err := c.Dialer(base)
	require.NoError(t, err)
	assert.Equal(t, base.LocalAddr, d.LocalAddr)
	conn, err := d.DialContext(t.Context(), "tcp4", remote)
	require.NoError(t, err)
	discard(conn)
	assert.EqualValues(t, 1, control.Load())

	base.ControlContext = func(ctx context.Context, _, _ string, rc syscall.RawConn) error {
		assert.True(t, addrOn(rc), "base's ControlContext comes after")
		assert.Equal(t, 7, ctx.Value(key{}))
		controlContext.Add(1)
		return nil
	}
	d, err = c.Dialer(base)
	require.NoError(t, err)
	conn, err = d.DialContext(context.WithValue(t.Context(), key{}, 7), "tcp4", remote)
	require.NoError(t, err)
	discard(conn)
	assert.EqualValues(t, 1, controlContext.Load())
	assert.EqualValues(t, 1, control.Load(), "package net ignores Control where there is a ControlContext")

	base.ControlContext = func(context.Context, string, string, syscall.RawConn) error { return os.ErrPermission }
	d, err = c.Dialer(base)
	require.NoError(t, err)
	_, err = d.DialContext(t.Context(), "tcp4", remote)
	assert.ErrorIs(t, err, os.ErrPermission)
}

// rawConn makes a syscall.Conn of what a Control function gets.
type rawConn struct{ rc syscall.RawConn }

func (r rawConn) SyscallConn() (syscall.RawConn, error) { return r.rc, nil }

// A dual-stack dial calls Control from two goroutines at once.
func TestDialBothFamilies(t *testing.T) {
	t.Parallel()
	if reuse.Addr.Supported() != nil {
		t.Skip("no options here")
	}
	remote := peer(t, "tcp4", "127.0.0.1:0")
	d, err := reuse.Config{Addr: reuse.On, Port: reuse.Prefer}.Dialer(net.Dialer{FallbackDelay: 1})
	require.NoError(t, err)
	for range 20 {
		conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort("localhost", portOf(addr(remote))))
		require.NoError(t, err)
		discard(conn)
	}
}

// addr is an address as a net.Addr.
type addr string

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return string(a) }

// A context that has ended does what it does in package net.
func TestCancelledContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var d net.Dialer
	_, want := d.DialContext(ctx, "tcp4", "127.0.0.1:9")
	_, got := reuse.Config{Addr: reuse.Prefer}.Dial(ctx, "tcp4", "127.0.0.1:0", "127.0.0.1:9")
	require.Error(t, want)
	require.Error(t, got)
	assert.Equal(t, errors.Unwrap(want), errors.Unwrap(got))

	_, err := reuse.Config{}.Dial(ctx, "tcp", "name.invalid:0", "127.0.0.1:9")
	assert.Error(t, err)
	l, err := reuse.Config{Addr: reuse.Prefer}.Listen(ctx, "tcp4", "127.0.0.1:0")
	require.NoError(t, err, "as in package net: there is no name to resolve")
	require.NoError(t, l.Close())
}

// The local address that Dial binds is the one that package net resolves.
func TestResolve(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"127.0.0.1:0", "127.0.0.1:80", "127.0.0.1:080", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1", "127.0.0.01:1", "[127.0.0.1]:1",
		"[::1]:0", "[::1%1]:5", "[::%]]:0", "[::]:0", "[::1]", "::1:5", "0.0.0.0:7", ":7", ":", "[::ffff:127.0.0.1]:5", "[::127.0.0.1]:5", "224.0.0.251:5353", "[ff02::fb%1]:5353",
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
}
