package group_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/group"
	"example.com/reuse/internal/testproc"
)

const patience = time.Minute // of tests, before they fail

// answer accepts connections and says one byte on each. Like a server of net/http it goes
// on when there are no more descriptors for a while.
func answer(l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, syscall.EMFILE) {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		_, _ = c.Read(make([]byte, 1))
		_, _ = c.Write([]byte{1})
		c.Close()
	}
}

// ask makes a connection and tells whether it was answered.
func ask(address string) error {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer func() {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// load asks from n clients until stop is called, which returns how many were
// answered and the errors of those that were not. With -short they are fewer and
// slower: on an emulated processor they leave nothing to those that they ask.
func load(address string, n int) (stop func() (int, []error)) {
	var pause time.Duration
	if testing.Short() {
		n, pause = max(2, n/8), 10*time.Millisecond
	}
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	var answered atomic.Int64
	var mu sync.Mutex
	var lost []error
	for range n {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := ask(address); err != nil {
					mu.Lock()
					lost = append(lost, err)
					mu.Unlock()
					continue
				}
				answered.Add(1)
				time.Sleep(pause)
			}
		})
	}
	return func() (int, []error) {
		cancel()
		clients.Wait()
		return int(answered.Load()), lost
	}
}

// options are those of the sockets of a generation, by name.
var options = map[string]reuse.Config{
	"Port":   {Port: reuse.On},
	"PortLB": {PortLB: reuse.On},
}

// serveGeneration is a process of a server: a group or a plain listener, the option,
// the network and the address. It listens when it is told to.
func serveGeneration(args []string, in *bufio.Scanner, out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	say := func(err error) {
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			fmt.Fprintln(out, "unsupported")
		case err != nil:
			fmt.Fprintln(out, "error:", strings.ReplaceAll(err.Error(), "\n", "; "))
		default:
			fmt.Fprintln(out, "ok")
		}
	}
	socket, network, address := options[args[1]], args[2], args[3]
	var g *group.Group
	var plain net.Listener
	served := make(chan error, 1)
	for in.Scan() {
		var err error
		switch in.Text() {
		case "listen":
			if args[0] == "plain" {
				if plain, err = socket.Listen(ctx, network, address); err == nil {
					go func() { _ = answer(plain) }()
					fmt.Fprintln(out, plain.Addr())
					continue
				}
			} else {
				c := group.Config{Socket: socket, Size: size(), Handshake: handshake()}
				if g, err = c.Listen(ctx, network, address); err == nil {
					go func() { served <- g.Serve(answer) }()
					fmt.Fprintln(out, g.Addr())
					continue
				}
			}
		case "takeover":
			err = g.TakeOver(ctx, 0)
		case "drain":
			if plain != nil {
				err = group.DrainListener(ctx, plain)
			} else {
				err = errors.Join(g.Drain(ctx), <-served)
			}
		}
		say(err)
	}
	return nil
}

// One process after the other takes over under load from a third, with each option,
// and nothing is lost; where that cannot be, TakeOver says so, and nothing breaks.
func TestHandOverProcesses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ kind, option, network, address string }{
		{"group", "Port", "tcp4", "127.0.0.1:0"},
		{"group", "Port", "tcp4", "0.0.0.0:0"},
		{"group", "Port", "tcp6", "[::1]:0"},
		{"group", "PortLB", "tcp4", "127.0.0.1:0"},
		{"plain", "Port", "tcp4", "127.0.0.1:0"},
	} {
		t.Run(fmt.Sprint(tt.kind, " ", tt.option, " ", tt.address), func(t *testing.T) {
			t.Parallel()
			option := map[string]reuse.Option{"Port": reuse.Port, "PortLB": reuse.PortLB}[tt.option]
			if err := option.Supported(); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			l, err := net.Listen(tt.network, tt.address)
			if tt.network == "tcp6" && err != nil {
				t.Skip("no IPv6: ", err)
			}
			require.NoError(t, err)
			require.NoError(t, l.Close())
			old := testproc.Start(t, "generation", tt.kind, tt.option, tt.network, tt.address)
			address := old.Ask("listen")
			_, port, err := net.SplitHostPort(address)
			require.NoError(t, err, address)
			target := net.JoinHostPort("127.0.0.1", port)
			if tt.network == "tcp6" {
				target = net.JoinHostPort("::1", port)
			}
			if !takesOver(tt.option, tt.address) {
				next := testproc.Start(t, "generation", "group", tt.option, tt.network, address)
				require.Equal(t, address, next.Ask("listen"))
				require.Equal(t, "unsupported", next.Ask("takeover"))
				require.Equal(t, "unsupported", old.Ask("drain"))
				assert.NoError(t, ask(target), "the newcomer serves nevertheless")
				return
			}
			stop := load(target, 8)
			for range 10 {
				next := testproc.Start(t, "generation", "group", tt.option, tt.network, address)
				assert.Equal(t, address, next.Ask("listen"))
				assert.Equal(t, "ok", next.Ask("takeover"))
				assert.Equal(t, "ok", old.Ask("drain"))
				old = next
			}
			answered, lost := stop()
			assert.NotZero(t, answered)
			assert.Empty(t, lost)
			t.Log(answered, "answered")
		})
	}
}

// size is the number of listeners. Where only the newest gets connections, each one
// refuses some in the instant before it listens.
func size() int {
	switch runtime.GOOS {
	case "freebsd", "netbsd", "openbsd", "darwin":
		return 1
	}
	return 2
}

// handshake is how long Drain waits for handshakes. Where they are not shown, all of that
// time is waited.
func handshake() time.Duration {
	switch runtime.GOOS {
	case "linux", "android":
		return 3 * time.Second
	}
	return 100 * time.Millisecond
}

// takesOver tells where TakeOver works.
func takesOver(option, address string) bool {
	wildcard := strings.HasPrefix(address, "0.0.0.0")
	switch runtime.GOOS {
	case "linux", "android":
		return true
	case "freebsd", "netbsd", "openbsd":
		return option == "Port" && !(wildcard && oldestGets())
	case "darwin", "ios":
		return option == "Port" && !wildcard
	}
	return false
}
