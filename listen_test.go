package reuse_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// What each system has, for at least some address: the table in the package
// comment.
func TestSupported(t *testing.T) {
	t.Parallel()
	type answer map[reuse.Option]bool
	want, ok := map[string]answer{
		"linux":     {reuse.Addr: true, reuse.Port: true, reuse.PortLB: true, reuse.Exclusive: true, reuse.DeferPort: true},
		"android":   {reuse.Addr: true, reuse.Port: true, reuse.PortLB: true, reuse.Exclusive: true, reuse.DeferPort: true},
		"freebsd":   {reuse.Addr: true, reuse.Port: true, reuse.PortLB: true},
		"dragonfly": {reuse.Addr: true, reuse.Port: true, reuse.PortLB: true},
		"darwin":    {reuse.Addr: true, reuse.Port: true, reuse.Exclusive: true},
		"ios":       {reuse.Addr: true, reuse.Port: true, reuse.Exclusive: true},
		"netbsd":    {reuse.Addr: true, reuse.Port: true, reuse.Exclusive: true},
		"openbsd":   {reuse.Addr: true, reuse.Port: true, reuse.Exclusive: true},
		"aix":       {reuse.Addr: true, reuse.Port: true},
		"illumos":   {reuse.Addr: true, reuse.Exclusive: true},
		"windows":   {reuse.Addr: true, reuse.Exclusive: true, reuse.DeferPort: true},
		"js":        {}, "wasip1": {}, "plan9": {},
	}[runtime.GOOS]
	if testproc.OnGVisor() {
		delete(want, reuse.DeferPort)
	}
	if !ok {
		t.Skipf("what %s has depends on its version", runtime.GOOS)
	}
	for _, o := range all {
		for range 2 { // the second answer is remembered
			err := o.Supported()
			if want[o] {
				assert.NoError(t, err, "%v", o)
				continue
			}
			assert.ErrorIs(t, err, errors.ErrUnsupported, "%v", o)
			var oe *reuse.OptionError
			require.ErrorAs(t, err, &oe)
			assert.Equal(t, o, oe.Option)
			assert.Contains(t, err.Error(), runtime.GOOS)
		}
	}
	for _, o := range []reuse.Option{0, 6, 255} {
		err := o.Supported()
		assert.ErrorIs(t, err, os.ErrInvalid)
		assert.NotErrorIs(t, err, errors.ErrUnsupported)
	}
}

// An option that no socket of this system can have is refused by everything that
// takes a Config, and Prefer carries on.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	for _, o := range all {
		if o.Supported() == nil || runtime.GOOS == "solaris" {
			continue
		}
		for name, call := range calls(t, with(o, reuse.On)) {
			network := "tcp"
			if name == "ListenPacket" {
				network = "udp"
			}
			err := call(network, "127.0.0.1:0")
			assert.ErrorIs(t, err, errors.ErrUnsupported, "%s %v", name, o)
		}
		for _, s := range []reuse.Setting{reuse.Prefer, reuse.Off} {
			require.NoError(t, bind(t.Context(), with(o, s), "tcp4", "127.0.0.1:0"), "%v %v", o, s)
		}
	}
}

// PortLB holds for the kinds of address where the kernel spreads connections.
func TestPortLBPlaces(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network, address string
		where            map[string]bool
	}{
		{"tcp4", "127.0.0.1:0", map[string]bool{"linux": true, "android": true, "freebsd": true, "dragonfly": true}},
		{"tcp4", "0.0.0.0:0", map[string]bool{"linux": true, "android": true, "freebsd": true, "dragonfly": true}},
		{"udp4", "0.0.0.0:0", map[string]bool{"linux": true, "android": true, "freebsd": true, "dragonfly": true}},
		{"tcp6", "[::1]:0", map[string]bool{"linux": true, "android": true, "freebsd": true}},
		{"tcp6", "[::]:0", map[string]bool{"linux": true, "android": true, "freebsd": true}},
		{"udp6", ":0", map[string]bool{"linux": true, "android": true, "freebsd": true}},
		{"tcp", ":0", map[string]bool{"linux": true, "android": true, "dragonfly": true}},
		{"udp", "[::]:0", map[string]bool{"linux": true, "android": true}},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			t.Parallel()
			if runtime.GOOS == "solaris" {
				t.Skip("Solaris 11.4 only")
			}
			needNetwork(t, tt.network)
			err := bind(t.Context(), reuse.Config{PortLB: reuse.On}, tt.network, tt.address)
			if tt.where[runtime.GOOS] && !(testproc.OnGVisor() && tt.network[0] == 'u') { // where port 0 is not shared
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, errors.ErrUnsupported)
			var oe *reuse.OptionError
			require.ErrorAs(t, err, &oe)
			assert.Equal(t, reuse.PortLB, oe.Option)
			require.NoError(t, bind(t.Context(), reuse.Config{PortLB: reuse.Prefer}, tt.network, tt.address))
		})
	}
}

// Where PortLB is promised, each of four listeners gets connections.
func TestPortLBSpreads(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp4", "tcp6", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			needNetwork(t, network)
			c := reuse.Config{PortLB: reuse.On}
			first, err := c.Listen(t.Context(), network, loopback(network))
			if err != nil {
				require.ErrorIs(t, err, errors.ErrUnsupported)
				return
			}
			listeners := []net.Listener{first}
			address := net.JoinHostPort(hostOf(loopback(network)), portOf(first.Addr()))
			for range 3 {
				l, err := c.Listen(t.Context(), network, address)
				require.NoError(t, err)
				listeners = append(listeners, l)
			}
			type accepted struct {
				by   int
				conn net.Conn
			}
			got, done := make(chan accepted), make(chan struct{})
			var loops sync.WaitGroup
			for i, l := range listeners {
				loops.Go(func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						select {
						case got <- accepted{i, conn}:
						case <-done:
							conn.Close()
						}
					}
				})
			}
			defer func() {
				close(done)
				for _, l := range listeners {
					l.Close()
				}
				loops.Wait()
			}()
			host := "127.0.0.1"
			if network == "tcp6" {
				host = "::1"
			}
			seen := map[int]bool{}
			for i := 0; len(seen) < len(listeners); i++ {
				require.Less(t, i, 1000, "only %d listeners got connections", len(seen))
				conn, err := net.Dial("tcp", net.JoinHostPort(host, portOf(first.Addr())))
				require.NoError(t, err)
				a := <-got
				seen[a.by] = true
				discard(conn)
				discard(a.conn)
			}
		})
	}
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	return host
}

// On unix and ip networks no option means anything: On is refused, the rest is
// as in package net.
func TestUnixNetworks(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "reuse") // t.TempDir is too long for some systems
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	plain, err := net.Listen("unix", path)
	if err != nil {
		t.Skipf("no unix domain sockets: %v", err)
	}
	require.NoError(t, plain.Close())
	for _, o := range all {
		for _, network := range []string{"unix", "unixpacket"} {
			_, err := with(o, reuse.On).Listen(t.Context(), network, path)
			require.ErrorIs(t, err, errors.ErrUnsupported, "%v %s", o, network)
			assert.NoFileExists(t, path)
		}
		_, err := with(o, reuse.On).ListenPacket(t.Context(), "unixgram", path)
		require.ErrorIs(t, err, errors.ErrUnsupported, "%v", o)
		assert.NoFileExists(t, path)
		_, err = with(o, reuse.On).Dial(t.Context(), "unix", "", path)
		require.ErrorIs(t, err, errors.ErrUnsupported, "%v", o)
		for _, s := range []reuse.Setting{reuse.Default, reuse.Off, reuse.Prefer} {
			l, err := with(o, s).Listen(t.Context(), "unix", path)
			require.NoError(t, err, "%v %v", o, s)
			_, err = reuse.Inspect(l.(syscall.Conn))
			assert.NoError(t, err)
			conn, err := with(o, s).Dial(t.Context(), "unix", "", path)
			require.NoError(t, err, "%v %v", o, s)
			conn.Close()
			require.NoError(t, l.Close())
		}
	}
}

// On an ip network the same, also for a user who may not open such a socket.
func TestIPNetworks(t *testing.T) {
	t.Parallel()
	for _, o := range all {
		_, err := with(o, reuse.On).ListenPacket(t.Context(), "ip4:icmp", "127.0.0.1")
		assert.ErrorIs(t, err, errors.ErrUnsupported, "%v", o)
		_, err = with(o, reuse.On).Dial(t.Context(), "ip4:icmp", "", "127.0.0.1")
		assert.ErrorIs(t, err, errors.ErrUnsupported, "%v", o)
	}
	for _, o := range all {
		if o.Supported() != nil {
			continue
		}
		err := with(o, reuse.On).Control("ip4:icmp", "127.0.0.1", noDescriptor{})
		assert.ErrorIs(t, err, errors.ErrUnsupported, "%v", o)
		for _, s := range []reuse.Setting{reuse.On, reuse.Prefer} {
			err = with(o, s).Control("telegraph", "127.0.0.1:1", noDescriptor{})
			var unknown net.UnknownNetworkError
			assert.ErrorAs(t, err, &unknown, "%v %v", o, s)
		}
	}
}

// noDescriptor is a RawConn that lets a Control function run, on no socket.
type noDescriptor struct{}

func (noDescriptor) Control(f func(uintptr)) error  { f(^uintptr(0) >> 1); return nil }
func (noDescriptor) Read(func(uintptr) bool) error  { return nil }
func (noDescriptor) Write(func(uintptr) bool) error { return nil }

// Control sees UDP with port 0, for which Linux may give out a port that another
// socket shares, and fails there, whether the option is On or preferred: it is the call
// that is wrong, not the system. A port is shared.
func TestControlRefusesPacketPortZero(t *testing.T) {
	t.Parallel()
	for _, o := range []reuse.Option{reuse.Addr, reuse.Port, reuse.PortLB} {
		if o.Supported() != nil {
			continue
		}
		for _, s := range []reuse.Setting{reuse.On, reuse.Prefer} {
			lc, err := with(o, s).ListenConfig(net.ListenConfig{})
			require.NoError(t, err)
			p, err := lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
			if runtime.GOOS != "linux" && runtime.GOOS != "android" {
				require.NoError(t, err)
				require.NoError(t, p.Close())
				continue
			}
			require.ErrorIs(t, err, os.ErrInvalid, "%v %v", o, s)
			assert.NotErrorIs(t, err, errors.ErrUnsupported)
			assert.Contains(t, err.Error(), "ListenPacket")
			var oe *reuse.OptionError
			require.ErrorAs(t, err, &oe)
			assert.Equal(t, o, oe.Option)

			free, err := net.ListenPacket("udp4", "127.0.0.1:0")
			require.NoError(t, err)
			require.NoError(t, free.Close())
			for range 2 {
				q, err := lc.ListenPacket(t.Context(), "udp4", free.LocalAddr().String())
				require.NoError(t, err)
				defer q.Close()
			}
		}
	}
}

// With a multicast address package net sets SO_REUSEADDR itself. ListenPacket with
// port 0 takes it away for the bind and gives it back.
func TestMulticastPortZero(t *testing.T) {
	t.Parallel()
	if err := reuse.Port.Supported(); err != nil {
		t.Skip(err)
	}
	plain, err := net.ListenPacket("udp4", "239.255.7.8:0")
	require.NoError(t, err)
	defer plain.Close()
	base, err := reuse.Inspect(plain.(syscall.Conn))
	require.NoError(t, err)
	p, err := reuse.Config{Port: reuse.On}.ListenPacket(t.Context(), "udp4", "239.255.7.8:0")
	if testproc.OnGVisor() {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		t.Skip(err)
	}
	require.NoError(t, err)
	defer p.Close()
	got, err := reuse.Inspect(p.(syscall.Conn))
	require.NoError(t, err)
	assert.Equal(t, reuse.On, got.Port)
	assert.Equal(t, base.Addr, got.Addr)
	q, err := reuse.Config{Addr: reuse.Off, Port: reuse.On}.ListenPacket(t.Context(), "udp4", "239.255.7.8:0")
	require.NoError(t, err)
	defer q.Close()
	got, err = reuse.Inspect(q.(syscall.Conn))
	require.NoError(t, err)
	assert.Equal(t, reuse.Off, got.Addr)
	assert.Equal(t, reuse.On, got.Port)
}

// A ListenConfig keeps what it was given; its Control is called afterwards, with
// the same socket.
func TestListenConfigComposes(t *testing.T) {
	t.Parallel()
	if reuse.Addr.Supported() != nil {
		t.Skip("no options here")
	}
	calls := 0
	base := net.ListenConfig{KeepAlive: 7 * time.Second, Control: func(_, _ string, rc syscall.RawConn) error {
		calls++
		got, err := reuse.Inspect(rawConn{rc})
		assert.NoError(t, err)
		assert.Equal(t, reuse.Off, got.Addr)
		return nil
	}}
	lc, err := reuse.Config{Addr: reuse.Off}.ListenConfig(base)
	require.NoError(t, err)
	assert.Equal(t, base.KeepAlive, lc.KeepAlive)
	assert.Equal(t, base.MultipathTCP(), lc.MultipathTCP())
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	assert.Equal(t, 1, calls)

	_, err = reuse.Config{DeferPort: reuse.On}.ListenConfig(base)
	assert.ErrorIs(t, err, errors.ErrUnsupported)
}

// What the caller's own Control does to an option that is On does not go unnoticed.
func TestControlUndoes(t *testing.T) {
	t.Parallel()
	needPort(t)
	remote := peer(t, "tcp4", "127.0.0.1:0")
	for _, tt := range []struct {
		c, then reuse.Config
		undone  reuse.Option // 0: nothing
	}{
		{reuse.Config{Port: reuse.On}, reuse.Config{Port: reuse.Off}, reuse.Port},
		{reuse.Config{Port: reuse.Prefer}, reuse.Config{Port: reuse.Off}, 0},
		{reuse.Config{Addr: reuse.On, Port: reuse.On}, reuse.Config{Addr: reuse.Off}, reuse.Addr},
		{reuse.Config{Port: reuse.On}, reuse.Config{Addr: reuse.Off}, 0},
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
			var oe *reuse.OptionError
			require.ErrorAs(t, err, &oe, "%s: %v, then %v", name, tt.c, tt.then)
			assert.Equal(t, tt.undone, oe.Option)
			assert.ErrorIs(t, err, reuse.ErrConflict)
			assert.NotErrorIs(t, err, errors.ErrUnsupported)
		}
		lc, err := tt.then.ListenConfig(net.ListenConfig{})
		require.NoError(t, err)
		lc, err = tt.c.ListenConfig(lc)
		require.NoError(t, err)
		l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if err == nil {
			require.NoError(t, l.Close())
		}
		check("ListenConfig", err)

		then, err := tt.then.Dialer(net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}})
		if err != nil {
			continue // no Exclusive for what is dialed here
		}
		withContext := then
		if next := then.Control; next != nil {
			withContext.ControlContext = func(_ context.Context, network, address string, rc syscall.RawConn) error {
				return next(network, address, rc)
			}
		}
		for name, d := range map[string]net.Dialer{"Control": then, "ControlContext": withContext} {
			d, err := tt.c.Dialer(d)
			require.NoError(t, err)
			conn, err := d.DialContext(t.Context(), "tcp4", remote)
			if err == nil {
				discard(conn)
			}
			check(name, err)
		}
	}
}

// SO_REUSEADDR is what package net sets on a listener, and no promise of Exclusive's on
// UDP.
func TestControlUndoesExclusive(t *testing.T) {
	t.Parallel()
	network, address := "udp6", "[::1]:20000"
	if runtime.GOOS == "linux" || runtime.GOOS == "android" {
		network, address = "udp", ":20000"
	}
	if !exclusiveHolds(network, address) {
		t.Skip("not here")
	}
	needNetwork(t, "udp6")
	lc, err := reuse.Config{Addr: reuse.On}.ListenConfig(net.ListenConfig{})
	require.NoError(t, err)
	lc, err = reuse.Config{Exclusive: reuse.On}.ListenConfig(lc)
	require.NoError(t, err)
	_, err = lc.ListenPacket(t.Context(), network, address)
	var oe *reuse.OptionError
	switch runtime.GOOS {
	case "linux", "android":
		require.ErrorAs(t, err, &oe)
		assert.Equal(t, reuse.Addr, oe.Option)
		assert.ErrorIs(t, err, reuse.ErrConflict)
	}
}

// One Control function serves many listeners at once.
func TestControlConcurrently(t *testing.T) {
	t.Parallel()
	c := reuse.Config{Addr: reuse.Prefer, Port: reuse.Prefer}
	lc, err := c.ListenConfig(net.ListenConfig{})
	require.NoError(t, err)
	var listens sync.WaitGroup
	for range 8 {
		listens.Go(func() {
			for range 50 {
				l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
				if assert.NoError(t, err) {
					l.Close()
				}
			}
		})
	}
	listens.Wait()
}
