package reuse_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/sockopt"
	"example.com/reuse/internal/testproc"
)

// sockoptOf reads an option without the package under test.
func sockoptOf(t testing.TB, s any, level, name int) (v int, err error) {
	t.Helper()
	rc, err := s.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	err = sockopt.Control(rc, func(fd uintptr) (err error) {
		v, err = sockopt.Get(fd, level, name)
		return err
	})
	return v, err
}

// Inspect reports what the kernel has. Before 6.12 Multipath TCP sockets have no
// IP_BIND_ADDRESS_NO_PORT (6.1.176 and 6.1.192: EOPNOTSUPP, measured), and gVisor's none.
func TestInspectAgainstKernel(t *testing.T) {
	t.Parallel()
	for _, m := range makers(t, "tcp4") {
		for _, c := range []reuse.Config{{}, {Addr: reuse.Off}, {Port: reuse.On}, {DeferPort: reuse.Prefer}} {
			s, err := m.make(c)
			require.NoError(t, err)
			defer discard(s.(socket))
			got := inspect(t, s)
			for o, n := range map[reuse.Option][2]int{
				reuse.Addr:      {unix.SOL_SOCKET, unix.SO_REUSEADDR},
				reuse.Port:      {unix.SOL_SOCKET, unix.SO_REUSEPORT},
				reuse.PortLB:    {unix.SOL_SOCKET, unix.SO_REUSEPORT},
				reuse.DeferPort: {unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT},
			} {
				want := reuse.Off
				if v, err := sockoptOf(t, s, n[0], n[1]); err != nil {
					require.Equal(t, reuse.DeferPort, o, err)
					require.True(t, testproc.OnGVisor() || isMPTCP(t, s) && errors.Is(err, unix.EOPNOTSUPP), err)
					want = reuse.Default
				} else if v != 0 {
					want = reuse.On
				}
				assert.Equal(t, want, get(got, o), "%s %v %v", m.name, c, o)
			}
		}
	}
	file, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer file.Close()
	_, err = reuse.Inspect(file)
	isOptionError(t, err, reuse.Addr, nil)
	assert.ErrorIs(t, err, unix.ENOTSOCK)
}

func isMPTCP(t testing.TB, s any) bool {
	protocol, err := sockoptOf(t, s, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	require.NoError(t, err)
	return protocol == unix.IPPROTO_MPTCP
}

// A listener is MPTCP if package net would have made it so: no option makes package net
// fall back to TCP. The zero Config changes no option.
func TestListenAsPackageNet(t *testing.T) {
	t.Parallel()
	theirs, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer theirs.Close()
	for _, c := range []reuse.Config{{}, {Addr: reuse.On}, {Port: reuse.On}, {PortLB: reuse.On}, {Exclusive: reuse.On}} {
		ours, err := c.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer ours.Close()
		assert.Equal(t, isMPTCP(t, theirs), isMPTCP(t, ours), c)
		if c == (reuse.Config{}) {
			assert.Equal(t, inspect(t, theirs), inspect(t, ours))
		}
	}
}

// If base's Control refuses an MPTCP socket, package net tries plain TCP, and c's options
// are set on that.
func TestMPTCPFallback(t *testing.T) {
	t.Parallel()
	listen := func(control func(rc syscall.RawConn) error) (net.Listener, error) {
		base := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error { return control(rc) }}
		base.SetMultipathTCP(true)
		lc, err := reuse.Config{Port: reuse.On}.ListenConfig(base)
		require.NoError(t, err)
		return lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	}
	assert.ErrorIs(t, closed(listen(func(syscall.RawConn) error { return unix.EPERM })), unix.EPERM)

	l, err := listen(func(rc syscall.RawConn) error {
		if isMPTCP(t, rawConn{RawConn: rc}) {
			return unix.EPERM
		}
		return nil
	})
	require.NoError(t, err)
	defer l.Close()
	assert.False(t, isMPTCP(t, l))
	assert.Equal(t, reuse.On, inspect(t, l).Port)
}

// sysctl sets a sysctl of the test's network namespace, or skips the test.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrNotExist) {
		t.Skipf("%s cannot be set: %v", name, err)
	}
	require.NoError(t, err)
}

// With ten ephemeral ports one address holds ten connections, or ten to each
// destination where the port is chosen at connect.
func TestDeferPort(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	supportedHere(t, reuse.DeferPort.Supported())
	sysctl(t, "ipv4/ip_local_port_range", "40000 40009")
	for _, network := range []string{"tcp4", "tcp6"} {
		host := localhost(network)
		var remotes []string
		for port := range 2 { // outside the range
			remotes = append(remotes, peer(t, network, net.JoinHostPort(host, strconv.Itoa(5001+port))))
		}
		for _, tt := range []struct {
			c    reuse.Config
			want int
		}{
			{reuse.Config{}, 10},
			{reuse.Config{DeferPort: reuse.On}, 20},
			{reuse.Config{DeferPort: reuse.Prefer}, 20},
		} {
			var conns []net.Conn
			for _, remote := range remotes {
				for range 11 {
					conn, err := tt.c.Dial(t.Context(), network, net.JoinHostPort(host, "0"), remote)
					if err == nil {
						conns = append(conns, conn)
					}
					assert.NotErrorIs(t, err, reuse.ErrTupleInUse, "the ports are used up: it is not about one address")
				}
			}
			assert.Len(t, conns, tt.want, "%s %v", network, tt.c)
			for _, conn := range conns {
				discard(conn)
			}
		}
	}
}

// Linux says the same errno if there is no address to reach the other side from, as
// with IPv6 disabled: that is about no four-tuple.
func TestNoSourceAddressIsNotErrTupleInUse(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	sysctl(t, "ipv6/conf/lo/disable_ipv6", "1")
	for _, network := range []string{"tcp", "tcp6", "udp6"} {
		err := closed(reuse.Config{}.Dial(t.Context(), network, ":5000", "[::1]:80"))
		require.ErrorIs(t, err, unix.EADDRNOTAVAIL, network)
		assert.NotErrorIs(t, err, reuse.ErrTupleInUse, network)
	}
}

func BenchmarkControl(b *testing.B) {
	rc := someConn(b)
	c := reuse.Config{Port: reuse.On}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Control("tcp4", "127.0.0.1:0", rc); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAllocations(t *testing.T) {
	rc := someConn(t)
	c := reuse.Config{Addr: reuse.Prefer, Port: reuse.Prefer}
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = c.Control("tcp4", "127.0.0.1:0", rc) }), 2.0)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		c := reuse.Config{Addr: reuse.On, PortLB: reuse.Prefer}
		_ = c.Check()
	}))
	allocs := func(listen func(ctx context.Context, network, address string) (net.Listener, error)) float64 {
		return testing.AllocsPerRun(100, func() { require.NoError(t, closed(listen(t.Context(), "tcp4", "127.0.0.1:0"))) })
	}
	byHand := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var setErr error
		err := rc.Control(func(fd uintptr) { setErr = sockopt.Set(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, setErr)
	}}
	assert.LessOrEqual(t, allocs(reuse.Config{Port: reuse.On}.Listen), allocs(byHand.Listen)+1)
}
