//go:build unix

package handover

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// openFiles counts this process's descriptors, where they are listed.
func openFiles() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(d)
}

// fewer waits until no more is open than there was.
func fewer(t testing.TB, files, goroutines int, name string) {
	t.Helper()
	for ctx := soon(t); openFiles() > files || runtime.NumGoroutine() > goroutines; {
		require.NoError(t, pause(ctx.Done(), time.Millisecond), "%s: %d goroutines and %d files, were %d and %d",
			name, runtime.NumGoroutine(), openFiles(), goroutines, files)
	}
}

// Bad input is an error that says what is wrong; nothing stays open, and the predecessor
// serves on.
func TestBadInput(t *testing.T) { // alone, so that what is open can be counted
	parent := folder(t)
	dir := func(name string, mode os.FileMode) string {
		path := filepath.Join(parent, name)
		require.NoError(t, os.MkdirAll(path, 0o700))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	require.NoError(t, os.Symlink(dir("0700", 0o700), filepath.Join(parent, "link")))
	file := filepath.Join(parent, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir("open", 0o755), "reuse"), 0o755))
	foreign := dir("foreign", 0o700)
	c := Config{Name: "web", Dir: dir("web", 0o700)}
	old, l := current(t, c)
	closed := begin(t, Config{Name: "web", Dir: dir("closed", 0o700)})
	require.NoError(t, closed.Close())

	start := func(c Config) func() error {
		return func() error {
			p, err := c.Start(soon(t))
			if err == nil {
				p.Close()
			}
			return err
		}
	}
	open := func(ctx context.Context, c reuse.Config, network, address string) func() error {
		return func() error {
			p, err := (Config{Name: "web", Dir: dir("other", 0o700)}).Start(soon(t))
			require.NoError(t, err)
			defer p.Close()
			if strings.HasPrefix(network, "ip") || network == "udp" {
				pc, err := p.ListenPacket(ctx, c, network, address)
				if err == nil {
					pc.Close()
				}
				return err
			}
			_, err = p.Listen(ctx, c, network, address)
			return err
		}
	}
	within := func(f func(p *Process) error) func() error { // with the predecessor
		return func() error {
			p, err := c.Start(soon(t))
			require.NoError(t, err)
			defer p.Close()
			return f(p)
		}
	}
	resolver := net.DefaultResolver
	defer func() { net.DefaultResolver = resolver }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done() // the name server is silent
		return nil, ctx.Err()
	}}
	briefly := func(f func(ctx context.Context) error) func() error {
		return func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			return f(ctx)
		}
	}
	refused := errors.New("refused")
	answered := func(b []byte) func() error { // by a process that is current
		return func() error {
			c := Config{Name: "web", Dir: foreign}
			r := claim(t, c)
			done := make(chan struct{})
			go func() {
				defer close(done)
				h := admit(t, r)
				h.write(b)
				h.gone()
				h.die()
			}()
			err := start(c)()
			<-done
			r.close(true)
			return err
		}
	}
	for name, tt := range map[string]struct {
		call func() error
		want error
		text string
	}{
		"no such Dir":            {start(Config{Name: "web", Dir: parent + "/none"}), os.ErrNotExist, "Dir"},
		"a file as Dir":          {start(Config{Name: "web", Dir: file}), syscall.ENOTDIR, "Dir"},
		"a link as Dir":          {start(Config{Name: "web", Dir: parent + "/link"}), nil, "Dir"},
		"others write Dir":       {start(Config{Name: "web", Dir: dir("0777", 0o777)}), os.ErrPermission, "can be written by other users (mode 0777)"},
		"its group writes Dir":   {start(Config{Name: "web", Dir: dir("0770", 0o770)}), os.ErrPermission, "(mode 0770)"},
		"reuse in Dir is open":   {start(Config{Name: "web", Dir: parent + "/open"}), os.ErrPermission, "mode 0755"},
		"Dir is too long":        {start(Config{Name: "web", Dir: dir(strings.Repeat("a", 100), 0o700)}), syscall.ENAMETOOLONG, "shorter Dir"},
		"ctx of Start":           {func() error { _, err := c.Start(ended()); return err }, context.Canceled, ""},
		"ctx of Listen":          {open(ended(), reuse.Config{}, "tcp4", "localhost:0"), context.Canceled, ""},
		"ctx of Ready":           {within(func(p *Process) error { return p.Ready(ended()) }), context.Canceled, ""},
		"Ready before Listen":    {within(func(p *Process) error { return p.Ready(soon(t)) }), nil, "has other sockets (tcp4 127.0.0.1:0) than this process (nothing)"},
		"Ready after Close":      {func() error { return closed.Ready(soon(t)) }, net.ErrClosed, ""},
		"Listen after Close":     {func() error { _, err := closed.Listen(soon(t), reuse.Config{}, "tcp4", anyPort); return err }, net.ErrClosed, ""},
		"no network":             {open(soon(t), reuse.Config{}, "", anyPort), net.UnknownNetworkError(""), ""},
		"unknown network":        {open(soon(t), reuse.Config{}, "telegraph", anyPort), net.UnknownNetworkError("telegraph"), ""},
		"packets from Listen":    {open(soon(t), reuse.Config{}, "udp4", anyPort), nil, "unexpected address type"},
		"ip":                     {open(soon(t), reuse.Config{}, "ip4:icmp", "127.0.0.1"), errors.ErrUnsupported, ""},
		"connections in packets": {within(func(p *Process) error { _, err := p.ListenPacket(soon(t), reuse.Config{}, "tcp4", anyPort); return err }), nil, "unexpected address type"},
		"conflict":               {open(soon(t), reuse.Config{Port: reuse.On, Exclusive: reuse.On}, "tcp4", anyPort), reuse.ErrConflict, ""},
		"no port":                {open(soon(t), reuse.Config{}, "tcp4", "127.0.0.1"), nil, "missing port"},
		"foreign address":        {open(soon(t), reuse.Config{}, "tcp4", "192.0.2.250:0"), syscall.EADDRNOTAVAIL, ""},
		"too long for unix":      {open(soon(t), reuse.Config{}, "unix", parent+strings.Repeat("a", 200)), syscall.EINVAL, ""},
		"one more than passed": {within(func(p *Process) error {
			listen(t, p, reuse.Config{}, "tcp4", anyPort)
			_, err := p.Listen(soon(t), reuse.Config{}, "tcp4", l.Addr().String())
			return err
		}), syscall.EADDRINUSE, "no process that meets at"},
		"Control fails": {start1(t, Config{Control: func(string, string, syscall.RawConn) error { return refused }}), refused, ""},
		"no socket":     {start(Config{Files: []*os.File{os.Stdin, os.Stdin}}), nil, "socket 0 of Files"},
		"a nil file":    {start(Config{Files: []*os.File{nil}}), os.ErrInvalid, "socket 0 of Files"},
		"a name server is silent": {briefly(func(ctx context.Context) error {
			return open(ctx, reuse.Config{}, "tcp4", "host.example:0")()
		}), context.DeadlineExceeded, ""},
		"another protocol": {answered([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")), nil, "does not speak this protocol"},
		"another version":  {answered(frame(t, message{Type: typeHello, Versions: [2]int{2, 3}})), nil, "speaks versions 2 to 3 of the protocol, this one 1 to 1"},
		"no descriptor":    {answered(frame(t, message{Type: typeRendezvous})), nil, "a message came with 0 descriptors"},
	} {
		require.Error(t, tt.call(), name) // opens what the runtime keeps
		files, goroutines := openFiles(), runtime.NumGoroutine()
		for range 3 {
			err := tt.call()
			require.Error(t, err, name)
			if tt.want != nil {
				require.ErrorIs(t, err, tt.want, name)
			}
			require.ErrorContains(t, err, tt.text, name)
		}
		fewer(t, files, goroutines, name)
	}
	answers(t, "old", l.Addr())
	assert.False(t, isReplaced(old))
	next, l2 := serve(t, c, "new", "tcp4", anyPort)
	// The kernel of a process that is killed closes the lower one last.
	assert.Less(t, descriptor(t, next.rendezvous.listener), descriptor(t, l2))
	ready(t, next)
	replaced(t, old)
}

// A process that says nothing is not waited for without an end.
func TestSilentPredecessor(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 10 s")
	}
	eachPlace(t, func(t *testing.T, c Config) {
		claim(t, c)
		_, err := c.Start(context.Background())
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.ErrorContains(t, err, "waited for ")
	})
}

func start1(t *testing.T, c Config) func() error {
	return func() error {
		p := begin(t, c)
		defer p.Close()
		_, err := p.Listen(soon(t), reuse.Config{}, "tcp4", anyPort)
		return err
	}
}

// Starts and Closes leave nothing behind, nor do hand-overs.
func TestNothingIsLeft(t *testing.T) { // alone, as above
	n := 10_000
	if testing.Short() {
		n = 300
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: unixAddress(t), Net: "unix"})
	require.NoError(t, err)
	defer l.Close()
	f, err := l.File()
	require.NoError(t, err)
	defer f.Close()
	places := []Config{{Files: []*os.File{f}}, {Name: "web", Dir: folder(t)}}
	if hasAbstract {
		places = append(places, Config{Name: "nothing-is-left"})
	}
	ctx := t.Context()
	for _, c := range places {
		one := func() {
			var before *Process
			for range 2 {
				p, err := c.Start(ctx)
				require.NoError(t, err)
				_, err = p.Listen(ctx, reuse.Config{}, "tcp4", anyPort)
				require.NoError(t, err)
				if before != nil && c.Name != "" { // Ready that is given up
					release := hold(t, before)
					briefly, cancel := context.WithTimeout(ctx, time.Millisecond)
					assert.Error(t, p.Ready(briefly))
					cancel()
					release()
				}
				require.NoError(t, p.Ready(ctx))
				if before != nil {
					require.NoError(t, before.Close())
				}
				before = p
			}
			require.NoError(t, before.Close())
		}
		one()
		for _, tries := range []int{20, n / len(places) / 2} {
			files, goroutines := openFiles(), runtime.NumGoroutine()
			percent := 100
			if tries == 20 { // the garbage collector closes what was forgotten
				percent = -1
			}
			percent = debug.SetGCPercent(percent)
			for range tries {
				one()
			}
			fewer(t, files, goroutines, c.Name)
			debug.SetGCPercent(percent)
		}
		if c.Dir != "" {
			left, err := os.ReadDir(c.Dir)
			require.NoError(t, err)
			assert.Empty(t, left)
		}
	}
}

// A Drain answers what is queued, or says that it cannot.
func TestDrain(t *testing.T) {
	t.Parallel()
	for network, address := range map[string]string{"tcp4": anyPort, "unix": unixAddress(t)} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			p, l := serve(t, Config{}, "p", network, address)
			clients := load(t, 4, l.Addr())
			clients.wait(t, "p")
			err := p.Drain(soon(t))
			if errors.Is(err, errors.ErrUnsupported) && network != "unix" {
				t.Skip(err)
			}
			require.NoError(t, err)
			require.NoError(t, p.Drain(ended()), "which is over")
			clients.wait(t, "")
			clients.end()
			clients.done.Wait()
			for _, err := range clients.lost {
				if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) {
					require.NoError(t, err)
				}
			}
		})
	}
	t.Run("ctx", func(t *testing.T) {
		t.Parallel()
		p := begin(t, Config{})
		l := listen(t, p, reuse.Config{}, "unix", unixAddress(t))
		dial(t, l.Addr())
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		err := p.Drain(ctx)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "connections waited on 1 listeners")
		assert.Equal(t, err, p.Drain(soon(t)))
		_, err = l.Accept()
		assert.ErrorIs(t, err, net.ErrClosed)
	})
}

// What a next process holds is not hidden. It becomes current, and who comes later opens
// the address when the last one has gone.
func TestDrainWithNewcomer(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old := begin(t, c)
		l := listen(t, old, reuse.Config{}, "tcp4", anyPort)
		ready(t, old)
		queued := dial(t, l.Addr())
		early := begin(t, c)
		listen(t, early, reuse.Config{}, "tcp4", anyPort)
		require.NoError(t, early.Drain(soon(t))) // it never was current
		next := begin(t, c)
		l2 := listen(t, next, reuse.Config{}, "tcp4", anyPort)
		require.NoError(t, old.Drain(soon(t)))
		replaced(t, old)
		answerAll(l2, "new")
		answers(t, "new", l.Addr())
		answered(t, "new", queued)
		ready(t, next)

		u := listen(t, next, reuse.Config{}, "unix", unixAddress(t))
		held := dial(t, u.Addr()) // and not accepted
		drained := make(chan error, 1)
		go func() { drained <- next.Drain(soon(t)) }()
		require.Eventually(t, func() bool { _, err := os.Stat(u.Addr().String()); return err != nil }, 20*time.Second, time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		_, err := c.Start(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		started := make(chan *Process)
		go func() {
			p, err := c.Start(soon(t))
			assert.NoError(t, err)
			started <- p
		}()
		answerAll(u, "new")
		answered(t, "new", held)
		err = <-drained
		if !errors.Is(err, errors.ErrUnsupported) {
			require.NoError(t, err)
		}
		p := <-started
		defer p.Close()
		listen(t, p, reuse.Config{}, "tcp4", l.Addr().String())
		ready(t, p)
	})
}
