package reuse_test

import (
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// A maker makes sockets of one kind.
type maker struct {
	name string
	dial bool
	make func(c reuse.Config) (any, error)
}

// makers are the ways to get a socket of a network. By default package net listens with
// MPTCP and dials without, so the others are the reverse.
func makers(t testing.TB, network string) []maker {
	ctx, from := t.Context(), net.JoinHostPort(localhost(network), "0")
	remote := peer(t, network, from)
	list := []maker{
		{"listen", false, func(c reuse.Config) (any, error) { return open(ctx, c, network, loopback(network)) }},
		{"dial", true, func(c reuse.Config) (any, error) { return c.Dial(ctx, network, "", remote) }},
		{"dial from", true, func(c reuse.Config) (any, error) { return c.Dial(ctx, network, from, remote) }},
	}
	if network[0] == 'u' {
		return list
	}
	return append(list, maker{"ListenConfig", false, func(c reuse.Config) (any, error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		lc, err := c.ListenConfig(lc)
		if err != nil {
			return nil, err
		}
		return lc.Listen(ctx, network, loopback(network))
	}}, maker{"Dialer", true, func(c reuse.Config) (any, error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}
		d.SetMultipathTCP(true)
		d, err := c.Dialer(d)
		if err != nil {
			return nil, err
		}
		return d.DialContext(ctx, network, remote)
	}})
}

// For Configs with up to two fields, all of them in a release, and every kind of socket:
// what is asked for reads back, or the call fails and names an option. What is not asked
// for is as package net has it, and what the system has no number for is Default.
func TestReadback(t *testing.T) {
	t.Parallel()
	fields := 2
	if release {
		fields = len(all)
	}
	for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			needNetwork(t, network)
			for _, m := range makers(t, network) {
				readback(t, m, network, fields)
			}
		})
	}
}

func readback(t *testing.T, m maker, network string, fields int) {
	plain, err := m.make(reuse.Config{})
	require.NoError(t, err, "%s %s", m.name, network)
	base := inspect(t, plain)
	discard(plain.(socket))

	made, inForce := 0, 0
	configs(fields, func(c reuse.Config) {
		s, err := m.make(c)
		if runtime.GOOS == "linux" {
			require.Equal(t, possibleOnLinux(c, m, network), err == nil, "%s %s %v: %v", m.name, network, c, err)
		}
		if err != nil {
			var oe *reuse.OptionError
			if assert.ErrorAs(t, err, &oe, "%s %v", m.name, c) {
				assert.NotEqual(t, reuse.Default, get(c, oe.Option), "%s %v: %v", m.name, c, err)
			}
			return
		}
		defer discard(s.(socket))
		made++
		got := inspect(t, s)
		for _, o := range all {
			what := []any{"%s %s %v: %v", m.name, network, c, o}
			asked, is := get(c, o), get(got, o)
			sameBit := map[reuse.Option]reuse.Option{reuse.Port: reuse.PortLB, reuse.PortLB: reuse.Port}[o]
			switch {
			case !readable(o):
				if goos() != "windows" { // where it depends on the version
					assert.Equal(t, reuse.Default, is, what...)
				}
			case asked == reuse.On:
				assert.Equal(t, reuse.On, is, what...)
				inForce++
			case asked == reuse.Off: // or Default, if the socket has no such option
				assert.NotEqual(t, reuse.On, is, what...)
				inForce++
			case asked == reuse.Prefer:
				if runtime.GOOS == "linux" && o != reuse.DeferPort && possibleOnLinux(with(o, reuse.On), m, network) {
					assert.Equal(t, reuse.On, is, what...)
				}
			case testproc.OnGVisor() && o == reuse.Addr && wanted(c.Exclusive): // which clears it
			case sameBit != 0 && get(c, sameBit) != reuse.Default && goos() != "freebsd":
			default:
				assert.Equal(t, get(base, o), is, what...)
			}
		}
	})
	assert.NotZero(t, made)
	if slices.ContainsFunc(all, readable) {
		assert.NotZero(t, inForce)
	}
}

// possibleOnLinux says which Configs Linux can satisfy.
func possibleOnLinux(c reuse.Config, m maker, network string) bool {
	udp := network[0] == 'u'
	switch {
	case c.Check() != nil, m.dial && c.PortLB == reuse.On:
		return false
	case c.DeferPort == reuse.On && (!m.dial || m.name == "dial" || udp || testproc.OnGVisor()):
		return false
	case testproc.OnGVisor() && udp && (c.Addr == reuse.On || c.Port == reuse.On || c.PortLB == reuse.On):
		return false // all of these have port 0
	}
	return c.Exclusive != reuse.On || !udp || !m.dial && network == "udp" // another user can take the traffic
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
		"nil":         {nil, syscall.EINVAL},
		"nil pointer": {(*net.TCPConn)(nil), syscall.EINVAL},
		"zero":        {&net.UDPConn{}, syscall.EINVAL},
		"closed":      {closed.(syscall.Conn), net.ErrClosed},
		"closed file": {file, net.ErrClosed},
		"nil RawConn": {rawConn{}, syscall.EINVAL},
		"failing":     {rawConn{err: io.ErrUnexpectedEOF}, io.ErrUnexpectedEOF},
	} {
		if strings.HasPrefix(name, "closed") && (runtime.GOOS == "js" || runtime.GOOS == "wasip1") {
			continue // package net does not tell here
		}
		c, err := reuse.Inspect(tt.conn)
		assert.ErrorIs(t, err, tt.want, name)
		assert.Equal(t, reuse.Config{}, c, name)
	}
}
