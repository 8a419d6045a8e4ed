package reuse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// binder is a child that tries to bind: each line of input is a network, an
// address and the settings of the options; it answers "ok" or the error, and
// closes what it bound.
func binder(_ []string, in *bufio.Scanner, out io.Writer) error {
	for in.Scan() {
		words := strings.Fields(in.Text())
		var c reuse.Config
		for i, o := range all {
			n, err := strconv.Atoi(words[2+i])
			if err != nil {
				return err
			}
			if s := reuse.Setting(n); s != reuse.Default {
				setField(&c, o, s)
			}
		}
		answer := "ok"
		if err := bind(context.Background(), c, words[0], words[1]); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Fprintln(out, answer)
	}
	return in.Err()
}

// bind binds, and listens, and closes.
func bind(ctx context.Context, c reuse.Config, network, address string) error {
	s, _, err := open(ctx, c, network, address)
	if err != nil {
		return err
	}
	return s.Close()
}

func setField(c *reuse.Config, o reuse.Option, s reuse.Setting) {
	switch o {
	case reuse.Addr:
		c.Addr = s
	case reuse.Port:
		c.Port = s
	case reuse.PortLB:
		c.PortLB = s
	case reuse.Exclusive:
		c.Exclusive = s
	case reuse.DeferPort:
		c.DeferPort = s
	}
}

// exclusiveHolds says where Exclusive holds on this system.
func exclusiveHolds(network, address string) bool {
	host := hostOf(address)
	wildcard := host == "" || host == "0.0.0.0" || host == "::"
	switch runtime.GOOS {
	case "linux", "android":
		if wildcard {
			return network == "tcp" || network == "udp"
		}
		return network[0] == 't'
	case "windows", "solaris", "illumos":
		return true
	case "openbsd", "netbsd", "darwin", "ios":
		return !wildcard
	}
	return false
}

// Where Exclusive holds, no way to bind the address succeeds, from this process
// or another. Where it does not, it is refused, and says so.
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
			c := reuse.Config{Exclusive: reuse.On}
			s, at, err := open(t.Context(), c, tt.network, tt.address)
			if !exclusiveHolds(tt.network, tt.address) {
				require.ErrorIs(t, err, errors.ErrUnsupported)
				var oe *reuse.OptionError
				require.ErrorAs(t, err, &oe)
				assert.Equal(t, reuse.Exclusive, oe.Option)
				// Prefer carries on.
				require.NoError(t, bind(t.Context(), reuse.Config{Exclusive: reuse.Prefer}, tt.network, tt.address))
				return
			}
			require.NoError(t, err)
			defer s.Close()
			got, err := reuse.Inspect(s)
			require.NoError(t, err)
			switch runtime.GOOS {
			case "windows", "solaris", "illumos":
				assert.Equal(t, reuse.On, got.Exclusive)
			default:
				assert.Equal(t, reuse.Default, got.Exclusive)
				assert.NotEqual(t, reuse.On, got.Port)
			}
			if runtime.GOOS == "linux" && tt.network[0] == 't' {
				assert.Equal(t, testproc.OnGVisor(), got.Addr == reuse.Off, "a fast restart needs it")
			}

			port := portOf(at)
			other := testproc.Start(t, "binder")
			if strings.HasPrefix(tt.network, "udp") && onWine() {
				t.Skip("Wine has Linux's rules for UDP")
			}
			for _, rival := range tt.rivals {
				network, host, _ := strings.Cut(rival, " ")
				configs(func(c reuse.Config) {
					if c.Addr == reuse.Prefer || c.Port == reuse.Prefer || c.PortLB != reuse.Default || c.DeferPort != reuse.Default || c.Check() != nil {
						return // nothing new to the kernel
					}
					address := net.JoinHostPort(host, port)
					assert.Error(t, bind(t.Context(), c, network, address), "%s %s %v", network, address, c)
					answer := other.Ask(network, address, fmt.Sprintf("%d %d %d %d %d", c.Addr, c.Port, c.PortLB, c.Exclusive, c.DeferPort))
					assert.NotEqual(t, "ok", answer, "another process: %s %s %v", network, address, c)
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
func TestExclusiveRestart(t *testing.T) {
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("no options here")
	}
	c := reuse.Config{Exclusive: reuse.On}
	l, err := c.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		t.Skipf("not here: %v", err)
	}
	client, err := net.Dial("tcp4", l.Addr().String())
	require.NoError(t, err)
	defer discard(client)
	server, err := l.Accept()
	require.NoError(t, err)
	defer discard(server)
	require.NoError(t, l.Close())
	again, err := c.Listen(t.Context(), "tcp4", l.Addr().String())
	if runtime.GOOS == "solaris" || runtime.GOOS == "illumos" || runtime.GOOS == "windows" && err != nil {
		t.Skipf("SO_EXCLBIND waits for open connections; what Windows does is not known: %v", err)
	}
	if testproc.OnGVisor() {
		require.Error(t, err, "the price of clearing SO_REUSEADDR")
		return
	}
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

// A multicast address gives a wildcard socket on which package net has set
// SO_REUSEADDR (and SO_REUSEPORT): Exclusive takes that away.
func TestExclusiveMulticast(t *testing.T) {
	t.Parallel()
	p, err := reuse.Config{Exclusive: reuse.On}.ListenPacket(t.Context(), "udp4", "239.255.7.7:0")
	if !exclusiveHolds("udp4", "0.0.0.0:0") {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		if runtime.GOOS != "linux" && runtime.GOOS != "android" {
			return
		}
		p, err = reuse.Config{Exclusive: reuse.Prefer}.ListenPacket(t.Context(), "udp4", "239.255.7.7:0")
	}
	require.NoError(t, err)
	defer p.Close()
	got, err := reuse.Inspect(p.(syscall.Conn))
	require.NoError(t, err)
	if runtime.GOOS != "solaris" && runtime.GOOS != "illumos" {
		assert.Equal(t, reuse.Off, got.Addr)
	}
	assert.NotEqual(t, reuse.On, got.Port)
}

// Whatever shares is taken away, also what somebody else has set before.
func TestExclusiveClears(t *testing.T) {
	t.Parallel()
	needPort(t)
	if reuse.Exclusive.Supported() != nil {
		t.Skip("not here")
	}
	lc := net.ListenConfig{Control: func(network, address string, rc syscall.RawConn) error {
		if err := (reuse.Config{Port: reuse.On}).Control(network, address, rc); err != nil {
			return err
		}
		return reuse.Config{Exclusive: reuse.On}.Control(network, address, rc)
	}}
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	got, err := reuse.Inspect(l.(syscall.Conn))
	require.NoError(t, err)
	if runtime.GOOS != "solaris" { // whose SO_EXCLBIND is stronger
		assert.Equal(t, reuse.Off, got.Port)
	}
}
