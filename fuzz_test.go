//go:build !plan9

package reuse_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// Addresses and networks are taken and refused as package net does, and bad ones are
// never a panic. Nothing leaves the machine: names are not asked for, and nothing is
// connected to but the test itself.
//
//	go test -fuzz FuzzAddress .
func FuzzAddress(f *testing.F) {
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		f.Skip("a Dialer that has a Control function fails here")
	}
	resolver := net.DefaultResolver
	f.Cleanup(func() { net.DefaultResolver = resolver })
	offline := errors.New("names are not asked for here")
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, offline }}

	udp := peer(f, "udp4", "127.0.0.1:0")
	for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "ip4:icmp", "", "tcp5", "TCP4", "udp4:", "tcp\x00"} {
		for _, address := range []string{
			"127.0.0.1:0", "[::1]:0", ":0", "", "127.0.0.1", "127.0.0.1:", "localhost:0", "localhost:http", "[::1%lo]:0", "[::%]]:0", "[fe80::1%1]:0",
			"127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+0", "127.0.0.1:00", "127.1:0", "0x7f.1:0", "127.0.0.01:0", "[::ffff:127.0.0.1]:0", "[127.0.0.1]:0",
			"[::1:0", "::1:0", "[]:0", "[:]:0", "127.0.0.1:0:0", "127.0.0.1\x00:0", "127.0.0.1:\x00", "224.0.0.251:0", "192.0.2.250:0", "*:0", "@fuzz", "@fuzz\x00b", "\xff:0",
			"@fuzz" + strings.Repeat("x", 300),
		} {
			f.Add(network, address, false)
			f.Add(network, address, true)
		}
	}
	f.Fuzz(func(t *testing.T, network, address string, off bool) {
		var c reuse.Config
		if off { // Control is called, and asks for nothing that could be refused
			c = reuse.Config{Port: reuse.Off, DeferPort: reuse.Off}
		}
		if strings.HasPrefix(network, "unix") && !strings.HasPrefix(address, "@fuzz") {
			return // a file, or another program's socket
		}
		ctx, ours := t.Context(), calls(t, c)
		same := func(what string, ours, theirs error) {
			t.Helper()
			for _, err := range []error{ours, theirs} {
				if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, reuse.ErrSelfDial) {
					return // another test's
				}
			}
			require.Equal(t, theirs == nil, ours == nil, "%s %q %q %v: %v, not %v", what, network, address, c, ours, theirs)
			var ne *net.OpError
			if errors.As(theirs, &ne) {
				require.IsType(t, errors.Unwrap(theirs), errors.Unwrap(ours), "%s %q %q: %v, not %v", what, network, address, ours, theirs)
			}
		}
		listens := closed(net.Listen(network, address))
		same("Listen", ours["Listen"](network, address), listens)
		same("ListenConfig", ours["ListenConfig"](network, address), listens)
		same("ListenPacket", ours["ListenPacket"](network, address), closed(net.ListenPacket(network, address)))

		// Of a dial only what comes before the connection.
		dial := func(c reuse.Config) (to []string, err error) {
			d, err := c.Dialer(net.Dialer{Control: func(network, address string, _ syscall.RawConn) error {
				to = append(to, network+" "+address)
				return errors.New("stop")
			}})
			require.NoError(t, err)
			err = closed(d.DialContext(ctx, network, address))
			require.Error(t, err)
			return to, err
		}
		to, dials := dial(reuse.Config{})
		got, err := dial(c)
		require.ElementsMatch(t, to, got, "Dialer %q %q", network, address)
		same("Dialer", err, dials)
		if len(to) == 0 {
			same("Dial to", ours["Dial to"](network, address), dials)
		}

		// From an address, to the peer.
		if !strings.HasPrefix(network, "udp") || address == "" {
			return
		}
		laddr, theirs := net.ResolveUDPAddr(network, address)
		if theirs == nil {
			if ip, ok := netip.AddrFromSlice(laddr.IP); ok && !ip.Unmap().IsLoopback() && !ip.IsUnspecified() {
				return
			}
			theirs = closed((&net.Dialer{LocalAddr: laddr}).DialContext(ctx, network, udp))
		}
		same("Dial from", closed(c.Dial(ctx, network, address, udp)), theirs)
	})
}
