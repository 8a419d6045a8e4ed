package handover

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.Main(m, map[string]testproc.Child{"process": process}) }

const anyPort = "127.0.0.1:0"

// process is a process of a service. It answers a connection, or a datagram, with its
// process id, and does what it is told; see systemCommands, too.
func process(args []string, in *bufio.Scanner, out io.Writer) error {
	c := Config{Name: args[0], Dir: args[1]}
	var p *Process
	var listeners []net.Listener
	pid := strconv.Itoa(os.Getpid())
	drained := make(chan error, 1)
	for in.Scan() {
		word := strings.Fields(in.Text())
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		answer := "ok"
		var err error
		switch word[0] {
		case "pid":
			answer = pid
		case "start", "ready":
			if len(word) > 1 { // milliseconds
				n, aerr := strconv.Atoi(word[1])
				err = aerr
				ctx, cancel = context.WithTimeout(ctx, time.Duration(n)*time.Millisecond)
			}
			if word[0] == "ready" {
				err = errors.Join(err, p.Ready(ctx))
			} else if p, err = c.Start(ctx); err == nil {
				answer = strconv.Itoa(p.Predecessor())
			}
		case "listen", "hold": // the second does not accept
			var l net.Listener
			if l, err = p.Listen(ctx, reuse.Config{}, word[1], word[2]); err == nil {
				answer = l.Addr().String()
				listeners = append(listeners, l)
				if word[0] == "listen" {
					answerAll(l, pid)
				}
			}
		case "serve":
			for _, l := range listeners {
				answerAll(l, pid)
			}
		case "replaced":
			<-p.Replaced()
		case "drain":
			go func() { drained <- p.Drain(context.Background()) }()
		case "drained":
			err = <-drained
		default:
			f, ok := systemCommands[word[0]]
			if !ok {
				return fmt.Errorf("no command %q", word[0])
			}
			err = f(word[1:])
		}
		cancel()
		if err != nil {
			answer = "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		fmt.Fprintln(out, answer)
	}
	if p != nil {
		return p.Close()
	}
	return nil
}

// answerAll answers each connection with who, until Accept fails.
func answerAll(l net.Listener, who string) (failed <-chan error) { //nolint:unparam // the tests for Unix use it
	errs := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				errs <- err
				return
			}
			_, _ = io.WriteString(c, who) // an error is the client's, too
			c.Close()
		}
	}()
	return errs
}

// ask connects and returns the answer.
func ask(network, address string) (string, error) {
	c, err := net.DialTimeout(network, address, 10*time.Second)
	if err != nil {
		return "", err
	}
	return answerOn(c)
}

// answerOn reads the answer on a connection.
func answerOn(c net.Conn) (string, error) {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	if err == nil && len(b) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return string(b), err
}

// soon is a ctx that ends in time for a test to report what hangs.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// begin starts a Process that is closed when the test ends.
func begin(t testing.TB, c Config) *Process {
	t.Helper()
	p, err := c.Start(soon(t))
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func listen(t testing.TB, p *Process, c reuse.Config, network, address string) net.Listener {
	t.Helper()
	l, err := p.Listen(soon(t), c, network, address)
	require.NoError(t, err)
	return l
}

// serve starts a Process that answers connections with who. It is not ready.
func serve(t testing.TB, c Config, who, network, address string) (*Process, net.Listener) {
	t.Helper()
	p := begin(t, c)
	l := listen(t, p, reuse.Config{}, network, address)
	answerAll(l, who)
	return p, l
}

func ready(t testing.TB, p *Process) {
	t.Helper()
	require.NoError(t, p.Ready(soon(t)))
}

// replaced waits until p has a successor.
func replaced(t testing.TB, p *Process) {
	t.Helper()
	select {
	case <-p.Replaced():
	case <-soon(t).Done():
		require.Fail(t, "not replaced")
	}
}

func isReplaced(p *Process) bool {
	select {
	case <-p.Replaced():
		return true
	default:
		return false
	}
}

// current starts a Process that answers connections with "old", and can be succeeded.
func current(t testing.TB, c Config) (*Process, net.Listener) {
	t.Helper()
	p, l := serve(t, c, "old", "tcp4", anyPort)
	ready(t, p)
	return p, l
}

type address struct{ network, address string }

func (a address) Network() string { return a.network }
func (a address) String() string  { return a.address }

func at(network, addr string) net.Addr { return address{network, addr} }

// dial returns a connection that is closed when the test ends.
func dial(t testing.TB, a net.Addr) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(a.Network(), a.String(), 10*time.Second)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// answers fails a test unless a connection is answered by who.
func answers(t testing.TB, who string, a net.Addr) {
	t.Helper()
	answered(t, who, dial(t, a))
}

// answered fails a test unless a connection is answered by who.
func answered(t testing.TB, who string, c net.Conn) {
	t.Helper()
	got, err := answerOn(c)
	require.NoError(t, err)
	require.Equal(t, who, got)
}
