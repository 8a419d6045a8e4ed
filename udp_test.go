package reuse_test

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

var sharingOptions = []reuse.Option{reuse.Port, reuse.PortLB, reuse.Addr}

// Sockets that are opened at the same time with port 0 never get a port twice, though
// all of them share.
func TestPortZeroIsNotShared(t *testing.T) {
	const each = 500 // of 28,232 ports; 18 would be expected twice
	remote := peer(t, "udp4", "127.0.0.1:0")
	for _, o := range sharingOptions {
		c := with(o, reuse.On)
		for name, open := range map[string]func() (io.Closer, error){
			"listen":           func() (io.Closer, error) { return c.ListenPacket(t.Context(), "udp4", "127.0.0.1:0") },
			"listen dual":      func() (io.Closer, error) { return c.ListenPacket(t.Context(), "udp", ":0") },
			"listen multicast": func() (io.Closer, error) { return c.ListenPacket(t.Context(), "udp4", "239.255.7.9:0") },
			"dial from":        func() (io.Closer, error) { return c.Dial(t.Context(), "udp4", "127.0.0.1:0", remote) },
			"dial":             func() (io.Closer, error) { return c.Dial(t.Context(), "udp4", "", remote) },
		} {
			if o == reuse.PortLB && strings.HasPrefix(name, "dial") {
				continue // Dial refuses it
			}
			t.Run(o.String()+" "+name, func(t *testing.T) {
				supportedHere(t, closed(open()))
				if (name != "listen" && name != "listen dual") && goos() != "linux" || runtime.GOOS == "windows" {
					t.Skip("what this system does is unverified")
				}
				var sockets [2][]io.Closer
				var openers sync.WaitGroup
				for i := range sockets {
					openers.Go(func() {
						for range each {
							s, err := open()
							if errors.Is(err, syscall.EMFILE) && goos() != "linux" {
								return // some systems allow no more
							}
							if !assert.NoError(t, err) {
								return
							}
							sockets[i] = append(sockets[i], s)
						}
					})
				}
				openers.Wait()
				ports := map[string]bool{}
				list := append(sockets[0], sockets[1]...)
				for _, s := range list {
					assert.Equal(t, reuse.On, get(inspect(t, s), o))
					ports[portOf(s)] = true
					s.Close()
				}
				assert.Len(t, ports, len(list), "distinct ports")
			})
		}
	}
}

// A socket that got its port by port 0 can be joined, and both receive.
func TestPortZeroCanBeJoined(t *testing.T) {
	t.Parallel()
	for _, o := range sharingOptions {
		for _, network := range []string{"udp4", "udp"} {
			t.Run(o.String()+"/"+network, func(t *testing.T) {
				t.Parallel()
				c := with(o, reuse.On)
				first, err := open(t.Context(), c, network, loopback(network))
				supportedHere(t, err)
				defer first.Close()
				second, err := open(t.Context(), c, network, strings.TrimSuffix(loopback(network), "0")+portOf(first))
				if o == reuse.Addr && goos() != "linux" && err != nil {
					t.Skipf("SO_REUSEADDR does not share one UDP address here: %v", err)
				}
				require.NoError(t, err)
				defer second.Close()
				go says(first, "first")
				go says(second, "second")
				to := target(network, first)
				seen := map[string]bool{who(t, network, to): true}
				spreads := o == reuse.PortLB || o == reuse.Port && (goos() == "linux" || goos() == "dragonfly")
				if !spreads && seen["first"] { // one gets all, and the other when it has gone
					first.Close()
				} else if !spreads {
					second.Close()
				}
				for i := 0; len(seen) < 2; i++ { // one client always reaches the same socket
					require.Less(t, i, 1000, "one socket gets every datagram")
					seen[who(t, network, to)] = true
				}
			})
		}
	}
}

// Control sees UDP with port 0, for which Linux may give out a port that another
// socket shares, and fails there, whether the option is On or preferred: it is the call
// that is wrong, not the system. A port is shared, also with a dialed socket.
func TestControlRefusesPortZero(t *testing.T) {
	t.Parallel()
	for _, o := range sharingOptions {
		if o.Supported() != nil {
			continue
		}
		for _, s := range []reuse.Setting{reuse.On, reuse.Prefer} {
			lc, err := with(o, s).ListenConfig(net.ListenConfig{})
			require.NoError(t, err)
			err = closed(lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0"))
			if goos() != "linux" {
				require.NoError(t, err)
				continue
			}
			isOptionError(t, err, o, os.ErrInvalid, s)
			assert.Contains(t, err.Error(), "ListenPacket")

			if testproc.OnGVisor() {
				continue // where ListenPacket refuses port 0
			}
			p, err := with(o, s).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
			require.NoError(t, err)
			defer p.Close()
			assert.NoError(t, closed(lc.ListenPacket(t.Context(), "udp4", local(p))), "%v %v", o, s)
			if o != reuse.PortLB {
				assert.NoError(t, closed(with(o, s).Dial(t.Context(), "udp4", local(p), "127.0.0.1:9")), "%v %v", o, s)
			}
		}
	}
}

// With a multicast address package net sets SO_REUSEADDR itself. ListenPacket with
// port 0 takes it away for the bind and gives it back, unless Addr is Off.
func TestMulticastPortZeroKeepsAddr(t *testing.T) {
	t.Parallel()
	supportedHere(t, reuse.Port.Supported())
	for setting, want := range map[reuse.Setting]reuse.Setting{reuse.Default: reuse.On, reuse.Off: reuse.Off} {
		p, err := reuse.Config{Addr: setting, Port: reuse.On}.ListenPacket(t.Context(), "udp4", "239.255.7.8:0")
		supportedHere(t, err)
		defer p.Close()
		got := inspect(t, p)
		assert.Equal(t, reuse.On, got.Port)
		assert.Equal(t, want, got.Addr)
	}
}
