package handover

import (
	"bufio"
	"context"
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

// process is a process of a service. It answers a connection with its process id, and
// does what it is told; see also systemCommands.
func process(args []string, in *bufio.Scanner, out io.Writer) error {
	c := Config{Name: args[0], Dir: args[1]}
	var p *Process
	var listeners []net.Listener
	pid := strconv.Itoa(os.Getpid())
	drained := make(chan error, 1)
	for in.Scan() {
		words := strings.Fields(in.Text())
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		answer := "ok"
		var err error
		switch words[0] {
		case "pid":
			answer = pid
		case "start":
			if p, err = c.Start(ctx); err == nil {
				answer = strconv.Itoa(p.Predecessor())
			}
		case "listen": // on tcp4 or, with a path, unix
			network, address := "tcp4", anyPort
			if len(words) > 1 {
				network, address = "unix", words[1]
			}
			var l net.Listener
			if l, err = p.Listen(ctx, reuse.Config{}, network, address); err == nil {
				answer = l.Addr().String()
				listeners = append(listeners, l)
			}
		case "serve":
			for _, l := range listeners {
				answerAll(l, pid)
			}
		case "ready":
			err = p.Ready(ctx)
		case "replaced":
			<-p.Replaced()
		case "drain":
			go func() { drained <- p.Drain(context.Background()) }()
		case "drained":
			err = <-drained
		default:
			err = systemCommands[words[0]](words[1:])
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
			_, _ = io.WriteString(c, who) // the client reports an error
			c.Close()
		}
	}()
	return errs
}

// readAnswer reads the answer on a connection.
func readAnswer(c net.Conn) (string, error) {
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

func ready(t testing.TB, p *Process) {
	t.Helper()
	require.NoError(t, p.Ready(soon(t)))
}

func isReplaced(p *Process) bool {
	select {
	case <-p.Replaced():
		return true
	default:
		return false
	}
}

type address struct{ network, address string }

func (a address) Network() string { return a.network }
func (a address) String() string  { return a.address }

// dial returns a connection that is closed when the test ends.
func dial(t testing.TB, a net.Addr) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(a.Network(), a.String(), 10*time.Second)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// answers fails a test unless a new connection is answered by who.
func answers(t testing.TB, who string, a net.Addr) {
	t.Helper()
	answered(t, who, dial(t, a))
}

// answered fails a test unless a connection is answered by who.
func answered(t testing.TB, who string, c net.Conn) {
	t.Helper()
	got, err := readAnswer(c)
	require.NoError(t, err)
	require.Equal(t, who, got)
}
