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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// packets is a child that opens UDP sockets: its arguments are the option, the
// network and the address, each line of input the number of sockets. It answers
// with their ports and keeps them open.
func packets(args []string, in *bufio.Scanner, out io.Writer) error {
	o, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	c := with(reuse.Option(o), reuse.On)
	for in.Scan() {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			return err
		}
		ports := make([]string, n)
		for i := range ports {
			p, err := c.ListenPacket(context.Background(), args[1], args[2])
			if errors.Is(err, syscall.EMFILE) && i > 0 {
				ports = ports[:i] // some systems allow no more
				break
			}
			if err != nil {
				return fmt.Errorf("socket %d: %w", i, err)
			}
			if got, err := reuse.Inspect(p.(syscall.Conn)); err != nil || get(got, reuse.Option(o)) != reuse.On {
				return fmt.Errorf("socket %d: %v is not On: %v %w", i, reuse.Option(o), got, err)
			}
			ports[i] = portOf(p.LocalAddr())
		}
		fmt.Fprintln(out, strings.Join(ports, " "))
	}
	return in.Err()
}

func portOf(a net.Addr) string {
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		panic(err)
	}
	return port
}

// 4000 sockets of two processes, which open theirs at the same time, never get
// a port twice.
func TestPacketPortZero(t *testing.T) {
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("no processes here")
	}
	const group = "239.255.7.9:0" // for which package net sets SO_REUSEADDR
	for _, o := range []reuse.Option{reuse.Port, reuse.PortLB, reuse.Addr} {
		for _, at := range []string{"udp4 127.0.0.1:0", "udp :0", "udp4 " + group} {
			t.Run(o.String()+"/"+at, func(t *testing.T) {
				network, address, _ := strings.Cut(at, " ")
				c := with(o, reuse.On)
				p, err := c.ListenPacket(t.Context(), network, address)
				if err != nil {
					require.ErrorIs(t, err, errors.ErrUnsupported)
					t.Skipf("not here: %v", err)
				}
				require.NoError(t, p.Close())
				if address == group && runtime.GOOS != "linux" {
					t.Skip("what other systems do with a multicast address is not known")
				}
				if runtime.GOOS == "windows" {
					t.Skip("what Windows does is not known; Wine does as Linux, which gives out ports twice")
				}

				each := 2000
				if runtime.GOOS == "netbsd" {
					each = 500 // of 3,404 files in the whole system (9.1)
				}
				processes := []*testproc.Process{}
				for range 2 {
					processes = append(processes, testproc.Start(t, "packets", strconv.Itoa(int(o)), network, address))
				}
				for _, p := range processes {
					p.Send(strconv.Itoa(each))
				}
				ports, sockets := map[string]bool{}, 0
				for _, p := range processes {
					for port := range strings.FieldsSeq(p.Receive()) {
						ports[port] = true
						sockets++
					}
				}
				if runtime.GOOS == "linux" {
					require.Equal(t, 2*each, sockets)
				}
				assert.Equal(t, sockets, len(ports), "distinct ports")
			})
		}
	}
}

// A socket that got its port by port 0 can be joined, and both receive.
func TestPacketPortZeroIsShared(t *testing.T) {
	t.Parallel()
	for _, o := range []reuse.Option{reuse.Port, reuse.PortLB, reuse.Addr} {
		for _, network := range []string{"udp4", "udp"} {
			t.Run(o.String()+"/"+network, func(t *testing.T) {
				t.Parallel()
				c := with(o, reuse.On)
				first, err := c.ListenPacket(t.Context(), network, loopback(network))
				if err != nil {
					require.ErrorIs(t, err, errors.ErrUnsupported)
					t.Skipf("not here: %v", err)
				}
				defer first.Close()
				address := net.JoinHostPort(strings.TrimSuffix(loopback(network), ":0"), portOf(first.LocalAddr()))
				second, err := c.ListenPacket(t.Context(), network, address)
				if o == reuse.Addr && runtime.GOOS != "linux" && runtime.GOOS != "android" && err != nil {
					t.Skipf("SO_REUSEADDR does not share one UDP address here: %v", err)
				}
				require.NoError(t, err)
				defer second.Close()

				target := net.JoinHostPort("127.0.0.1", portOf(first.LocalAddr()))
				got := received(t, first, second)
				who := map[net.PacketConn]bool{sendTo(t, target, got): true}
				if !balances(o) { // it gets all, and the other when it has gone
					for p := range who {
						require.NoError(t, p.Close())
					}
				}
				for i := 0; len(who) < 2; i++ { // one sender always reaches the same socket
					require.Less(t, i, 1000, "one socket got every datagram")
					who[sendTo(t, target, got)] = true
				}
			})
		}
	}
}

// balances tells whether two sockets that share by this option get their part
// each on this system.
func balances(o reuse.Option) bool {
	switch runtime.GOOS {
	case "linux", "android", "dragonfly":
		return o != reuse.Addr
	}
	return o == reuse.PortLB
}

// sendTo sends a datagram, and another one if none arrives, and returns the socket
// that got it. One was never seen to arrive on an emulated Linux 5.10, where a
// socket of the same address had just been closed.
func sendTo(t testing.TB, address string, got <-chan net.PacketConn) net.PacketConn {
	for range 10 {
		send(t, address)
		select {
		case p := <-got:
			return p
		case <-time.After(2 * time.Second):
		}
	}
	require.Fail(t, "no datagram arrives", address)
	return nil
}

func send(t testing.TB, address string) {
	c, err := net.Dial("udp", address)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte{1})
	require.NoError(t, err)
}

// received tells, for each datagram, which of the sockets got it, until the test
// ends and closes them.
func received(t testing.TB, sockets ...net.PacketConn) <-chan net.PacketConn {
	got := make(chan net.PacketConn, 1)
	var readers sync.WaitGroup
	for _, p := range sockets {
		readers.Go(func() {
			for {
				if _, _, err := p.ReadFrom(make([]byte, 1)); err != nil {
					return
				}
				got <- p
			}
		})
	}
	t.Cleanup(func() {
		for _, p := range sockets {
			p.Close()
		}
		readers.Wait()
	})
	return got
}
