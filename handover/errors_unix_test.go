//go:build unix

package handover

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// The error names what is wrong, nothing stays open, and the predecessor serves on.
func TestBadInputIsAnError(t *testing.T) { // alone, so that what is open can be counted
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
	resolver := net.DefaultResolver
	defer func() { net.DefaultResolver = resolver }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done() // the name server is silent
		return nil, ctx.Err()
	}}
	c := Config{Name: "web", Dir: dir("web", 0o700)}
	other := Config{Name: "web", Dir: dir("other", 0o700)}
	old, l := current(t, c)

	within := func(c Config, f func(p *Process) error) func() error {
		return func() error {
			p, err := c.Start(soon(t))
			if err != nil {
				return err
			}
			defer p.Close()
			return f(p)
		}
	}
	start := func(c Config) func() error { return within(c, func(*Process) error { return nil }) }
	startIn := func(dir string) func() error { return start(Config{Name: "web", Dir: dir}) }
	open := func(c reuse.Config, network, address string) func() error {
		return within(other, func(p *Process) error { _, err := p.Listen(soon(t), c, network, address); return err })
	}
	received := func(b []byte) func() error { // from a process that is current
		return func() error {
			r := claim(t, other)
			done := make(chan struct{})
			go func() {
				defer close(done)
				h := admit(t, r)
				h.write(b)
				h.gone()
				h.die()
			}()
			err := start(other)()
			<-done
			r.close(true)
			return err
		}
	}
	refused := errors.New("refused")
	none := reuse.Config{}
	for name, tt := range map[string]struct {
		call func() error
		want error
		text string
	}{
		"no such Dir":          {startIn(parent + "/none"), os.ErrNotExist, "Dir"},
		"a file as Dir":        {startIn(file), syscall.ENOTDIR, "Dir"},
		"a link as Dir":        {startIn(parent + "/link"), nil, "Dir"},
		"others write Dir":     {startIn(dir("0777", 0o777)), os.ErrPermission, "can be written by other users (mode 0777)"},
		"reuse in Dir is open": {startIn(parent + "/open"), os.ErrPermission, "mode 0755"},
		"Dir is too long":      {startIn(dir(strings.Repeat("a", 100), 0o700)), syscall.ENAMETOOLONG, "shorter Dir"},
		"ctx of Start":         {func() error { _, err := c.Start(ended()); return err }, context.Canceled, ""},
		"ctx of Listen":        {within(c, func(p *Process) error { _, err := p.Listen(ended(), none, "tcp4", "localhost:0"); return err }), context.Canceled, ""},
		"ctx of Ready":         {within(c, func(p *Process) error { return p.Ready(ended()) }), context.Canceled, ""},
		"a name server is silent": {within(c, func(p *Process) error {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			_, err := p.Listen(ctx, none, "tcp4", "host.example:0")
			return err
		}), context.DeadlineExceeded, ""},
		"unknown network":     {open(none, "telegraph", anyPort), net.UnknownNetworkError("telegraph"), ""},
		"packets from Listen": {open(none, "udp4", anyPort), nil, "unexpected address type"},
		"ip":                  {open(none, "ip4:icmp", "127.0.0.1"), errors.ErrUnsupported, ""},
		"conflict":            {open(reuse.Config{Port: reuse.On, Exclusive: reuse.On}, "tcp4", anyPort), reuse.ErrConflict, ""},
		"Control fails": {within(Config{Control: func(string, string, syscall.RawConn) error { return refused }}, func(p *Process) error {
			_, err := p.ListenPacket(soon(t), none, "udp4", anyPort)
			return err
		}), refused, ""},
		"no socket":        {start(Config{Files: []*os.File{os.Stdin, os.Stdin}}), nil, "socket 0 of Files"},
		"a nil file":       {start(Config{Files: []*os.File{nil}}), os.ErrInvalid, "socket 0 of Files"},
		"another protocol": {received([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")), nil, "does not speak this protocol"},
		"another version":  {received(message{Type: typeHello, Versions: [2]int{2, 3}}.encode()), nil, "speaks versions 2 to 3 of the protocol, this one 1 to 1"},
		"no descriptor":    {received(message{Type: typeRendezvous}.encode()), nil, "a message came with 0 descriptors"},
	} {
		require.Error(t, tt.call(), name) // opens what the runtime keeps
		leavesNothing(t, name, func() {
			for range 3 {
				err := tt.call()
				require.ErrorContains(t, err, tt.text, name)
				if tt.want != nil {
					require.ErrorIs(t, err, tt.want, name)
				}
			}
		})
	}
	answers(t, "old", l.Addr())
	assert.False(t, isReplaced(old))
	require.NoError(t, old.do(func() { descriptor(t, old.rendezvous.spare) }))
	next, l2 := succeed(t, c, old)
	// The kernel of a process that is killed closes the lower one last.
	assert.Less(t, descriptor(t, next.rendezvous.listener), descriptor(t, l2))
}

// Hand-overs, a Ready that is given up and Closes leave nothing behind.
func TestNothingIsLeft(t *testing.T) { // alone, as above
	rounds := 200
	if os.Getenv("REUSE_RELEASE") == "1" {
		rounds = 2_000
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: unixAddress(t), Net: "unix"})
	require.NoError(t, err)
	defer l.Close()
	f, err := l.File()
	require.NoError(t, err)
	defer f.Close()
	ctx := t.Context()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the garbage collector closes what was forgotten
	for _, c := range []Config{{Name: rand.Text()}, {Name: "web", Dir: folder(t)}} {
		c.Files = []*os.File{f}
		begin := func() *Process {
			p, err := c.Start(ctx)
			require.NoError(t, err)
			listen(t, p, reuse.Config{}, "tcp4", anyPort)
			return p
		}
		handOver := func() {
			old := begin()
			listen(t, old, reuse.Config{}, "unix", l.Addr().String()) // and the next one does not
			require.NoError(t, old.Ready(ctx))
			next := begin()
			release := hold(t, old)
			briefly, cancel := context.WithTimeout(ctx, time.Millisecond)
			assert.Error(t, next.Ready(briefly))
			cancel()
			release()
			require.NoError(t, next.Ready(ctx))
			require.NoError(t, errors.Join(old.Close(), next.Close()))
		}
		handOver()
		leavesNothing(t, c.Name, func() {
			for range rounds {
				handOver()
			}
		})
		if c.Dir != "" {
			left, err := os.ReadDir(c.Dir)
			require.NoError(t, err)
			assert.Empty(t, left)
		}
	}
}
