//go:build unix

package handover

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
)

// The tests here play one end of the protocol: see hand.

// A new process that breaks off at any time leaves all as it was.
func TestNewcomerThatDiesChangesNothing(t *testing.T) {
	toReady := message{Type: typeReady, Keep: []int{1}}.encode()
	for step, die := range map[string]func(h *hand, hold, release func()){
		"before hello":  func(*hand, func(), func()) {},
		"in hello":      func(h *hand, _, _ func()) { h.write(h.hello()[:9]) },
		"after hello":   func(h *hand, _, _ func()) { h.write(h.hello()) },
		"in the middle": func(h *hand, _, _ func()) { h.write(h.hello()); h.read(); h.read() },
		"before ready":  func(h *hand, _, _ func()) { h.receiveAll() },
		"in ready":      func(h *hand, _, _ func()) { h.receiveAll(); h.write(toReady[:6]) },
		"ready too soon": func(h *hand, _, _ func()) {
			h.write(toReady)
			_, err := readMessage(h.in)
			assert.ErrorIs(h.t, err, io.EOF)
		},
		"after ready":      func(h *hand, hold, _ func()) { h.receiveAll(); hold(); h.write(toReady) },
		"deaf after ready": func(h *hand, hold, _ func()) { h.receiveAll(); hold(); h.write(toReady); h.giveUp() },
		"ready twice":      func(h *hand, hold, _ func()) { h.receiveAll(); hold(); h.write(toReady); h.write(toReady) },
		"half-closed after ready": func(h *hand, hold, release func()) {
			h.receiveAll()
			hold()
			h.write(toReady)
			assert.NoError(h.t, h.conn.CloseWrite())
			release()
			h.gone()
		},
		"something else than ready": func(h *hand, _, _ func()) {
			h.receiveAll()
			h.write(message{Type: typeGoing}.encode())
			assert.NoError(h.t, h.conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
			_, err := readMessage(h.in)
			assert.ErrorIs(h.t, err, os.ErrDeadlineExceeded, "it does not agree")
		},
		"and made the socket blocking": func(h *hand, _, _ func()) {
			h.receiveAll()
			assert.NoError(h.t, unix.SetNonblock(h.in.fds[len(h.in.fds)-1], false))
		},
	} {
		t.Run(step, func(t *testing.T) {
			eachPlace(t, func(t *testing.T, c Config) {
				old, l := listening(t, c)
				ready(t, old)
				h := connect(t, c)
				release := func() {}
				die(h, func() { release = hold(t, old) }, func() { release() })
				h.die()
				release()
				detached(t, old)
				descriptor(t, l)
				next, _ := listening(t, c)
				answerAll(l, "old")
				answers(t, "old", l.Addr())
				assert.False(t, isReplaced(old))
				ready(t, next)
				replaced(t, old)
			})
		})
	}
}

// If the predecessor dies, at any time, the new process is current and has what it got.
func TestPredecessorThatDiesIsSucceeded(t *testing.T) {
	type step struct {
		name string
		do   func(h *hand, r *rendezvous, s *socket)
	}
	send := func(m message) func(h *hand, r *rendezvous, s *socket) {
		return func(h *hand, _ *rendezvous, _ *socket) { require.NoError(h.t, h.send(m)) }
	}
	steps := []step{
		{"before hello", func(*hand, *rendezvous, *socket) {}},
		{"after wait", send(message{Type: typeWait, PID: 1})},
		{"after hello", func(h *hand, _ *rendezvous, _ *socket) { require.NoError(h.t, h.send(hello("current", h.conn))) }},
		{"after the rendezvous", func(h *hand, r *rendezvous, _ *socket) {
			require.NoError(h.t, h.sendDescriptor(message{Type: typeRendezvous}, r.listener))
		}},
		{"after the lock", func(h *hand, r *rendezvous, _ *socket) {
			if r.lock != nil {
				require.NoError(h.t, h.sendDescriptor(message{Type: typeLock}, r.lock))
			}
		}},
		{"after the socket", func(h *hand, _ *rendezvous, s *socket) {
			require.NoError(h.t, h.sendDescriptor(message{Type: typeSocket, ID: 7, Network: "tcp4", Address: anyPort}, s))
		}},
		{"in a frame", func(h *hand, _ *rendezvous, _ *socket) { h.write(message{Type: typeEnd}.encode()[:7]) }},
		{"after all", func(h *hand, _ *rendezvous, _ *socket) { h.write(message{Type: typeEnd}.encode()[7:]) }},
		{"after ready", func(h *hand, _ *rendezvous, _ *socket) {
			require.Equal(h.t, message{Type: typeReady, Keep: []int{7}}, h.read())
		}},
		{"after going", send(message{Type: typeGoing})},
		{"after stopped", send(message{Type: typeStopped})},
	}
	const socketSent, allSent = 5, 7
	for i, last := range steps {
		t.Run(last.name, func(t *testing.T) {
			eachPlace(t, func(t *testing.T, c Config) {
				r := claim(t, c)
				l, err := net.Listen("tcp4", anyPort)
				require.NoError(t, err)
				queued := dial(t, l.Addr())
				died := make(chan struct{})
				go func() {
					defer close(died)
					h := admit(t, r)
					for _, s := range steps[:i+1] {
						s.do(h, r, &socket{netSocket: l.(netSocket)})
					}
					h.die()
					l.Close()
					r.close(false)
				}()
				p, l2 := listening(t, c)
				answerAll(l2, "new")
				if i > allSent {
					ready(t, p)
				}
				<-died
				answers(t, "new", l2.Addr())
				got, err := readAnswer(queued)
				assert.Equal(t, i >= socketSent, err == nil && got == "new", "%q %v", got, err)
				ready(t, p)
				_, l3 := succeed(t, c, p)
				assert.Equal(t, l2.Addr(), l3.Addr())
			})
		})
	}
}

// A predecessor that has agreed closes its listeners, whatever Ready's ctx does.
func TestAgreementCounts(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		r := claim(t, c)
		ctx, cancel := context.WithCancel(soon(t))
		go func() {
			h := admit(t, r)
			assert.NoError(t, h.send(hello("current", h.conn)))
			assert.NoError(t, h.sendDescriptor(message{Type: typeRendezvous}, r.listener))
			assert.NoError(t, h.send(message{Type: typeEnd}))
			assert.Equal(t, typeReady, h.read().Type)
			assert.NoError(t, h.send(message{Type: typeGoing}))
			cancel()
		}()
		p, _ := listening(t, c)
		require.NoError(t, p.Ready(ctx))
	})
}

func TestProcessThatSaysNothingIsNotAwaitedForEver(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 10 s")
	}
	eachPlace(t, func(t *testing.T, c Config) {
		t.Run("the current one", func(t *testing.T) {
			t.Parallel()
			c := c
			c.Name = "silent-" + c.Name
			claim(t, c)
			_, err := c.Start(context.Background())
			assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
			assert.ErrorContains(t, err, "waited for ")
		})
		t.Run("a newcomer", func(t *testing.T) {
			t.Parallel()
			current(t, c)
			silent, slow := connect(t, c), connect(t, c)
			slow.write(slow.hello()[:20])
			silent.gone()
			slow.gone()
		})
	})
}

// Processes that connect and say nothing do not keep a newcomer out.
func TestSilentConnectionsAreLimited(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, _ := current(t, c)
		for range 3 * maxLinks {
			connect(t, c)
		}
		next, _ := listening(t, c)
		require.NoError(t, old.do(func() { assert.LessOrEqual(t, len(old.links), maxLinks) }))
		ready(t, next)
		replaced(t, old)
	})
}

// Bytes of any kind leave a current process that serves on, or has a successor.
func FuzzCurrent(f *testing.F) {
	c := Config{Name: "web", Dir: folder(f)}
	var p *Process
	start := func(t testing.TB) {
		var err error
		p, err = c.Start(context.Background())
		require.NoError(t, err)
		_, err = p.Listen(context.Background(), reuse.Config{}, "tcp4", anyPort)
		require.NoError(t, err)
		require.NoError(t, p.Ready(context.Background()))
	}
	start(f)
	f.Cleanup(func() { p.Close() })
	greeting := string(connect(f, c).hello())
	toReady := string(message{Type: typeReady, Keep: []int{1}}.encode())
	for _, sent := range []string{
		greeting,
		greeting + greeting,
		greeting + toReady,
		greeting + "\x00\x00\x00\x02{}",
		greeting + "\xff\xff\xff\xff",
		toReady,
		"GET / HTTP/1.1\r\n\r\n",
		"\x04\x00\x00\x00" + strings.Repeat("x", 100_000),
	} {
		f.Add([]byte(sent), true)
		f.Add([]byte(sent), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, half bool) {
		h := connect(t, c)
		_, _ = h.conn.Write(b)
		if half {
			_ = h.conn.CloseWrite()
			h.gone()
		}
		h.die()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		next, err := c.Start(ctx)
		require.NoError(t, err)
		require.NoError(t, next.Close())
		if next.Predecessor() == 0 {
			replaced(t, p)
			start(t)
		}
	})
}
