package reuse_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
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

// What each system has, for at least some address: the table in the package comment.
// What a system lacks is refused by everything that takes a Config, and Prefer and Off
// carry on.
func TestSupported(t *testing.T) {
	t.Parallel()
	want, ok := supported[goos()]
	if !ok {
		t.Skipf("what %s has depends on its version", goos())
	}
	for _, o := range all {
		err := o.Supported()
		assert.Equal(t, err, o.Supported(), "the second answer is remembered")
		if slices.Contains(want, o) && !(o == reuse.DeferPort && testproc.OnGVisor()) {
			assert.NoError(t, err, "%v", o)
			continue
		}
		isOptionError(t, err, o, errors.ErrUnsupported)
		for name, call := range calls(t, with(o, reuse.On)) {
			network := map[bool]string{false: "tcp", true: "udp"}[name == "ListenPacket"]
			assert.ErrorIs(t, call(network, "127.0.0.1:0"), errors.ErrUnsupported, "%s %v", name, o)
		}
		for _, s := range []reuse.Setting{reuse.Prefer, reuse.Off} {
			require.NoError(t, bind(t.Context(), with(o, s), "tcp4", "127.0.0.1:0"), "%v %v", o, s)
		}
	}
	for _, o := range []reuse.Option{0, 6, 255} {
		isOptionError(t, o.Supported(), o, os.ErrInvalid)
	}
}

// Where PortLB holds, each of four listeners gets some connections. Elsewhere On is an error,
// and Prefer carries on. TestSupportFollowsFromTheRules and, on Linux, TestReadback say where
// it holds.
func TestPortLBSpreads(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ network, address string }{
		{"tcp4", "127.0.0.1:0"},
		{"tcp4", "0.0.0.0:0"},
		{"udp4", "0.0.0.0:0"},
		{"tcp6", "[::1]:0"},
		{"tcp6", "[::]:0"},
		{"udp6", ":0"},
		{"tcp", ":0"},
		{"udp", "[::]:0"},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			t.Parallel()
			needNetwork(t, tt.network)
			c := reuse.Config{PortLB: reuse.On}
			first, err := open(t.Context(), c, tt.network, tt.address)
			if errors.Is(err, errors.ErrUnsupported) {
				isOptionError(t, err, reuse.PortLB, errors.ErrUnsupported)
				require.NoError(t, bind(t.Context(), reuse.Config{PortLB: reuse.Prefer}, tt.network, tt.address))
				return
			}
			require.NoError(t, err)
			address := strings.TrimSuffix(tt.address, "0") + portOf(first)
			for i := range 4 {
				s := first
				if i > 0 {
					s, err = open(t.Context(), c, tt.network, address)
					require.NoError(t, err)
				}
				defer s.Close()
				go says(s, strconv.Itoa(i))
			}
			seen := map[string]bool{}
			for i := 0; len(seen) < 4; i++ {
				require.Less(t, i, 1000, "only %v get connections", seen)
				seen[who(t, tt.network, target(tt.network, first))] = true
			}
		})
	}
}

// On unix and ip networks no option means anything: On is refused, the rest is
// as in package net.
func TestUnixNetworks(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "reuse") // t.TempDir is too long for some systems
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	if err := closed(net.Listen("unix", path)); err != nil {
		t.Skipf("no unix domain sockets: %v", err)
	}
	// ListenConfig and Dialer do not know the network yet.
	for _, name := range []string{"Listen", "ListenPacket", "Dial to", "Dial from"} {
		// The kernel would take the part before the NUL for the path, and leave its file.
		assert.ErrorIs(t, calls(t, reuse.Config{})[name]("unix", path+"\x00b"), syscall.EINVAL, name)
		for _, o := range all {
			for _, network := range []string{"unix", "unixpacket", "unixgram"} {
				err := calls(t, with(o, reuse.On))[name](network, path)
				require.ErrorIs(t, err, errors.ErrUnsupported, "%s %v %s", name, o, network)
			}
		}
		assert.NoFileExists(t, path)
	}
	for _, o := range all {
		for _, s := range []reuse.Setting{reuse.Default, reuse.Off, reuse.Prefer} {
			l, err := open(t.Context(), with(o, s), "unix", path)
			require.NoError(t, err, "%v %v", o, s)
			inspect(t, l)
			require.NoError(t, closed(with(o, s).Dial(t.Context(), "unix", "", path)), "%v %v", o, s)
			require.NoError(t, l.Close())
		}
	}
}

// On an ip network the same, also for a user who may not open such a socket.
func TestIPNetworks(t *testing.T) {
	t.Parallel()
	for _, o := range all {
		calls := calls(t, with(o, reuse.On))
		assert.ErrorIs(t, calls["ListenPacket"]("ip4:icmp", "127.0.0.1"), errors.ErrUnsupported, "%v", o)
		assert.ErrorIs(t, calls["Dial to"]("ip4:icmp", "127.0.0.1"), errors.ErrUnsupported, "%v", o)
	}
}

// Control refuses what it does not know.
func TestControlRefuses(t *testing.T) {
	t.Parallel()
	supportedHere(t, reuse.Addr.Supported())
	assert.ErrorIs(t, reuse.Config{Addr: reuse.On}.Control("ip4:icmp", "127.0.0.1", someConn(t)), errors.ErrUnsupported)
	for _, s := range []reuse.Setting{reuse.On, reuse.Prefer} {
		var unknown net.UnknownNetworkError
		assert.ErrorAs(t, reuse.Config{Addr: s}.Control("telegraph", "127.0.0.1:1", someConn(t)), &unknown)
		assert.ErrorIs(t, reuse.Config{Addr: s}.Control("tcp4", "127.0.0.1:0", nil), syscall.EINVAL)
	}
}

// A ListenConfig keeps what it was given. From the zero Config it has no Control.
func TestListenConfigComposes(t *testing.T) {
	t.Parallel()
	lc, err := reuse.Config{}.ListenConfig(net.ListenConfig{})
	require.NoError(t, err)
	assert.Nil(t, lc.Control)
	base := net.ListenConfig{KeepAlive: 7 * time.Second}
	base.SetMultipathTCP(false)
	lc, err = reuse.Config{Addr: reuse.Prefer}.ListenConfig(base)
	require.NoError(t, err)
	assert.Equal(t, base.KeepAlive, lc.KeepAlive)
	assert.Equal(t, base.MultipathTCP(), lc.MultipathTCP())

	_, err = reuse.Config{DeferPort: reuse.On}.ListenConfig(base)
	assert.ErrorIs(t, err, errors.ErrUnsupported)
}

// What the caller's own Control does to an option that is On does not go unnoticed.
func TestControlCannotUndo(t *testing.T) {
	t.Parallel()
	supportedHere(t, reuse.Port.Supported())
	remote := peer(t, "tcp4", "127.0.0.1:0")
	for _, tt := range []struct {
		c, then reuse.Config
		undone  reuse.Option // 0: nothing
	}{
		{reuse.Config{Port: reuse.On}, reuse.Config{Port: reuse.Off}, reuse.Port},
		{reuse.Config{Port: reuse.Prefer}, reuse.Config{Port: reuse.Off}, 0},
		{reuse.Config{Addr: reuse.On, Port: reuse.On}, reuse.Config{Addr: reuse.Off}, reuse.Addr},
		{reuse.Config{Port: reuse.On}, reuse.Config{Exclusive: reuse.On}, reuse.Port},
		{reuse.Config{Exclusive: reuse.On}, reuse.Config{Port: reuse.On}, reuse.Port},
		{reuse.Config{Exclusive: reuse.On}, reuse.Config{Exclusive: reuse.On}, 0},
		{reuse.Config{Exclusive: reuse.Prefer}, reuse.Config{Port: reuse.On}, 0},
	} {
		if tt.c.Exclusive == reuse.On && reuse.Exclusive.Supported() != nil || tt.then.Exclusive == reuse.On && runtime.GOOS == "freebsd" {
			continue
		}
		check := func(name string, err error) {
			t.Helper()
			if tt.undone == 0 {
				assert.NoError(t, err, "%s: %v, then %v", name, tt.c, tt.then)
				return
			}
			isOptionError(t, err, tt.undone, reuse.ErrConflict, "%s: %v, then %v", name, tt.c, tt.then)
		}
		lc, err := tt.then.ListenConfig(net.ListenConfig{})
		require.NoError(t, err)
		lc, err = tt.c.ListenConfig(lc)
		require.NoError(t, err)
		check("ListenConfig", closed(lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")))

		then, err := tt.then.Dialer(net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}})
		if err != nil {
			continue // no Exclusive for what is dialed here
		}
		d, err := tt.c.Dialer(then)
		require.NoError(t, err)
		check("Dialer", closed(d.DialContext(t.Context(), "tcp4", remote)))
	}
}

// One Control function serves many sockets at once, as in a dual-stack dial.
func TestControlConcurrently(t *testing.T) {
	t.Parallel()
	c := reuse.Config{Addr: reuse.Prefer, Port: reuse.Prefer}
	lc, err := c.ListenConfig(net.ListenConfig{})
	require.NoError(t, err)
	d, err := c.Dialer(net.Dialer{})
	require.NoError(t, err)
	remote := peer(t, "tcp4", "127.0.0.1:0")
	var listens sync.WaitGroup
	for range 8 {
		listens.Go(func() {
			for range 10 {
				assert.NoError(t, closed(lc.Listen(context.Background(), "tcp", "127.0.0.1:0")))
				assert.NoError(t, closed(d.DialContext(context.Background(), "tcp", remote)))
			}
		})
	}
	listens.Wait()
}

// No call that fails after it has got a socket leaves a descriptor or a goroutine behind.
func TestNoLeaks(t *testing.T) {
	switch runtime.GOOS {
	case "windows", "js", "wasip1", "plan9":
		t.Skip("descriptors are not numbered here, or are never free")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the garbage collector would close what leaks
	remote := peer(t, "tcp4", "127.0.0.1:0")
	on := reuse.Config{Port: reuse.On}
	shared, err := on.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer shared.Close()
	held, err := on.Dial(t.Context(), "tcp4", local(shared), remote)
	require.NoError(t, err)
	defer discard(held)
	_, err = held.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the peer has closed its descriptor")
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	for name, fail := range map[string]func() error{
		"tuple in use": func() error { return closed(on.Dial(t.Context(), "tcp4", ":"+portOf(shared), remote)) },
		"self":         func() error { return closed(on.Dial(t.Context(), "tcp4", local(free), local(free))) },
		"UDP self":     func() error { return closed(on.Dial(t.Context(), "udp4", local(free), local(free))) },
	} {
		descriptor, goroutines := freeDescriptor(t), runtime.NumGoroutine()
		for range 1000 {
			require.Error(t, fail(), name)
		}
		assert.True(t, returns(t, descriptor, goroutines), name)
	}
}
