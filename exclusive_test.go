package reuse_test

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// Where Exclusive holds, no way to bind the address succeeds. Elsewhere On is an error, and
// Prefer carries on. TestSupportFollowsFromTheRules and, on Linux, TestExclusiveDetour say
// where it holds.
func TestExclusive(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network, address string
		rivals           []string // network and host; for each, every Config is tried
	}{
		{"tcp4", "127.0.0.1:0", []string{"tcp4 127.0.0.1"}},
		{"udp4", "127.0.0.1:0", []string{"udp4 127.0.0.1"}},
		{"tcp6", "[::1]:0", []string{"tcp6 ::1"}},
		{"udp6", "[::1]:0", []string{"udp6 ::1"}},
		{"tcp4", "0.0.0.0:0", []string{"tcp4 0.0.0.0", "tcp4 127.0.0.1"}},
		{"udp4", "0.0.0.0:0", []string{"udp4 0.0.0.0", "udp4 127.0.0.1"}},
		{"tcp6", "[::]:0", []string{"tcp6 ::", "tcp6 ::1"}},
		{"udp6", "[::]:0", []string{"udp6 ::", "udp6 ::1"}},
		{"tcp", ":0", []string{"tcp ", "tcp4 0.0.0.0", "tcp4 127.0.0.1", "tcp6 ::", "tcp6 ::1"}},
		{"udp", ":0", []string{"udp ", "udp4 0.0.0.0", "udp4 127.0.0.1", "udp6 ::", "udp6 ::1"}},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			t.Parallel()
			needNetwork(t, tt.network)
			s, err := open(t.Context(), reuse.Config{Exclusive: reuse.On}, tt.network, tt.address)
			if errors.Is(err, errors.ErrUnsupported) {
				isOptionError(t, err, reuse.Exclusive, errors.ErrUnsupported)
				require.NoError(t, bind(t.Context(), reuse.Config{Exclusive: reuse.Prefer}, tt.network, tt.address))
				return
			}
			require.NoError(t, err)
			defer s.Close()
			got := inspect(t, s)
			assert.NotEqual(t, reuse.On, got.Port)
			if goos() == "linux" && tt.network[0] == 't' {
				assert.Equal(t, testproc.OnGVisor(), got.Addr == reuse.Off, "a fast restart needs it")
			}
			if tt.network[0] == 'u' && onWine() {
				t.Skip("Wine has Linux's rules for UDP")
			}
			for _, rival := range tt.rivals {
				network, host, _ := strings.Cut(rival, " ")
				configs(len(all), func(c reuse.Config) {
					if c.Addr == reuse.Prefer || c.Port == reuse.Prefer || c.PortLB != reuse.Default || c.DeferPort != reuse.Default || c.Check() != nil {
						return // nothing new to the kernel
					}
					assert.Error(t, bind(t.Context(), c, network, net.JoinHostPort(host, portOf(s))), "%s %v", rival, c)
				})
			}
		})
	}
}

// An exclusive TCP listener restarts at once on Linux, though connections of its
// predecessor remain.
//
// It is not parallel: while another test starts a process, that has the listener's
// descriptor until it calls exec, and the listener lives on.
func TestExclusiveListenerRestarts(t *testing.T) {
	c := reuse.Config{Exclusive: reuse.On}
	l, err := c.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	supportedHere(t, err)
	client, err := net.Dial("tcp4", local(l))
	require.NoError(t, err)
	defer discard(client)
	server, err := l.Accept()
	require.NoError(t, err)
	defer discard(server)
	require.NoError(t, l.Close())
	err = bind(t.Context(), c, "tcp4", local(l))
	switch {
	case runtime.GOOS == "solaris", runtime.GOOS == "illumos", runtime.GOOS == "windows" && err != nil:
		t.Skipf("SO_EXCLBIND waits for open connections; what Windows does is unverified: %v", err)
	case testproc.OnGVisor():
		require.Error(t, err, "the price of clearing SO_REUSEADDR")
	default:
		require.NoError(t, err)
	}
}

// Exclusive clears what shares, also what package net has set for a multicast address,
// and what another Control function has set before.
func TestExclusiveClears(t *testing.T) {
	t.Parallel()
	if goos() == "linux" || goos() == "windows" { // SO_EXCLBIND is stronger
		p, err := open(t.Context(), reuse.Config{Exclusive: reuse.Prefer}, "udp4", "239.255.7.7:0")
		require.NoError(t, err)
		defer p.Close()
		assert.Equal(t, reuse.Off, inspect(t, p).Addr)
	}
	supportedHere(t, reuse.Exclusive.Supported())
	supportedHere(t, reuse.Port.Supported())
	lc := net.ListenConfig{Control: func(network, address string, rc syscall.RawConn) error {
		if err := (reuse.Config{Port: reuse.On}).Control(network, address, rc); err != nil {
			return err
		}
		return reuse.Config{Exclusive: reuse.On}.Control(network, address, rc)
	}}
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	if runtime.GOOS != "solaris" {
		assert.Equal(t, reuse.Off, inspect(t, l).Port)
	}
}
