package reuse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// release has the tests that try a sample try everything. See CONTRIBUTING.md.
var release = os.Getenv("REUSE_RELEASE") == "1"

// goos is the system, of which some have two names.
func goos() string {
	switch runtime.GOOS {
	case "android":
		return "linux"
	case "ios":
		return "darwin"
	}
	return runtime.GOOS
}

var (
	settings = []reuse.Setting{reuse.Default, reuse.On, reuse.Off, reuse.Prefer}
	all      = []reuse.Option{reuse.Addr, reuse.Port, reuse.PortLB, reuse.Exclusive, reuse.DeferPort}

	// supported are the options that a system has for at least some address.
	supported = map[string][]reuse.Option{
		"linux":     all,
		"freebsd":   {reuse.Addr, reuse.Port, reuse.PortLB},
		"dragonfly": {reuse.Addr, reuse.Port, reuse.PortLB},
		"darwin":    {reuse.Addr, reuse.Port, reuse.Exclusive},
		"netbsd":    {reuse.Addr, reuse.Port, reuse.Exclusive},
		"openbsd":   {reuse.Addr, reuse.Port, reuse.Exclusive},
		"aix":       {reuse.Addr, reuse.Port},
		"illumos":   {reuse.Addr, reuse.Exclusive},
		"windows":   {reuse.Addr, reuse.Exclusive, reuse.DeferPort},
		"js":        nil, "wasip1": nil, "plan9": nil,
	}
)

// readable reports whether Inspect reads an option here.
func readable(o reuse.Option) bool {
	switch goos() {
	case "solaris":
		return o != reuse.DeferPort
	case "windows", "illumos":
		return o == reuse.Addr || o == reuse.Exclusive
	}
	return o != reuse.Exclusive && slices.Contains(supported[goos()], o)
}

// configs calls f with every Config that has at most a number of fields that are not
// Default.
func configs(fields int, f func(reuse.Config)) {
	for n := range 1 << 10 {
		var c reuse.Config
		asked := 0
		for i, o := range all {
			s := settings[n>>(2*i)&3]
			*field(&c, o) = s
			if s != reuse.Default {
				asked++
			}
		}
		if asked <= fields {
			f(c)
		}
	}
}

// field returns one field of a Config.
func field(c *reuse.Config, o reuse.Option) *reuse.Setting {
	return []*reuse.Setting{&c.Addr, &c.Port, &c.PortLB, &c.Exclusive, &c.DeferPort}[slices.Index(all, o)]
}

func get(c reuse.Config, o reuse.Option) reuse.Setting { return *field(&c, o) }

// with returns a Config with one field set.
func with(o reuse.Option, s reuse.Setting) (c reuse.Config) {
	*field(&c, o) = s
	return c
}

func wanted(s reuse.Setting) bool { return s == reuse.On || s == reuse.Prefer }

// A socket is what Inspect and a test need of one.
type socket interface {
	syscall.Conn
	io.Closer
}

// open listens, for streams or packets as the network says.
func open(ctx context.Context, c reuse.Config, network, address string) (socket, error) {
	if strings.HasPrefix(network, "udp") {
		p, err := c.ListenPacket(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return p.(socket), nil
	}
	l, err := c.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return l.(socket), nil
}

// closed closes what was opened, or returns why it was not.
func closed(s io.Closer, err error) error {
	if err != nil {
		if s != nil {
			panic("there is a socket and an error")
		}
		return err
	}
	discard(s)
	return nil
}

// bind binds, and listens, and closes.
func bind(ctx context.Context, c reuse.Config, network, address string) error {
	return closed(open(ctx, c, network, address))
}

// discard closes a socket so that nothing of it, no TIME_WAIT, remains.
func discard(s io.Closer) {
	if c, ok := s.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	s.Close()
}

// local returns the address of a socket.
func local(s any) string {
	if l, ok := s.(net.Listener); ok {
		return l.Addr().String()
	}
	return s.(interface{ LocalAddr() net.Addr }).LocalAddr().String()
}

func portOf(s any) string {
	_, port, err := net.SplitHostPort(local(s))
	if err != nil {
		panic(err)
	}
	return port
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

// localhost is the host that a network reaches this machine on.
func localhost(network string) string {
	if network[3:] == "6" {
		return "::1"
	}
	return "127.0.0.1"
}

// target is an address of a socket of a network, on which it can be reached.
func target(network string, s any) string { return net.JoinHostPort(localhost(network), portOf(s)) }

// needNetwork skips a test of a network that this machine lacks.
func needNetwork(t testing.TB, network string) {
	t.Helper()
	if err := closed(net.ListenPacket("udp"+network[3:], loopback(network))); err != nil {
		t.Skipf("no loopback for %s: %v", network, err)
	}
}

// supportedHere skips a test if an error says that this system lacks something.
func supportedHere(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("not here: %v", err)
	}
	require.NoError(t, err)
}

// inspect returns what Inspect says of a socket.
func inspect(t testing.TB, s any) reuse.Config {
	t.Helper()
	c, err := reuse.Inspect(s.(syscall.Conn))
	require.NoError(t, err)
	return c
}

// peer returns an address that can be dialed until the test ends.
func peer(t testing.TB, network, address string) string {
	s, err := open(t.Context(), reuse.Config{}, network, address)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	go says(s, "")
	return local(s)
}

// says answers every connection, or every datagram, with a name, until s is closed.
func says(s io.Closer, name string) {
	if p, ok := s.(net.PacketConn); ok {
		for b := make([]byte, 1); ; {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(name), from)
		}
	}
	for {
		c, err := s.(net.Listener).Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, name)
		c.Close()
	}
}

// who returns the name that a client gets. It sends a datagram up to five times: one was
// never seen to arrive on an emulated Linux 5.10, where a socket of the same address
// had just been closed.
func who(t testing.TB, network, address string) string {
	t.Helper()
	b := make([]byte, 100)
	for range 5 {
		c, err := net.Dial(network, address)
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
		if network[0] == 'u' {
			_, err = c.Write([]byte{0})
			require.NoError(t, err)
		}
		n, err := c.Read(b)
		discard(c)
		if err == nil {
			return string(b[:n])
		}
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	require.Fail(t, "no answer", address)
	return ""
}

// netError checks that an error is one that users of package net expect.
func netError(t testing.TB, op string, err error) error {
	t.Helper()
	var oe *net.OpError
	if err != nil && assert.ErrorAs(t, err, &oe) {
		assert.Equal(t, op, oe.Op)
	}
	return err
}

// isOptionError checks that an error is about an option, and of one kind.
func isOptionError(t testing.TB, err error, o reuse.Option, kind error, what ...any) {
	t.Helper()
	var oe *reuse.OptionError
	require.ErrorAs(t, err, &oe, what...)
	assert.Equal(t, o, oe.Option, what...)
	for _, k := range []error{errors.ErrUnsupported, reuse.ErrConflict, os.ErrInvalid} {
		assert.Equal(t, errors.Is(kind, k), errors.Is(err, k), "%v: %v, for %v", err, k, what)
	}
}

// calls returns what can be done with a Config and an address. What succeeds is
// closed.
func calls(t testing.TB, c reuse.Config) map[string]func(network, address string) error {
	ctx := t.Context()
	return map[string]func(network, address string) error{
		"Listen": func(network, address string) error {
			return netError(t, "listen", closed(c.Listen(ctx, network, address)))
		},
		"ListenPacket": func(network, address string) error {
			return netError(t, "listen", closed(c.ListenPacket(ctx, network, address)))
		},
		"Dial to": func(network, address string) error {
			return netError(t, "dial", closed(c.Dial(ctx, network, "", address)))
		},
		"Dial from": func(network, address string) error {
			return netError(t, "dial", closed(c.Dial(ctx, network, address, "127.0.0.1:9")))
		},
		"ListenConfig": func(network, address string) error {
			lc, err := c.ListenConfig(net.ListenConfig{})
			if err != nil {
				return err
			}
			return closed(lc.Listen(ctx, network, address))
		},
		"Dialer": func(network, address string) error {
			d, err := c.Dialer(net.Dialer{})
			if err != nil {
				return err
			}
			return closed(d.DialContext(ctx, network, address))
		},
	}
}

// someConn is what a Control function gets.
func someConn(t testing.TB) syscall.RawConn {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	rc, err := l.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	return rc
}

// rawConn makes a syscall.Conn of what a Control function gets.
type rawConn struct {
	syscall.RawConn
	err error
}

func (r rawConn) SyscallConn() (syscall.RawConn, error) { return r.RawConn, r.err }

// freeDescriptor is the lowest number that no descriptor of this process has. A
// descriptor that is left open takes it.
func freeDescriptor(t testing.TB) uintptr {
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()
	return f.Fd()
}

// returns waits until the lowest free descriptor and the number of goroutines are what
// they were. A peer in this process may still be closing.
func returns(t testing.TB, descriptor uintptr, goroutines int) bool {
	for range 100_000 {
		if freeDescriptor(t) <= descriptor && runtime.NumGoroutine() <= goroutines {
			return true
		}
		runtime.Gosched()
	}
	return false
}

// onWine tells Wine from Windows. Its rules for binding are Linux's where a TCP
// socket listens and for UDP, so it cannot stand for Windows in those.
func onWine() bool {
	_, err := os.Stat(filepath.Join(os.Getenv("SystemRoot"), "system32", "winecfg.exe"))
	return runtime.GOOS == "windows" && err == nil
}
