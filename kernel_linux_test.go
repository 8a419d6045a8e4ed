package reuse_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// Linux only: the kernel's own view, Multipath TCP, ephemeral ports, and what
// happens when the kernel says no.

var systemChildren = map[string]testproc.Child{
	"starved":  starved,
	"refused":  refused,
	"filtered": filtered,
	"ignored":  ignored,
	"stranger": stranger,
}

// sockoptOf reads an option without the package under test.
func sockoptOf(t testing.TB, sc syscall.Conn, level, name int) int {
	t.Helper()
	rc, err := sc.SyscallConn()
	require.NoError(t, err)
	var v int
	var serr error
	require.NoError(t, rc.Control(func(fd uintptr) { v, serr = unix.GetsockoptInt(int(fd), level, name) }))
	require.NoError(t, serr)
	return v
}

// lacks says whether a socket does not have an option that others of its system
// have: before 6.12, Multipath TCP sockets have no IP_BIND_ADDRESS_NO_PORT (6.1.176
// and 6.1.192: EOPNOTSUPP, measured), and gVisor's none.
func lacks(t testing.TB, sc syscall.Conn, o reuse.Option) bool {
	t.Helper()
	if o != reuse.DeferPort || !testproc.OnGVisor() && sockoptOf(t, sc, unix.SOL_SOCKET, unix.SO_PROTOCOL) != unix.IPPROTO_MPTCP {
		return false
	}
	rc, err := sc.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		_, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT)
	}))
	if err != nil && !testproc.OnGVisor() {
		require.ErrorIs(t, err, unix.EOPNOTSUPP)
	}
	return err != nil
}

func TestInspectAgainstKernel(t *testing.T) {
	t.Parallel()
	numbers := map[reuse.Option][2]int{
		reuse.Addr:      {unix.SOL_SOCKET, unix.SO_REUSEADDR},
		reuse.Port:      {unix.SOL_SOCKET, unix.SO_REUSEPORT},
		reuse.PortLB:    {unix.SOL_SOCKET, unix.SO_REUSEPORT},
		reuse.DeferPort: {unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT},
	}
	remote := peer(t, "tcp4", "127.0.0.1:0")
	for _, c := range []reuse.Config{
		{}, {Addr: reuse.Off}, {Port: reuse.On}, {Addr: reuse.On, PortLB: reuse.On}, {Exclusive: reuse.On}, {DeferPort: reuse.On},
	} {
		if c.DeferPort == reuse.On && reuse.DeferPort.Supported() != nil {
			continue
		}
		var s any
		var err error
		if c.DeferPort == reuse.On {
			s, err = c.Dial(t.Context(), "tcp4", "127.0.0.1:0", remote)
		} else {
			s, err = c.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		}
		require.NoError(t, err)
		got, err := reuse.Inspect(s.(syscall.Conn))
		require.NoError(t, err)
		for o, n := range numbers {
			if lacks(t, s.(syscall.Conn), o) {
				assert.Equal(t, reuse.Default, get(got, o), "%v %v", c, o)
				continue
			}
			want := reuse.Off
			if sockoptOf(t, s.(syscall.Conn), n[0], n[1]) != 0 {
				want = reuse.On
			}
			assert.Equal(t, want, get(got, o), "%v %v", c, o)
			if asked := get(c, o); asked != reuse.Default {
				assert.Equal(t, asked, want, "%v %v", c, o)
			}
		}
		discard(s.(io.Closer))
	}
}

func TestInspectNoSocket(t *testing.T) {
	t.Parallel()
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

func isMPTCP(t testing.TB, l net.Listener) bool {
	return sockoptOf(t, l.(syscall.Conn), unix.SOL_SOCKET, unix.SO_PROTOCOL) == unix.IPPROTO_MPTCP
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
			plain, err := base.Listen(t.Context(), network, loopback(network))
			require.NoError(t, err)
			for _, c := range []reuse.Config{{Addr: reuse.On}, {Port: reuse.On}, {PortLB: reuse.On}, {Exclusive: reuse.On}} {
				lc, err := c.ListenConfig(base)
				require.NoError(t, err)
				ours, err := lc.Listen(t.Context(), network, loopback(network))
				require.NoError(t, err)
				assert.Equal(t, isMPTCP(t, plain), isMPTCP(t, ours), "%s %s %v", network, mode, c)
				require.NoError(t, ours.Close())
				if mode == "default" {
					ours, err := c.Listen(t.Context(), network, loopback(network))
					require.NoError(t, err)
					assert.Equal(t, isMPTCP(t, plain), isMPTCP(t, ours), "%s %v", network, c)
					require.NoError(t, ours.Close())
				}
			}
			require.NoError(t, plain.Close())
		}
	}
}

// Where the kernel can make MPTCP sockets, package net tries everything twice: what
// base's Control says is heard as in package net.
func TestMPTCPFallback(t *testing.T) {
	t.Parallel()
	var mptcp net.ListenConfig
	mptcp.SetMultipathTCP(true)
	probe, err := mptcp.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	tries := 1
	if isMPTCP(t, probe) {
		tries = 2
	}
	require.NoError(t, probe.Close())

	calls := 0
	base := mptcp
	base.Control = func(string, string, syscall.RawConn) error {
		calls++
		return os.NewSyscallError("bpf", unix.EPERM)
	}
	lc, err := reuse.Config{Port: reuse.On}.ListenConfig(base)
	require.NoError(t, err)
	_, err = lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	assert.ErrorIs(t, err, unix.EPERM)
	assert.Equal(t, tries, calls)

	base.Control = func(_, _ string, rc syscall.RawConn) error {
		if sockoptOf(t, rawConn{rc}, unix.SOL_SOCKET, unix.SO_PROTOCOL) == unix.IPPROTO_MPTCP {
			return unix.EPERM
		}
		return nil
	}
	lc, err = reuse.Config{Port: reuse.On}.ListenConfig(base)
	require.NoError(t, err)
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	assert.False(t, isMPTCP(t, l))
	got, err := reuse.Inspect(l.(syscall.Conn))
	require.NoError(t, err)
	assert.Equal(t, reuse.On, got.Port)
}

// With ten ephemeral ports one address holds ten connections, or ten to each
// destination where the port is chosen at connect.
func TestDeferPort(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	if err := reuse.DeferPort.Supported(); err != nil {
		t.Skip(err)
	}
	err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40009"), 0)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		t.Skipf("the ports cannot be restricted: %v", err)
	}
	require.NoError(t, err)
	// Listeners outside the range.
	remotes := make([]string, 2)
	for i := range remotes {
		remotes[i] = peer(t, "tcp4", "127.0.0.1:"+strconv.Itoa(5001+i))
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
		assert.Equal(t, tt.want, dials(t, tt.c, remotes), "%v", tt.c)
	}
}

// dials counts how many of eleven dials to each address succeed at one time.
func dials(t testing.TB, c reuse.Config, remotes []string) (n int) {
	for _, remote := range remotes {
		for range 11 {
			conn, err := c.Dial(t.Context(), "tcp4", "127.0.0.1:0", remote)
			if err != nil {
				assert.NotErrorIs(t, err, reuse.ErrTupleInUse, "the ports are used up: it is not about one address")
				continue
			}
			defer discard(conn)
			n++
		}
	}
	return n
}

// starved is a child that probes an option while it may open no descriptor.
// It answers with what it found then and afterwards.
func starved([]string, *bufio.Scanner, io.Writer) error {
	if err := reuse.Exclusive.Supported(); err != nil {
		return fmt.Errorf("needs no socket: %w", err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		return err
	}
	err := reuse.Port.Supported()
	var oe *reuse.OptionError
	if !errors.Is(err, unix.EMFILE) || errors.Is(err, errors.ErrUnsupported) || !errors.As(err, &oe) {
		return fmt.Errorf("without a descriptor: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if err := reuse.Port.Supported(); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	// Now it is known, and no descriptor is needed.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		return err
	}
	return reuse.Port.Supported()
}

// A probe that could not open a socket tells nothing, and is not remembered.
func TestSupportedInconclusive(t *testing.T) {
	t.Parallel()
	testproc.Start(t, "starved")
}

// Linux says the same errno if there is no address to reach the other side from, as
// with IPv6 disabled: that is about no four-tuple.
func TestNoSourceAddress(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	err := os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrNotExist) {
		t.Skipf("IPv6 cannot be disabled: %v", err)
	}
	require.NoError(t, err)
	for _, network := range []string{"tcp", "tcp6", "udp6"} {
		_, err := reuse.Config{}.Dial(t.Context(), network, ":5000", "[::1]:80")
		require.ErrorIs(t, err, unix.EADDRNOTAVAIL, network)
		assert.NotErrorIs(t, err, reuse.ErrTupleInUse, network)
	}
}
