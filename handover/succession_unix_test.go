//go:build unix

package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// On each network that has connections.
func TestHandOverLosesNoConnection(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		addresses := map[string]string{"tcp": ":0", "tcp4": anyPort, "tcp6": "[::1]:0", "unix": unixAddress(t)}
		if hasAbstract {
			addresses["unixpacket"] = "@" + c.Name + t.Name()
		}
		for network, address := range addresses {
			t.Run(network, func(t *testing.T) {
				t.Parallel()
				if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
					l.Close()
				} else if network == "tcp6" {
					t.Skip("no IPv6: ", err)
				}
				c := c
				c.Name += network
				serve := func(who string) (*Process, net.Listener, <-chan error) {
					p := begin(t, c)
					l := listen(t, p, reuse.Config{}, network, address)
					return p, l, answerAll(l, who)
				}
				old, l, served := serve("old")
				ready(t, old)
				assert.Zero(t, old.Predecessor())
				end := load(t, l.Addr())
				answers(t, "old", l.Addr())

				next, l2, _ := serve("new")
				assert.Equal(t, os.Getpid(), next.Predecessor())
				for got := ""; got != "new"; { // both accept
					var err error
					got, err = readAnswer(dial(t, l.Addr()))
					require.NoError(t, err)
				}
				assert.False(t, isReplaced(old))
				ready(t, next)
				replaced(t, old)
				assert.ErrorIs(t, <-served, net.ErrClosed)
				ready(t, next)
				answers(t, "new", l.Addr())
				end()

				_, err := old.Listen(soon(t), reuse.Config{}, network, address)
				assert.ErrorIs(t, err, net.ErrClosed)
				assert.NoError(t, old.Ready(soon(t))) // it has succeeded
				assert.NoError(t, old.Drain(soon(t)))
				assert.NoError(t, old.Close())
				require.False(t, isReplaced(next))
				third, l3, _ := serve("third") // a new Start in one process
				ready(t, third)
				replaced(t, next)
				assert.Equal(t, l2.Addr(), l3.Addr())
				if network == "unix" {
					assert.FileExists(t, address)
					require.NoError(t, third.Close())
					assert.NoFileExists(t, address)
				}
			})
		}
	})
}

// The old process serves to the end what the successor did not ask for.
func TestUnaskedListenerIsDrained(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, l := current(t, c)
		path := unixAddress(t)
		unasked := listen(t, old, reuse.Config{}, "unix", path)
		queued := dial(t, unasked.Addr())
		next, l2 := listening(t, c)
		answerAll(l2, "new")
		ready(t, next)
		assert.False(t, isReplaced(old), "one is queued")
		answers(t, "new", l2.Addr())
		require.Eventually(t, removed(path), 20*time.Second, time.Millisecond)
		answerAll(unasked, "old")
		answered(t, "old", queued)
		replaced(t, old)
		for _, l := range []net.Listener{l, unasked} {
			_, err := l.Accept()
			assert.ErrorIs(t, err, net.ErrClosed)
		}
	})
}

// A process that uses none of the sockets is another service by mistake.
func TestAnotherServiceIsRefused(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, l := current(t, c)
		other := begin(t, c)
		refuses := func(mine string) {
			assert.ErrorContains(t, other.Ready(soon(t)), "has other sockets (tcp4 127.0.0.1:0) than this process ("+mine+")")
		}
		refuses("nothing")
		path := unixAddress(t)
		require.NoError(t, listen(t, other, reuse.Config{}, "tcp4", anyPort).Close())
		refuses("nothing") // that is open
		require.NoError(t, other.Close())
		other = begin(t, c)
		listen(t, other, reuse.Config{}, "unix", path)
		refuses("unix " + path)
		answers(t, "old", l.Addr())
		assert.False(t, isReplaced(old))
		listen(t, other, reuse.Config{}, "tcp4", anyPort)
		ready(t, other)
		replaced(t, old)
	})
}

// Of processes that start at once one is current and one about to be. The others wait,
// and each has its turn.
func TestOneProcessIsAboutToBeCurrent(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		const n = 12
		started := make(chan *Process)
		for range n {
			next := startAsync(t, c)
			go func() { started <- <-next }()
		}
		var before *Process
		for i := range n {
			p := <-started
			t.Cleanup(func() { p.Close() })
			if i < n-1 { // the error names the one that is about to be
				waitedFor(t, strconv.Itoa(os.Getpid()), startUntil(c))
			}
			select {
			case <-started:
				require.Fail(t, "two are about to be current")
			default:
			}
			listen(t, p, reuse.Config{}, "tcp4", anyPort)
			ready(t, p)
			if before != nil {
				replaced(t, before)
			}
			before = p
		}
	})
}

// The predecessor is the process that is current, whichever made the rendezvous. If a
// process that is about to succeed it is killed, one that waits takes its place.
func TestPredecessorIsCurrent(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		first, second, third := child(t, c, nil), child(t, c, nil), child(t, c, nil)
		first.takeOver(t, "0")
		second.takeOver(t, first.pid)
		first.do(t, "replaced")
		require.Equal(t, second.pid, third.Ask("start"))
		waitedFor(t, third.pid, startUntil(c))
		started := startAsync(t, c)
		third.Kill()
		p := <-started
		assert.Equal(t, second.pid, strconv.Itoa(p.Predecessor()))
		require.NoError(t, p.Close())
		second.Kill()
		child(t, c, nil).takeOver(t, "0")
	})
}

// If Ready's ctx ends before the predecessor agrees, that one serves on, and Ready can be
// called again.
func TestReadyCanBeGivenUp(t *testing.T) {
	me := strconv.Itoa(os.Getpid())
	eachPlace(t, func(t *testing.T, c Config) {
		for name, then := range map[string]func(t *testing.T, c Config, old, next *Process, l net.Listener){
			"and again": func(t *testing.T, _ Config, old, next *Process, l net.Listener) {
				release := hold(t, old)
				waitedFor(t, me, next.Ready)
				release()
				ready(t, next)
				replaced(t, old)
				answers(t, "new", l.Addr())
			},
			"and others await its end": func(t *testing.T, c Config, old, next *Process, _ net.Listener) {
				waitedFor(t, me, startUntil(c))
				require.NoError(t, next.Close())
				succeed(t, c, old)
			},
			"and the predecessor drains": func(t *testing.T, c Config, old, next *Process, l net.Listener) {
				require.NoError(t, old.Drain(soon(t)))
				answers(t, "new", l.Addr()) // not hidden
				ready(t, next)
				answers(t, "new", l.Addr())
				listening(t, c)
			},
			"and the predecessor has one more listener": func(t *testing.T, _ Config, old, next *Process, _ net.Listener) {
				path := unixAddress(t)
				listen(t, old, reuse.Config{}, "unix", path)
				ready(t, next)
				replaced(t, old)
				assert.NoFileExists(t, path)
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := c
				c.Name = fmt.Sprintf("%.8s-%.40s", c.Name, strings.ReplaceAll(name, " ", "-"))
				old, l := current(t, c)
				next, l2 := listening(t, c)
				release := hold(t, old)
				waitedFor(t, me, next.Ready)
				release()
				answers(t, "old", l.Addr())
				assert.False(t, isReplaced(old))
				answerAll(l2, "new")
				then(t, c, old, next, l2)
			})
		}
	})
}

// Also long after Ready has written to it. The predecessor still removes a file at its end.
func TestReadyCanBeGivenUpLate(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, l := current(t, c)
		path := unixAddress(t)
		listen(t, old, reuse.Config{}, "unix", path)
		next, _ := listening(t, c)
		listen(t, next, reuse.Config{}, "unix", path)
		release := hold(t, old)
		ctx, cancel := context.WithCancel(soon(t))
		failed := make(chan error, 1)
		go func() { failed <- next.Ready(ctx) }()
		require.Eventually(t, func() (sent bool) {
			return next.do(func() {
				if sent = next.previous.sentReady; sent {
					assert.NoError(t, next.previous.conn.SetWriteDeadline(time.Unix(1, 0))) // as later
				}
			}) == nil && sent
		}, 20*time.Second, time.Millisecond)
		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)
		release()
		require.NoError(t, old.do(func() {})) // after what waited for release
		require.NoError(t, next.Close())
		detached(t, old)
		assert.False(t, isReplaced(old))
		answers(t, "old", l.Addr())
		require.NoError(t, old.Close())
		assert.NoFileExists(t, path)
	})
}

// A predecessor that is stopped cannot hand over. The error names it, it serves on when it
// is continued, and after it is killed the next process listens.
func TestStoppedPredecessorIsNamed(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old := child(t, c, nil)
		a := old.takeOver(t, "0")
		n, err := strconv.Atoi(old.pid)
		require.NoError(t, err)
		next, _ := listening(t, c)
		assert.Equal(t, n, next.Predecessor())
		stop(t, n)
		waited := old.pid
		if runtime.GOOS == "linux" {
			waited += " (uid " + strconv.Itoa(os.Geteuid()) + ", stopped)"
		}
		waitedFor(t, waited, next.Ready)
		waitedFor(t, waited, startUntil(c))
		waitedFor(t, waited, next.Ready)
		require.NoError(t, syscall.Kill(n, syscall.SIGCONT))
		answers(t, old.pid, a)
		require.NoError(t, next.Close())
		other, _ := listening(t, c)
		stop(t, n)
		waitedFor(t, old.pid, other.Ready)
		old.Kill()
		ready(t, other)
		listening(t, c)
	})
}

func TestConcurrentEndsAreOneEnd(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		for range 20 {
			old, _ := current(t, c)
			next, _ := listening(t, c)
			ends := []func() error{
				func() error { return next.Ready(soon(t)) }, func() error { return next.Ready(soon(t)) },
				old.Close, next.Close, next.Close,
				func() error { return old.Drain(soon(t)) }, func() error { return next.Drain(soon(t)) },
				func() error { _, err := old.Listen(soon(t), reuse.Config{}, "tcp4", anyPort); return err },
				func() error { _, err := c.Start(ended()); return err },
			}
			errs := make(chan error, len(ends))
			for _, end := range ends {
				go func() { errs <- end() }()
			}
			for range ends {
				err := <-errs
				ok := err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) || errors.Is(err, errors.ErrUnsupported)
				assert.True(t, ok, "%v", err)
			}
			begun := begin(t, c)
			assert.Zero(t, begun.Predecessor())
			require.NoError(t, begun.Close())
		}
	})
}

// A Listen that runs together with Ready comes before it, and has the socket that was passed,
// or after it. The previous process hides no socket that this one serves.
func TestListenDuringReadyIsBeforeOrAfter(t *testing.T) {
	t.Parallel()
	if err := reuse.Port.Supported(); err != nil {
		t.Skip("no SO_REUSEPORT: ", err)
	}
	const address = "127.0.0.2:0" // of the other socket
	tries := 50
	if testing.Short() {
		tries = 10
	}
	for range tries {
		c := Config{Name: "web", Dir: folder(t)}
		old, _ := current(t, c)
		if _, err := old.Listen(soon(t), reuse.Config{}, "tcp4", address); err != nil {
			t.Skip(err) // not all of 127.0.0.0/8 is this host's
		}
		next, _ := listening(t, c)
		done := make(chan error)
		ctx := soon(t)
		go func() { done <- next.Ready(ctx) }()
		l2, err := next.Listen(ctx, reuse.Config{Port: reuse.Off}, "tcp4", address)
		require.NoError(t, err)
		require.NoError(t, <-done)
		replaced(t, old)
		require.NoError(t, old.Drain(soon(t))) // waits for the end
		answerAll(l2, "new")
		answers(t, "new", l2.Addr())
		require.NoError(t, next.Close())
	}
}
