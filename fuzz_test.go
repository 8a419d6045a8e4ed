//go:build !plan9

package reuse_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// places are where FuzzConfig opens sockets: every network that has ports, each kind of
// address, listening and dialing.
var places = []struct {
	dial             bool
	network, address string
}{
	{false, "tcp", ":0"},
	{false, "tcp", "127.0.0.1:0"},
	{false, "tcp4", "0.0.0.0:0"},
	{false, "tcp4", "127.0.0.1:0"},
	{false, "tcp6", "[::]:0"},
	{false, "tcp6", "[::1]:0"},
	{false, "udp", ":0"},
	{false, "udp4", "0.0.0.0:0"},
	{false, "udp4", "127.0.0.1:0"},
	{false, "udp4", "224.0.0.251:0"},
	{false, "udp6", "[::]:0"},
	{false, "udp6", "[::1]:0"},
	{true, "tcp4", "127.0.0.1:0"},
	{true, "tcp4", ""},
	{true, "tcp6", "[::1]:0"},
	{true, "udp4", "127.0.0.1:0"},
	{true, "udp4", ""},
	{true, "udp6", "[::1]:0"},
}

// fromNumber makes any Config, one in three with a value that is no Setting.
func fromNumber(n uint16) (c reuse.Config) {
	for _, o := range all {
		setField(&c, o, reuse.Setting(n%5))
		n /= 5
	}
	return c
}

// Any two Configs, one after the other on the same address: what Check refuses is refused;
// otherwise what is On or Off is so on the socket, or the error names an option, or it is
// one that package net has, too. Whatever the second is, the first stays as it was.
//
//	go test -fuzz FuzzConfig .
func FuzzConfig(f *testing.F) {
	remotes := map[string]string{}
	for _, p := range places {
		if _, ok := remotes[p.network]; ok || !p.dial {
			continue
		}
		if l, err := net.ListenPacket("udp"+p.network[3:], loopback(p.network)); err == nil {
			l.Close()
			remotes[p.network] = peer(f, p.network, loopback(p.network))
		}
	}
	for n := range places {
		for _, a := range []uint16{0, 1, 5, 25, 125, 625, 31, 2 * 125, 4} {
			f.Add(a, uint16(5), uint8(n))
			f.Add(uint16(25), a, uint8(n))
		}
	}
	f.Fuzz(func(t *testing.T, a, b uint16, n uint8) {
		p := places[int(n)%len(places)]
		if _, ok := remotes[p.network]; p.dial && !ok {
			t.Skip("no loopback")
		}
		openAt := func(c reuse.Config, address string) (socket, string, error) {
			if !p.dial {
				s, at, err := open(t.Context(), c, p.network, address)
				if err != nil {
					return nil, "", err
				}
				return s, at.String(), nil
			}
			conn, err := c.Dial(t.Context(), p.network, address, remotes[p.network])
			if err != nil {
				return nil, "", err
			}
			return conn.(socket), conn.LocalAddr().String(), nil
		}
		files := 0
		if runtime.GOOS == "linux" {
			files = openFiles()
		}
		first, at, err := openAt(fromNumber(a), p.address)
		judge(t, fromNumber(a), first, err)
		if err == nil {
			was, err := reuse.Inspect(first)
			require.NoError(t, err)
			second, _, err := openAt(fromNumber(b), at)
			judge(t, fromNumber(b), second, err)
			is, ierr := reuse.Inspect(first)
			require.NoError(t, ierr)
			assert.Equal(t, was, is, "the first socket has changed")
			if err == nil {
				discard(second)
			}
			discard(first)
		} else if plain, _, nerr := openAt(reuse.Config{}, p.address); nerr == nil {
			discard(plain)
			var oe *reuse.OptionError
			assert.ErrorAs(t, err, &oe, "it is none of package net's")
		}
		if runtime.GOOS == "linux" {
			// The peer of a connection is this process, too, and may still close; the
			// garbage collector would close what leaks.
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			for range 100_000 {
				if openFiles() <= files {
					return
				}
				runtime.Gosched()
			}
			assert.Fail(t, "descriptors are left open")
		}
	})
}

// judge checks one result.
func judge(t *testing.T, c reuse.Config, s socket, err error) {
	t.Helper()
	var oe *reuse.OptionError
	var ne *net.OpError
	if cerr := c.Check(); cerr != nil {
		require.ErrorAs(t, cerr, &oe, "%v", c)
		want := *oe
		require.ErrorAs(t, err, &oe, "%v", c)
		require.Equal(t, want.Error(), oe.Error())
	}
	if err != nil {
		require.ErrorAs(t, err, &ne, "%v", c)
		if errors.As(err, &oe) {
			require.NotEqual(t, reuse.Default, get(c, oe.Option), "%v: %v", c, err)
		}
		return
	}
	got, err := reuse.Inspect(s)
	require.NoError(t, err)
	for _, o := range bits[runtime.GOOS] {
		switch asked := get(c, o); {
		case asked == reuse.On, asked == reuse.Off && !lacks(t, s, o):
			require.Equal(t, asked, get(got, o), "%v: %v", c, o)
		}
	}
	if c.Exclusive == reuse.On && runtime.GOOS == "linux" {
		require.Equal(t, reuse.Off, got.Port, "%v", c)
	}
}

// Addresses and networks are taken and refused as package net does. Nothing leaves the
// machine: names are not asked for, and nobody is connected to but the test itself.
//
//	go test -fuzz FuzzAddress .
func FuzzAddress(f *testing.F) {
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		f.Skip("a Dialer that has a Control function fails here")
	}
	resolver := net.DefaultResolver
	f.Cleanup(func() { net.DefaultResolver = resolver })
	offline := errors.New("nobody is asked for names here")
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, offline }}

	udp := peer(f, "udp4", "127.0.0.1:0")
	for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "ip4:icmp", "", "tcp5", "TCP4", "udp4:"} {
		for _, address := range []string{
			"127.0.0.1:0", "[::1]:0", ":0", "", "127.0.0.1", "127.0.0.1:", "localhost:0", "localhost:http", "[::1%lo]:0", "[::%]]:0", "[fe80::1%1]:0",
			"127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+0", "127.0.0.1:00", "127.1:0", "0x7f.1:0", "127.0.0.01:0", "[::ffff:127.0.0.1]:0", "[127.0.0.1]:0",
			"[::1:0", "::1:0", "[]:0", "[:]:0", "127.0.0.1:0:0", "127.0.0.1\x00:0", "127.0.0.1:\x00", "224.0.0.251:0", "192.0.2.250:0", "*:0", "@fuzz", "@fuzz\x00b", "\xff:0",
		} {
			f.Add(network, address, uint16(0))
			f.Add(network, address, uint16(10)) // Port: Off
		}
	}
	f.Fuzz(func(t *testing.T, network, address string, n uint16) {
		c := fromNumber(n)
		for _, o := range all { // that asks for nothing that could be refused
			if get(c, o) != reuse.Off {
				setField(&c, o, reuse.Default)
			}
		}
		if strings.HasPrefix(network, "unix") && !strings.HasPrefix(address, "@fuzz") {
			return // a file, or somebody's socket
		}
		ctx := t.Context()
		same := func(what string, ours, theirs error) {
			t.Helper()
			for _, err := range []error{ours, theirs} {
				if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, reuse.ErrSelfDial) {
					return // another test's
				}
			}
			require.Equal(t, theirs == nil, ours == nil, "%s %q %q %v: %v, not %v", what, network, address, c, ours, theirs)
			if ours != nil {
				var ne *net.OpError
				require.ErrorAs(t, ours, &ne, "%s %q %q", what, network, address)
				if errors.As(theirs, &ne) {
					require.IsType(t, errors.Unwrap(theirs), errors.Unwrap(ours), "%s %q %q: %v, not %v", what, network, address, ours, theirs)
				}
			}
		}
		l, theirs := net.Listen(network, address)
		if theirs == nil {
			l.Close()
		}
		l, ours := c.Listen(ctx, network, address)
		if ours == nil {
			l.Close()
		}
		same("Listen", ours, theirs)

		p, theirs := net.ListenPacket(network, address)
		if theirs == nil {
			p.Close()
		}
		p, ours = c.ListenPacket(ctx, network, address)
		if ours == nil {
			p.Close()
		}
		same("ListenPacket", ours, theirs)

		// Of a dial only what comes before the connection.
		stop := errors.New("stop")
		var to [2][]string
		var errs [2]error
		for i := range 2 {
			d := net.Dialer{Control: func(network, address string, _ syscall.RawConn) error {
				to[i] = append(to[i], network+" "+address)
				return stop
			}}
			if i == 1 {
				var err error
				d, err = c.Dialer(d)
				require.NoError(t, err)
			}
			_, errs[i] = d.DialContext(ctx, network, address)
			require.Error(t, errs[i])
		}
		require.ElementsMatch(t, to[0], to[1], "Dialer %q %q", network, address)
		same("Dialer", errs[1], errs[0])
		if len(to[0]) == 0 {
			_, err := c.Dial(ctx, network, "", address)
			same("Dial to", err, errs[0])
		}

		// From an address, to the peer.
		if !strings.HasPrefix(network, "udp") || address == "" {
			return
		}
		local, theirs := net.ResolveUDPAddr(network, address)
		if theirs == nil {
			if ip, ok := netip.AddrFromSlice(local.IP); ok && !ip.Unmap().IsLoopback() && !ip.IsUnspecified() {
				return
			}
			var conn net.Conn
			if conn, theirs = (&net.Dialer{LocalAddr: local}).DialContext(ctx, network, udp); theirs == nil {
				conn.Close()
			}
		}
		conn, ours := c.Dial(ctx, network, address, udp)
		if ours == nil {
			conn.Close()
		}
		same("Dial from", ours, theirs)
	})
}
