package reuse_test

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// bits are the fields that have an option number on each system.
var bits = map[string][]reuse.Option{
	"android":   {reuse.Addr, reuse.Port, reuse.PortLB, reuse.DeferPort},
	"linux":     {reuse.Addr, reuse.Port, reuse.PortLB, reuse.DeferPort},
	"freebsd":   {reuse.Addr, reuse.Port, reuse.PortLB},
	"dragonfly": {reuse.Addr, reuse.Port, reuse.PortLB},
	"darwin":    {reuse.Addr, reuse.Port},
	"ios":       {reuse.Addr, reuse.Port},
	"netbsd":    {reuse.Addr, reuse.Port},
	"openbsd":   {reuse.Addr, reuse.Port},
	"aix":       {reuse.Addr, reuse.Port},
	"solaris":   {reuse.Addr, reuse.Port, reuse.PortLB, reuse.Exclusive},
	"illumos":   {reuse.Addr, reuse.Exclusive},
	"windows":   {reuse.Addr, reuse.Exclusive},
}

// sameBit tells whether Port and PortLB are one option.
func sameBit() bool {
	switch runtime.GOOS {
	case "linux", "android", "dragonfly", "solaris":
		return true
	}
	return false
}

// loopback is the address that tests of a network listen on.
func loopback(network string) string {
	switch network[3:] {
	case "4":
		return "127.0.0.1:0"
	case "6":
		return "[::1]:0"
	}
	return ":0" // dual-stack, where there is IPv6
}

// needNetwork skips a test of a network that this machine lacks.
func needNetwork(t testing.TB, network string) {
	t.Helper()
	p, err := net.ListenPacket("udp"+network[3:], loopback(network))
	if err != nil {
		t.Skipf("no loopback for %s: %v", network, err)
	}
	require.NoError(t, p.Close())
}

// A socket is what Inspect and a test need of one.
type socket interface {
	syscall.Conn
	io.Closer
}

// open listens, for streams or packets as the network says.
func open(ctx context.Context, c reuse.Config, network, address string) (socket, net.Addr, error) {
	if strings.HasPrefix(network, "udp") {
		p, err := c.ListenPacket(ctx, network, address)
		if err != nil {
			return nil, nil, err
		}
		return p.(socket), p.LocalAddr(), nil
	}
	l, err := c.Listen(ctx, network, address)
	if err != nil {
		return nil, nil, err
	}
	return l.(socket), l.Addr(), nil
}

// A maker makes sockets of one kind.
type maker struct {
	name string
	dial bool
	make func(ctx context.Context, c reuse.Config, network string) (any, error)
}

// makers are the ways to get a socket: all of the API, with and without MPTCP.
func makers(t testing.TB, network string) []maker {
	tcp := strings.HasPrefix(network, "tcp")
	local := "127.0.0.1:0"
	if network[3:] == "6" {
		local = "[::1]:0"
	}
	remote := peer(t, network, local)
	list := []maker{
		{"listen", false, func(ctx context.Context, c reuse.Config, network string) (any, error) {
			s, _, err := open(ctx, c, network, loopback(network))
			return s, err
		}},
		{"dial", true, func(ctx context.Context, c reuse.Config, network string) (any, error) {
			return c.Dial(ctx, network, "", remote)
		}},
		{"dial from", true, func(ctx context.Context, c reuse.Config, network string) (any, error) {
			return c.Dial(ctx, network, local, remote)
		}},
	}
	if !tcp {
		return list
	}
	for _, mptcp := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "MPTCP"}[mptcp]
		list = append(list, maker{"ListenConfig " + name, false, func(ctx context.Context, c reuse.Config, network string) (any, error) {
			var lc net.ListenConfig
			lc.SetMultipathTCP(mptcp)
			lc, err := c.ListenConfig(lc)
			if err != nil {
				return nil, err
			}
			return lc.Listen(ctx, network, loopback(network))
		}}, maker{"Dialer " + name, true, func(ctx context.Context, c reuse.Config, network string) (any, error) {
			a, err := net.ResolveTCPAddr(network, local)
			if err != nil {
				return nil, err
			}
			d := net.Dialer{LocalAddr: a}
			d.SetMultipathTCP(mptcp)
			d, err = c.Dialer(d)
			if err != nil {
				return nil, err
			}
			return d.DialContext(ctx, network, remote)
		}})
	}
	return list
}

// peer returns an address that can be dialed until the test ends.
func peer(t testing.TB, network, address string) string {
	if strings.HasPrefix(network, "udp") {
		p, err := net.ListenPacket(network, address)
		require.NoError(t, err)
		t.Cleanup(func() { p.Close() })
		return p.LocalAddr().String()
	}
	l, err := net.Listen(network, address)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// discard closes a socket so that nothing of it, no TIME_WAIT, remains.
func discard(s io.Closer) {
	if c, ok := s.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	s.Close()
}

// Every Config, on every kind of socket: what is asked for reads back, or the
// call fails and names an option; what is not asked for is as package net has it.
func TestReadback(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			needNetwork(t, network)
			for _, m := range makers(t, network) {
				readback(t, m, network)
			}
		})
	}
}

func readback(t *testing.T, m maker, network string) {
	plain, err := m.make(t.Context(), reuse.Config{}, network)
	require.NoError(t, err, "%s %s", m.name, network)
	base, err := reuse.Inspect(plain.(socket))
	require.NoError(t, err)
	discard(plain.(socket))

	made, inForce := 0, 0
	configs(func(c reuse.Config) {
		s, err := m.make(t.Context(), c, network)
		if err != nil {
			var oe *reuse.OptionError
			if assert.ErrorAs(t, err, &oe, "%s %v", m.name, c) {
				assert.NotEqual(t, reuse.Default, get(c, oe.Option), "%s %v: %v", m.name, c, err)
			}
			if runtime.GOOS == "linux" {
				assert.False(t, possibleOnLinux(c, m, network), "%s %v: %v", m.name, c, err)
			}
			return
		}
		defer discard(s.(socket))
		made++
		if runtime.GOOS == "linux" {
			assert.True(t, possibleOnLinux(c, m, network), "%s %v", m.name, c)
		}
		got, err := reuse.Inspect(s.(socket))
		require.NoError(t, err)
		for _, o := range bits[runtime.GOOS] {
			switch asked, is := get(c, o), get(got, o); asked {
			case reuse.On, reuse.Off:
				want := asked
				if asked == reuse.Off && lacks(t, s.(socket), o) {
					want = reuse.Default
				}
				assert.Equal(t, want, is, "%s %s %v: %v", m.name, network, c, o)
				inForce++
			case reuse.Default:
				if testproc.OnGVisor() && o == reuse.Addr && wanted(c.Exclusive) {
					continue // which clears it
				}
				if sameBit() && (o == reuse.Port && c.PortLB != reuse.Default || o == reuse.PortLB && c.Port != reuse.Default) {
					continue
				}
				assert.Equal(t, get(base, o), is, "%s %s %v: %v", m.name, network, c, o)
			case reuse.Prefer:
				if runtime.GOOS != "linux" {
					continue
				}
				if lacks(t, s.(socket), o) {
					assert.Equal(t, reuse.Default, is, "%s %s %v: %v", m.name, network, c, o)
				} else if possibleOnLinux(with(o, reuse.On), m, network) {
					assert.Equal(t, reuse.On, is, "%s %s %v: %v", m.name, network, c, o)
				} else if o == reuse.DeferPort { // PortLB's bit may be Port's
					assert.Equal(t, reuse.Off, is, "%s %s %v: %v", m.name, network, c, o)
				}
			}
		}
	})
	assert.NotZero(t, made)
	if len(bits[runtime.GOOS]) > 0 {
		assert.NotZero(t, inForce)
	}
}

// possibleOnLinux says which Configs Linux can satisfy.
func possibleOnLinux(c reuse.Config, m maker, network string) bool {
	if c.Check() != nil || m.dial && c.PortLB == reuse.On {
		return false
	}
	if testproc.OnGVisor() {
		if c.DeferPort == reuse.On {
			return false
		}
		sharing := c.Addr == reuse.On || c.Port == reuse.On || c.PortLB == reuse.On
		if strings.HasPrefix(network, "udp") && sharing {
			return false // all of these have port 0
		}
	}
	if c.Exclusive == reuse.On && network[0] == 'u' && (m.dial || network != "udp") {
		return false // another user can take the traffic
	}
	return c.DeferPort != reuse.On || m.dial && m.name != "dial" && strings.HasPrefix(network, "tcp")
}

// The zero Config makes the sockets of package net.
func TestZeroConfigIsPackageNet(t *testing.T) {
	t.Parallel()
	ours, err := reuse.Config{}.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ours.Close()
	theirs, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer theirs.Close()
	a, err := reuse.Inspect(ours.(syscall.Conn))
	require.NoError(t, err)
	b, err := reuse.Inspect(theirs.(syscall.Conn))
	require.NoError(t, err)
	assert.Equal(t, b, a)

	lc, err := reuse.Config{}.ListenConfig(net.ListenConfig{})
	require.NoError(t, err)
	assert.Nil(t, lc.Control)
	d, err := reuse.Config{}.Dialer(net.Dialer{})
	require.NoError(t, err)
	assert.Nil(t, d.Control)
	assert.Nil(t, d.ControlContext)
}

// Inspect reads bits: which fields it can tell depends on the system, and on old
// Linux kernels on the kind of socket.
func TestInspectReportsBits(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	got, err := reuse.Inspect(l.(syscall.Conn))
	require.NoError(t, err)
	has := map[reuse.Option]bool{}
	for _, o := range bits[runtime.GOOS] {
		has[o] = true
	}
	for _, o := range all {
		t.Run(o.String(), func(t *testing.T) {
			if o == reuse.DeferPort && runtime.GOOS == "windows" {
				t.Skip("whether the option can be read depends on the version")
			}
			if has[o] && !lacks(t, l.(syscall.Conn), o) {
				assert.NotEqual(t, reuse.Default, get(got, o))
			} else {
				assert.Equal(t, reuse.Default, get(got, o))
			}
		})
	}
}

func TestInspectBadInput(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	file, err := os.Open(os.DevNull)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	for name, tt := range map[string]struct {
		conn syscall.Conn
		want error
	}{
		"nil":          {nil, syscall.EINVAL},
		"nil pointer":  {(*net.TCPConn)(nil), syscall.EINVAL},
		"nil listener": {(*net.TCPListener)(nil), syscall.EINVAL},
		"zero":         {&net.UDPConn{}, syscall.EINVAL},
		"closed":       {closed.(syscall.Conn), net.ErrClosed},
		"closed file":  {file, net.ErrClosed},
		"nil RawConn":  {rawConner{}, syscall.EINVAL},
		"failing":      {rawConner{err: io.ErrUnexpectedEOF}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "closed") && (runtime.GOOS == "js" || runtime.GOOS == "wasip1") {
				t.Skip("package net does not tell here")
			}
			c, err := reuse.Inspect(tt.conn)
			assert.ErrorIs(t, err, tt.want)
			assert.Equal(t, reuse.Config{}, c)
		})
	}
	assert.ErrorIs(t, reuse.Config{Port: reuse.Prefer}.Control("tcp4", "127.0.0.1:0", nil), syscall.EINVAL)
}

// rawConner is a syscall.Conn that has no socket.
type rawConner struct{ err error }

func (r rawConner) SyscallConn() (syscall.RawConn, error) { return nil, r.err }
