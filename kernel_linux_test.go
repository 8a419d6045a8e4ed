package reuse_test

import (
	"errors"
	"net"
	"os"
	"runtime"
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
	remote := peer(t, "tcp4", "127.0.0.1:0")
	for _, c := range []reuse.Config{
		{}, {Addr: reuse.Off}, {Port: reuse.On}, {Addr: reuse.On, PortLB: reuse.On}, {Exclusive: reuse.On}, {DeferPort: reuse.On},
	} {
		var s any
		var err error
		if c.DeferPort != reuse.On {
			s, err = c.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		} else if reuse.DeferPort.Supported() == nil {
			s, err = c.Dial(t.Context(), "tcp4", "127.0.0.1:0", remote)
		} else {
			continue
		}
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
			assert.Equal(t, want, get(got, o), "%v %v", c, o)
			if asked := get(c, o); asked != reuse.Default {
				assert.Equal(t, asked, want, "%v %v", c, o)
			}
		}
	}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	c, err := reuse.Inspect(r)
	assert.ErrorIs(t, err, unix.ENOTSOCK)
	var oe *reuse.OptionError
	assert.ErrorAs(t, err, &oe)
	assert.Equal(t, reuse.Config{}, c)
}

func isMPTCP(t testing.TB, s any) bool {
	protocol, err := sockoptOf(t, s, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	require.NoError(t, err)
	return protocol == unix.IPPROTO_MPTCP
}

// A listener is MPTCP exactly when package net would have made it so.
func TestMPTCPAsPackageNet(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "tcp4", "tcp6"} {
		needNetwork(t, network)
		for _, mode := range []string{"default", "on", "off"} {
			var base net.ListenConfig
			if mode != "default" {
				base.SetMultipathTCP(mode == "on")
			}
			isMPTCP := func(l net.Listener, err error) bool {
				require.NoError(t, err)
				defer l.Close()
				return isMPTCP(t, l)
			}
			plain := isMPTCP(base.Listen(t.Context(), network, loopback(network)))
			for _, c := range []reuse.Config{{Addr: reuse.On}, {Port: reuse.On}, {PortLB: reuse.On}, {Exclusive: reuse.On}} {
				lc, err := c.ListenConfig(base)
				require.NoError(t, err)
				assert.Equal(t, plain, isMPTCP(lc.Listen(t.Context(), network, loopback(network))), "%s %s %v", network, mode, c)
				if mode == "default" {
					assert.Equal(t, plain, isMPTCP(c.Listen(t.Context(), network, loopback(network))), "%s %v", network, c)
				}
			}
		}
	}
}

// Where the kernel can make MPTCP sockets, package net tries everything twice: what
// base's Control says is heard as in package net.
func TestMPTCPFallback(t *testing.T) {
	t.Parallel()
	var base net.ListenConfig
	base.SetMultipathTCP(true)
	probe, err := base.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer probe.Close()
	tries := 1
	if isMPTCP(t, probe) {
		tries = 2
	}
	calls := 0
	listen := func(control func(rc syscall.RawConn) error) (net.Listener, error) {
		base.Control = func(_, _ string, rc syscall.RawConn) error { return control(rc) }
		lc, err := reuse.Config{Port: reuse.On}.ListenConfig(base)
		require.NoError(t, err)
		return lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	}
	err = closed(listen(func(syscall.RawConn) error {
		calls++
		return os.NewSyscallError("bpf", unix.EPERM)
	}))
	assert.ErrorIs(t, err, unix.EPERM)
	assert.Equal(t, tries, calls)

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
			{reuse.Config{DeferPort: reuse.Off}, 10},
			{reuse.Config{DeferPort: reuse.On}, 20},
			{reuse.Config{DeferPort: reuse.Prefer}, 20},
			{reuse.Config{Addr: reuse.On, Port: reuse.On}, 10},
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

// Inspect does not wait for another reader of the file.
func TestInspectDoesNotRead(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer w.Close()
	read := make(chan error)
	go func() {
		_, err := r.Read(make([]byte, 1))
		read <- err
	}()
	for range 100 { // until the reader has begun
		_, err = reuse.Inspect(r)
		assert.Error(t, err)
		runtime.Gosched()
	}
	require.NoError(t, r.Close())
	assert.Error(t, <-read)
}
