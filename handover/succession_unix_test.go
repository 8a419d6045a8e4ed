//go:build unix

package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
)

// A hand-over loses no connection, on each network that has connections.
func TestReadyClosesPredecessor(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		addresses := map[string]string{"tcp": ":0", "tcp4": anyPort, "tcp6": "[::1]:0", "unix": unixAddress(t)}
		if hasAbstract {
			addresses["unixpacket"] = "@" + c.Name + t.Name()
		}
		for network, address := range addresses {
			t.Run(network, func(t *testing.T) {
				t.Parallel()
				if l, err := net.Listen("tcp6", "[::1]:0"); network == "tcp6" && err != nil {
					t.Skip("no IPv6: ", err)
				} else if err == nil {
					l.Close()
				}
				c := c
				c.Name += network
				old := begin(t, c)
				l := listen(t, old, reuse.Config{}, network, address)
				served := answerAll(l, "old")
				ready(t, old)
				assert.Zero(t, old.Predecessor())
				clients := load(t, 4, l.Addr())
				clients.wait(t, "old")

				next, l2 := serve(t, c, "new", network, address)
				assert.Equal(t, os.Getpid(), next.Predecessor())
				clients.wait(t, "new") // both accept
				assert.False(t, isReplaced(old))
				ready(t, next)
				replaced(t, old)
				assert.ErrorIs(t, <-served, net.ErrClosed)
				ready(t, next)
				clients.wait(t, "new")
				clients.none(t)

				_, err := old.Listen(soon(t), reuse.Config{}, network, address)
				assert.ErrorIs(t, err, net.ErrClosed)
				assert.NoError(t, old.Ready(soon(t))) // it has succeeded
				assert.NoError(t, old.Drain(soon(t)))
				assert.NoError(t, old.Close())
				require.False(t, isReplaced(next))
				third, l3 := serve(t, c, "third", network, address) // a new Start in one process
				ready(t, third)
				replaced(t, next)
				assert.Equal(t, l2.Addr(), l3.Addr())
				if u, ok := l3.(*net.UnixListener); ok && hasFile(u) {
					assert.FileExists(t, address)
					require.NoError(t, third.Close())
					assert.NoFileExists(t, address)
				}
			})
		}
	})
}

func hasFile(l *net.UnixListener) bool { return !strings.HasPrefix(l.Addr().String(), "@") }

// A connection that Accept has returned is the old process's, and one that is queued is
// the next's, who may be killed or not.
func TestQueueIsHandedOver(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old := begin(t, c)
		l := listen(t, old, reuse.Config{}, "tcp4", anyPort)
		ready(t, old)
		one := dial(t, l.Addr())
		accepted, err := l.Accept()
		require.NoError(t, err)
		two := dial(t, l.Addr())
		next := begin(t, c)
		l2 := listen(t, next, reuse.Config{}, "tcp4", anyPort)
		ready(t, next)
		replaced(t, old)
		descriptor(t, l2)
		answerAll(l2, "new")
		answered(t, "new", two)
		_, err = io.WriteString(accepted, "old")
		require.NoError(t, err)
		accepted.Close()
		answered(t, "old", one)
	})
}

// A socket that was passed is checked as a new one is, and can be asked for again.
func TestPassedSocketIsChecked(t *testing.T) {
	t.Parallel()
	shared := reuse.Port
	if reuse.Port.Supported() != nil {
		t.Skip("no SO_REUSEPORT: ", reuse.Port.Supported())
	}
	for name, tt := range map[string]struct {
		old, next reuse.Config
		want      reuse.Option // of the error
		ok        bool
	}{
		"On is missing":        {reuse.Config{}, reuse.Config{Port: reuse.On}, shared, false},
		"Off is set":           {reuse.Config{Port: reuse.On}, reuse.Config{Port: reuse.Off}, shared, false},
		"the same":             {reuse.Config{Port: reuse.On}, reuse.Config{Port: reuse.On}, 0, true},
		"nothing is asked for": {reuse.Config{Port: reuse.On}, reuse.Config{}, 0, true},
		"Prefer":               {reuse.Config{}, reuse.Config{Port: reuse.Prefer}, 0, true},
		"both Off":             {reuse.Config{}, reuse.Config{Port: reuse.Off}, 0, true},
		"no Addr":              {reuse.Config{}, reuse.Config{Addr: reuse.Off}, reuse.Addr, false}, // package net sets it
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Config{Name: "web", Dir: folder(t)}
			require.NoError(t, os.Chmod(c.Dir, 0o755)) // a folder for this user is made in it
			old := begin(t, c)
			l := listen(t, old, tt.old, "tcp4", anyPort)
			ready(t, old)
			next := begin(t, c)
			l2, err := next.Listen(soon(t), tt.next, "tcp4", anyPort)
			if !tt.ok {
				var option *reuse.OptionError
				require.ErrorAs(t, err, &option)
				assert.Equal(t, tt.want, option.Option)
				var op *net.OpError
				require.ErrorAs(t, err, &op)
				l2 = listen(t, next, tt.old, "tcp4", anyPort)
			}
			require.NoError(t, errors.Join(next.Ready(soon(t))))
			assert.Equal(t, l.Addr(), l2.Addr())
			replaced(t, old)
		})
	}
}

// Each Listen of an address takes the next socket of it that was passed, and one more
// joins them.
func TestSeveralListeners(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		if err := reuse.PortLB.Supported(); err != nil {
			t.Skip("no PortLB: ", err)
		}
		lb := reuse.Config{PortLB: reuse.On}
		old := begin(t, c)
		first := listen(t, old, lb, "tcp4", anyPort)
		address := first.Addr().String()
		second := listen(t, old, lb, "tcp4", address)
		third := listen(t, old, lb, "tcp4", address)
		ready(t, old)
		next := begin(t, c)
		want := []string{filed(t, first), filed(t, second), filed(t, third)}
		got := []string{filed(t, listen(t, next, lb, "tcp4", anyPort)), filed(t, listen(t, next, lb, "tcp4", address)), filed(t, listen(t, next, lb, "tcp4", address))}
		assert.Equal(t, want, got, "the same sockets in the same order")
		fourth := listen(t, next, lb, "tcp4", address)
		assert.Equal(t, address, fourth.Addr().String())
		assert.NotContains(t, want, filed(t, fourth))
		ready(t, next)
		replaced(t, old)
		last := begin(t, c) // which has the fourth, too
		for range 3 {
			got = append(got, filed(t, listen(t, last, lb, "tcp4", address)))
		}
		assert.Contains(t, got, filed(t, fourth))
	})
}

// filed tells sockets apart, whoever holds them.
func filed(t testing.TB, sc any) string {
	t.Helper()
	rc, err := sc.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, rc.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }))
	require.NoError(t, err)
	return fmt.Sprint(st.Dev, " ", st.Ino, " ", st.Rdev)
}

// What the successor did not ask for is served to the end by the old process.
func TestUnaskedListenerIsDrained(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, l := serve(t, c, "old", "tcp4", anyPort)
		path := unixAddress(t)
		unasked := listen(t, old, reuse.Config{}, "unix", path)
		ready(t, old)
		queued := dial(t, at("unix", path))
		next, l2 := serve(t, c, "new", "tcp4", anyPort)
		ready(t, next)
		assert.False(t, isReplaced(old), "one is queued")
		answers(t, "new", l2.Addr())
		require.Eventually(t, func() bool { _, err := os.Stat(path); return errors.Is(err, os.ErrNotExist) }, 20*time.Second, time.Millisecond)
		answerAll(unasked, "old")
		answered(t, "old", queued)
		replaced(t, old)
		_, err := l.Accept()
		assert.ErrorIs(t, err, net.ErrClosed)
		_, err = unasked.Accept()
		assert.ErrorIs(t, err, net.ErrClosed)
	})
}

// A process that asks for none of the sockets is another service by mistake.
func TestAnotherServiceIsRefused(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, l := current(t, c)
		other := begin(t, c)
		assert.ErrorContains(t, other.Ready(soon(t)), "has other sockets (tcp4 127.0.0.1:0) than this process (nothing)")
		path := unixAddress(t)
		listen(t, other, reuse.Config{}, "unix", path)
		assert.ErrorContains(t, other.Ready(soon(t)), "has other sockets (tcp4 127.0.0.1:0) than this process (unix "+path+")")
		answers(t, "old", l.Addr())
		assert.False(t, isReplaced(old))
		listen(t, other, reuse.Config{}, "tcp4", anyPort)
		ready(t, other)
		replaced(t, old)
	})
}

// What a process opens after Ready, and what it has closed, is passed on, or not.
func TestSocketsOfTheMomentArePassed(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, l := serve(t, c, "old", "tcp4", anyPort)
		path := unixAddress(t)
		closed := listen(t, old, reuse.Config{}, "unix", path)
		ready(t, old)
		later := listen(t, old, reuse.Config{}, "tcp4", "127.0.0.2:0")
		require.NoError(t, closed.Close())
		_, sockets := enter(t, c)
		var got []string
		for _, m := range sockets {
			got = append(got, m.Address)
		}
		assert.Equal(t, []string{anyPort, "127.0.0.2:0"}, got)
		_, _ = l, later
	})
}

// Of processes that start at once one is current and one about to be; the others wait,
// and each has its turn.
func TestOneIsAboutToBe(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		const n = 12
		started := make(chan *Process)
		for range n {
			go func() {
				p, err := c.Start(soon(t))
				assert.NoError(t, err)
				started <- p
			}()
		}
		var before *Process
		for i := range n {
			p := <-started
			t.Cleanup(func() { p.Close() })
			if i < n-1 { // the error says who is about to be
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
		require.Equal(t, "0", first.Ask("start"))
		require.Equal(t, "ok", first.Ask("ready"))
		require.Equal(t, first.Ask("pid"), second.Ask("start"))
		require.Equal(t, "ok", second.Ask("ready"))
		require.Equal(t, "ok", first.Ask("replaced"))
		require.Equal(t, second.Ask("pid"), third.Ask("start"))
		waitedFor(t, third.Ask("pid"), startUntil(c))
		started := make(chan *Process)
		go func() {
			p, err := c.Start(soon(t))
			assert.NoError(t, err)
			started <- p
		}()
		third.Kill()
		p := <-started
		defer p.Close()
		assert.Equal(t, second.Ask("pid"), strconv.Itoa(p.Predecessor()))
	})
}

// A new process that gives up at any time leaves all as it was.
func TestNewcomerDies(t *testing.T) {
	for step, die := range map[string]func(h *hand, hold func() (release func())){
		"before hello":   func(_ *hand, _ func() func()) {},
		"in hello":       func(h *hand, _ func() func()) { h.write(frame(h.t, hello("x", h.conn))[:9]) },
		"after hello":    func(h *hand, _ func() func()) { h.write(frame(h.t, hello("x", h.conn))) },
		"in the middle":  func(h *hand, _ func() func()) { h.write(frame(h.t, hello("x", h.conn))); h.read(); h.read() },
		"before ready":   func(h *hand, _ func() func()) { receiveAll(h) },
		"in ready":       func(h *hand, _ func() func()) { receiveAll(h); h.write(frame(h.t, message{Type: typeReady})[:6]) },
		"ready too soon": func(h *hand, _ func() func()) { h.write(frame(h.t, message{Type: typeReady, Keep: []int{1}})) },
		"after ready": func(h *hand, hold func() func()) {
			receiveAll(h)
			hold()
			h.write(frame(h.t, message{Type: typeReady, Keep: []int{1}}))
		},
		"deaf after ready": func(h *hand, hold func() func()) {
			receiveAll(h)
			hold()
			h.write(frame(h.t, message{Type: typeReady, Keep: []int{1}}))
			h.giveUp()
		},
		"half-closed after ready": func(h *hand, hold func() func()) {
			receiveAll(h)
			release := hold()
			h.write(frame(h.t, message{Type: typeReady, Keep: []int{1}}))
			assert.NoError(h.t, h.conn.CloseWrite())
			release()
			h.gone()
		},
		"ready twice": func(h *hand, hold func() func()) {
			receiveAll(h)
			hold()
			h.write(frame(h.t, message{Type: typeReady, Keep: []int{1}}))
			h.write(frame(h.t, message{Type: typeReady, Keep: []int{1}}))
		},
		"and made the socket blocking": func(h *hand, _ func() func()) {
			receiveAll(h)
			assert.NoError(h.t, unix.SetNonblock(h.in.fds[len(h.in.fds)-1], false))
		},
	} {
		t.Run(step, func(t *testing.T) {
			eachPlace(t, func(t *testing.T, c Config) {
				old := begin(t, c)
				l := listen(t, old, reuse.Config{}, "tcp4", anyPort)
				ready(t, old)
				h := connect(t, c)
				release := func() {}
				die(h, func() func() { release = hold(t, old); return release })
				h.die()
				release()
				detached(t, old)
				descriptor(t, l)
				next := begin(t, c)
				answerAll(l, "old")
				answers(t, "old", l.Addr())
				assert.False(t, isReplaced(old))
				listen(t, next, reuse.Config{}, "tcp4", anyPort)
				ready(t, next)
				replaced(t, old)
			})
		})
	}
}

func receiveAll(h *hand) {
	h.t.Helper()
	require.NoError(h.t, h.send(hello(newID(), h.conn)))
	for m := (message{}); m.Type != typeEnd; m = h.read() {
		require.NotEqual(h.t, typeWait, m.Type)
	}
}

// If the predecessor dies, at any time, the new process is current and has what it got.
func TestPredecessorDies(t *testing.T) {
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
		{"in a frame", func(h *hand, _ *rendezvous, _ *socket) { h.write(frame(h.t, message{Type: typeEnd})[:7]) }},
		{"after all", func(h *hand, _ *rendezvous, _ *socket) { h.write(frame(h.t, message{Type: typeEnd})[7:]) }},
		{"after ready", func(h *hand, _ *rendezvous, _ *socket) {
			require.Equal(h.t, message{Type: typeReady, Keep: []int{7}}, h.read())
		}},
		{"after going", send(message{Type: typeGoing})},
		{"after stopped", send(message{Type: typeStopped})},
	}
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
						if s.name == "in a frame" && i > 6 { // then the frame is whole
							assert.NoError(t, h.send(message{Type: typeEnd}))
							continue
						}
						if s.name != "after all" {
							s.do(h, r, &socket{listener: l})
						}
					}
					h.die()
					l.Close()
					r.close(false)
				}()
				p := begin(t, c)
				l2, err := p.Listen(soon(t), reuse.Config{}, "tcp4", anyPort)
				require.NoError(t, err)
				answerAll(l2, "new")
				if i > 7 {
					ready(t, p)
				}
				<-died
				answers(t, "new", l2.Addr())
				got, err := answerOn(queued)
				if i >= 5 {
					require.NoError(t, err)
					assert.Equal(t, "new", got)
				} else {
					require.Error(t, err)
				}
				ready(t, p)
				next := begin(t, c)
				assert.Equal(t, l2.Addr(), listen(t, next, reuse.Config{}, "tcp4", anyPort).Addr())
				ready(t, next)
				replaced(t, p)
			})
		})
	}
}

// If Ready's ctx ends before the predecessor agrees, that one serves on, and Ready can be
// called again.
func TestReadyIsGivenUp(t *testing.T) {
	me := strconv.Itoa(os.Getpid())
	eachPlace(t, func(t *testing.T, c Config) {
		for name, then := range map[string]func(t *testing.T, c Config, old, next *Process, l net.Listener){
			"and again": func(t *testing.T, _ Config, old, next *Process, l net.Listener) {
				ready(t, next)
				replaced(t, old)
				answers(t, "new", l.Addr())
			},
			"and again while it is held": func(t *testing.T, _ Config, old, next *Process, _ net.Listener) {
				release := hold(t, old)
				waitedFor(t, me, next.Ready)
				release()
				ready(t, next)
				replaced(t, old)
			},
			"and its end is awaited by others": func(t *testing.T, c Config, old, next *Process, _ net.Listener) {
				waitedFor(t, me, startUntil(c))
				require.NoError(t, next.Close())
				third := begin(t, c)
				listen(t, third, reuse.Config{}, "tcp4", anyPort)
				ready(t, third)
				replaced(t, old)
			},
			"and the predecessor drains": func(t *testing.T, c Config, old, next *Process, l net.Listener) {
				require.NoError(t, old.Drain(soon(t)))
				answers(t, "new", l.Addr()) // not hidden
				ready(t, next)
				answers(t, "new", l.Addr())
				listen(t, begin(t, c), reuse.Config{}, "tcp4", anyPort)
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
				next := begin(t, c)
				l2 := listen(t, next, reuse.Config{}, "tcp4", anyPort)
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

// A predecessor that has agreed closes its listeners, whatever Ready's ctx does.
func TestAgreementCounts(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		r := claim(t, c)
		l, err := net.Listen("tcp4", anyPort)
		require.NoError(t, err)
		defer l.Close()
		ctx, cancel := context.WithCancel(soon(t))
		go func() {
			h := admit(t, r)
			h.give(r, &socket{request: request{"tcp4", anyPort, false}, listener: l})
			assert.Equal(t, typeReady, h.read().Type)
			assert.NoError(t, h.send(message{Type: typeGoing}))
			cancel()
		}()
		p := begin(t, c)
		listen(t, p, reuse.Config{}, "tcp4", anyPort)
		require.NoError(t, p.Ready(ctx))
	})
}

// A predecessor that is stopped cannot hand over. The error names it; it serves on when it
// is continued; and after it is killed the next process listens.
func TestStoppedPredecessor(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old := child(t, c, nil)
		require.Equal(t, "0", old.Ask("start"))
		address := old.Ask("listen", "tcp4", anyPort)
		pid := old.Ask("pid")
		n, err := strconv.Atoi(pid)
		require.NoError(t, err)
		require.Equal(t, "ok", old.Ask("ready"))
		next := begin(t, c)
		assert.Equal(t, n, next.Predecessor())
		l := listen(t, next, reuse.Config{}, "tcp4", anyPort)
		stop(t, n)
		waited := pid
		if runtime.GOOS == "linux" {
			waited += " (uid " + strconv.Itoa(os.Geteuid()) + ", stopped)"
		}
		waitedFor(t, waited, next.Ready)
		waitedFor(t, waited, startUntil(c))
		waitedFor(t, waited, next.Ready)
		require.NoError(t, syscall.Kill(n, syscall.SIGCONT))
		answers(t, pid, at("tcp4", address))
		require.NoError(t, next.Close())
		other := begin(t, c)
		listen(t, other, reuse.Config{}, "tcp4", anyPort)
		stop(t, n)
		waitedFor(t, pid, other.Ready)
		old.Kill()
		ready(t, other)
		listen(t, begin(t, c), reuse.Config{}, "tcp4", anyPort)
		_ = l
	})
}

// stop stops a child and returns when it does not run.
func stop(t testing.TB, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	untraced := 2 // WUNTRACED, which the packages do not have for each system
	if runtime.GOOS == "solaris" || runtime.GOOS == "illumos" {
		untraced = 4
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, untraced, nil)
		if err != unix.EINTR {
			require.NoError(t, err)
			break
		}
	}
	require.True(t, status.Stopped())
}

// After kill -9 the next process has the queue if it had the sockets, and else listens
// anew, with a Unix listener, too.
func TestKilledPredecessor(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		path := unixAddress(t)
		for range 5 {
			for _, held := range []bool{false, true} {
				old := child(t, c, nil)
				old.Ask("start")
				address := old.Ask("hold", "tcp4", anyPort)
				require.Equal(t, path, old.Ask("listen", "unix", path))
				require.Equal(t, "ok", old.Ask("ready"))
				queued := dial(t, at("tcp4", address))
				var p *Process
				if held {
					p = begin(t, c)
				}
				old.Kill()
				if !held {
					p = begin(t, c)
					address = anyPort
				}
				l := listen(t, p, reuse.Config{}, "tcp4", anyPort)
				answerAll(l, "new")
				lu := listen(t, p, reuse.Config{}, "unix", path)
				answerAll(lu, "new")
				answers(t, "new", lu.Addr())
				ready(t, p)
				got, err := answerOn(queued)
				assert.Equal(t, held, err == nil && got == "new", "%v: %q %v", held, got, err)
				require.NoError(t, p.Close())
			}
		}
	})
}

// An address is tried for a while if a process that may have held it has vanished, and
// otherwise not. The error names the place where no process was found.
func TestAddressInUse(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		l, err := net.Listen("tcp4", anyPort)
		require.NoError(t, err)
		defer l.Close()
		p := begin(t, c)
		_, err = p.Listen(soon(t), reuse.Config{}, "tcp4", l.Addr().String())
		assert.ErrorIs(t, err, syscall.EADDRINUSE)
		assert.ErrorContains(t, err, "no process that meets at "+c.meetingPlace())
		require.NoError(t, p.Close())

		r := claim(t, c)
		died := make(chan struct{})
		go func() {
			defer close(died)
			admit(t, r).die()
			r.close(true)
		}()
		tries := 0
		c.Control = func(string, string, syscall.RawConn) error {
			if tries++; tries == 4 { // package net may try twice, for Multipath TCP
				l.Close()
			}
			return nil
		}
		listen(t, begin(t, c), reuse.Config{}, "tcp4", l.Addr().String())
		assert.GreaterOrEqual(t, tries, 4)
		<-died
	})
}

// A Unix socket's file that refuses connections is removed; one that does not is in use.
func TestStaleFile(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		p := begin(t, c)
		networks := []string{"unix", "unixgram"}
		if hasAbstract {
			networks = append(networks, "unixpacket")
		}
		for _, network := range networks {
			path := unixAddress(t)
			open := func() (io.Closer, error) {
				if network == "unixgram" {
					return p.ListenPacket(soon(t), reuse.Config{}, network, path)
				}
				return p.Listen(soon(t), reuse.Config{}, network, path)
			}
			var other io.Closer
			var err error
			if network == "unixgram" {
				other, err = net.ListenUnixgram(network, &net.UnixAddr{Name: path, Net: network})
			} else {
				var l *net.UnixListener
				l, err = net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
				l.SetUnlinkOnClose(false)
				other = l
			}
			require.NoError(t, err)
			_, err = open()
			require.ErrorIs(t, err, syscall.EADDRINUSE, network)
			require.FileExists(t, path)
			require.NoError(t, other.Close())
			var l io.Closer
			require.Eventually(t, func() bool { // a process that another test starts has the socket until its exec
				l, err = open()
				return err == nil
			}, 10*time.Second, time.Millisecond, network)
			require.NoError(t, l.Close())
		}
		file := unixAddress(t)
		require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
		_, err := p.Listen(soon(t), reuse.Config{}, "unix", file)
		assert.ErrorIs(t, err, syscall.EADDRINUSE)
		assert.FileExists(t, file)
	})
}

// Packet sockets keep their state. Process never closes one that the caller has.
func TestPackets(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old := begin(t, c)
		gram := unixAddress(t)
		open := func(p *Process, network, address string) net.PacketConn {
			pc, err := p.ListenPacket(soon(t), reuse.Config{}, network, address)
			require.NoError(t, err)
			t.Cleanup(func() { pc.Close() })
			return pc
		}
		udp, unixgram := open(old, "udp4", anyPort), open(old, "unixgram", gram)
		ttl(t, udp, 7)
		ready(t, old)
		client := dial(t, udp.LocalAddr())
		_, err := io.WriteString(client, "queued")
		require.NoError(t, err)
		next := begin(t, c)
		udp2, unixgram2 := open(next, "udp4", anyPort), open(next, "unixgram", gram)
		assert.Equal(t, udp.LocalAddr(), udp2.LocalAddr())
		assert.IsType(t, &net.UDPConn{}, udp2)
		assert.IsType(t, &net.UnixConn{}, unixgram2)
		assert.Equal(t, 7, ttl(t, udp2, 0))
		ready(t, next)
		replaced(t, old)
		_, err = udp.WriteTo([]byte("last answer"), client.LocalAddr())
		assert.NoError(t, err)
		require.NoError(t, unixgram.Close())
		b := make([]byte, 99)
		n, from, err := udp2.ReadFrom(b)
		require.NoError(t, err)
		assert.Equal(t, "queued", string(b[:n]))
		assert.Equal(t, client.LocalAddr().String(), from.String())
		require.NoError(t, next.Drain(soon(t)))
		_, err = udp2.WriteTo([]byte("x"), client.LocalAddr())
		assert.NoError(t, err)
		sender := dial(t, at("unixgram", gram))
		_, err = io.WriteString(sender, "x")
		require.NoError(t, err)
		n, _, err = unixgram2.ReadFrom(b)
		require.NoError(t, err)
		assert.Equal(t, "x", string(b[:n]))
	})
}

// ttl returns an option of a socket, which it sets before, if set is not 0.
func ttl(t testing.TB, sc any, set int) (n int) {
	t.Helper()
	rc, err := sc.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		if set != 0 {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, set)
		}
		var gerr error
		n, gerr = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL)
		err = errors.Join(err, gerr)
	}))
	require.NoError(t, err)
	return n
}

// Sockets of a parent are used if they are what a new socket would be, stay as they are,
// and are passed on with the mark.
func TestFiles(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		parent := func(network, address string) (net.Listener, *os.File) {
			l, err := net.Listen(network, address)
			require.NoError(t, err)
			f, err := l.(interface{ File() (*os.File, error) }).File()
			require.NoError(t, err)
			t.Cleanup(func() { f.Close(); l.Close() })
			return l, f
		}
		l4, f4 := parent("tcp4", anyPort)
		lw, fw := parent("tcp", ":0")
		lu, fu := parent("unix", unixAddress(t))
		unasked, fx := parent("tcp4", anyPort)
		pc, err := net.ListenPacket("udp4", l4.Addr().String())
		require.NoError(t, err)
		defer pc.Close()
		fp, err := pc.(*net.UDPConn).File()
		require.NoError(t, err)
		defer fp.Close()
		port := ":" + strconv.Itoa(lw.Addr().(*net.TCPAddr).Port)
		c.Control = func(_, address string, _ syscall.RawConn) error { return fmt.Errorf("opened %s", address) }
		files := c
		files.Files = []*os.File{fp, fu, fw, fx, f4}
		p := begin(t, files)
		got := listen(t, p, reuse.Config{}, "tcp4", l4.Addr().String())
		assert.Equal(t, filed(t, l4), filed(t, got))
		assert.Equal(t, filed(t, lu), filed(t, listen(t, p, reuse.Config{}, "unix", lu.Addr().String())))
		if strings.HasPrefix(lw.Addr().String(), "[") { // dual-stack
			_, err = p.Listen(soon(t), reuse.Config{}, "tcp4", port)
			require.ErrorContains(t, err, "opened")
			_, err = p.Listen(soon(t), reuse.Config{}, "tcp6", port)
			require.ErrorContains(t, err, "opened", "it is not for IPv6 only")
		}
		assert.Equal(t, filed(t, lw), filed(t, listen(t, p, reuse.Config{}, "tcp", port)))
		_, err = p.Listen(soon(t), reuse.Config{}, "tcp", port)
		require.ErrorContains(t, err, "opened", "each is used once")
		packets, err := p.ListenPacket(soon(t), reuse.Config{}, "udp4", pc.LocalAddr().String())
		require.NoError(t, err)
		defer packets.Close()
		ready(t, p)
		for _, l := range []net.Listener{l4, lw, lu, unasked, got} {
			descriptor(t, l)
		}
		next := begin(t, c)
		l := listen(t, next, reuse.Config{}, "tcp4", l4.Addr().String())
		assert.Equal(t, filed(t, l4), filed(t, l))
		ready(t, next) // those that it did not ask for are the parent's
		replaced(t, p)
		h, sockets := enter(t, c)
		require.Len(t, sockets, 1)
		assert.True(t, sockets[0].Files)
		h.die()
		detached(t, next)
		require.NoError(t, next.Drain(soon(t)))
		for _, l := range []net.Listener{l4, lu, unasked} { // which nobody hides, nor removes
			answerAll(l, "parent")
			answers(t, "parent", l.Addr())
		}
		_, err = Config{Files: []*os.File{os.Stdin}}.Start(t.Context())
		assert.ErrorContains(t, err, "socket 0 of Files")
	})
}

// Control runs for a socket that is opened, after the options are set.
func TestControl(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		var seen []string
		c.Control = func(network, _ string, rc syscall.RawConn) error {
			o, err := reuse.Inspect(rawConn{rc})
			seen = append(seen, network, o.Addr.String())
			return err
		}
		old := begin(t, c)
		listen(t, old, reuse.Config{Addr: reuse.On}, "tcp4", anyPort)
		pc, err := old.ListenPacket(soon(t), reuse.Config{}, "udp4", anyPort)
		require.NoError(t, err)
		defer pc.Close()
		want := []string{"tcp4", "On", "udp4", "Off"}
		require.Equal(t, want, seen)
		ready(t, old)
		next := begin(t, c)
		listen(t, next, reuse.Config{Addr: reuse.On}, "tcp4", anyPort)
		assert.Equal(t, want, seen, "not for one that was passed")
	})
}

// Ends at the same time are one end.
func TestEndsAtOnce(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		for range 20 {
			old, _ := current(t, c)
			next, _ := serve(t, c, "new", "tcp4", anyPort)
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

// What strangers send to the current process changes nothing.
func TestStrangers(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, l := current(t, c)
		greeting := frame(t, hello("x", connect(t, c).conn))
		for name, sent := range map[string]string{
			"garbage":         "GET / HTTP/1.1\r\n\r\n",
			"64 MiB":          "\x04\x00\x00\x00" + strings.Repeat("x", 100_000),
			"no hello":        string(frame(t, message{Type: typeReady, Keep: []int{1}})),
			"JSON of numbers": "\x00\x00\x00\x011",
			"two hellos":      string(greeting) + string(greeting),
			"hello, garbage":  string(greeting) + "\xff\xff\xff\xff",
			"of this moment":  string(greeting) + string(frame(t, message{Type: typeGoing})),
		} {
			h := connect(t, c)
			_, _ = h.conn.Write([]byte(sent)) // an error says that it has been dropped
			_ = h.conn.CloseWrite()
			h.gone()
			h.die()
			require.False(t, isReplaced(old), name)
		}
		for range 3 * maxLinks { // that say nothing
			connect(t, c)
		}
		next := begin(t, c)
		require.NoError(t, old.do(func() { assert.LessOrEqual(t, len(old.links), maxLinks) }))
		listen(t, next, reuse.Config{}, "tcp4", anyPort)
		answers(t, "old", l.Addr())
		ready(t, next)
		replaced(t, old)
		if !testing.Short() { // 5 s
			h := connect(t, c)
			h.gone()
			h = connect(t, c)
			h.write(frame(t, hello("x", h.conn))[:20])
			h.gone()
		}
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
	greeting := frame(f, hello("x", connect(f, c).conn))
	f.Add(greeting, true)
	f.Add(append(slices.Clone(greeting), frame(f, message{Type: typeReady, Keep: []int{1}})...), false)
	f.Add(append(slices.Clone(greeting), "\x00\x00\x00\x02{}"...), true)
	f.Add([]byte("\xff\xff\xff\xff{}"), false)
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

// A chain of processes in one process keeps what is open, and loses nothing.
func TestChain(t *testing.T) {
	rounds := 1_000
	if testing.Short() {
		rounds = 50
	}
	eachPlace(t, func(t *testing.T, c Config) {
		old, l := serve(t, c, "p", "tcp4", anyPort)
		ready(t, old)
		clients := load(t, 2, l.Addr())
		for range rounds {
			next, _ := serve(t, c, "p", "tcp4", anyPort)
			ready(t, next)
			replaced(t, old)
			old = next
		}
		clients.wait(t, "p")
		clients.none(t)
	})
}

// A process that ends while the next one has its Unix listener leaves the file.
func TestFileIsLeftToNewcomer(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		for name, end := range map[string]func(p *Process) error{
			"Close": (*Process).Close,
			"Drain": func(p *Process) error { return p.Drain(soon(t)) },
		} {
			c := c
			c.Name = fmt.Sprintf("%.8s-%s", c.Name, name)
			path := unixAddress(t)
			old := begin(t, c)
			listen(t, old, reuse.Config{}, "unix", path)
			ready(t, old)
			next, l := serve(t, c, "new", "unix", path)
			require.NoError(t, end(old), name)
			ready(t, next)
			answers(t, "new", l.Addr())
		}
	})
}

// A listener that the new process has closed is not one that it takes over.
func TestClosedListenerIsNotTakenOver(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, l := serve(t, c, "old", "tcp4", anyPort)
		ready(t, old)
		next := begin(t, c)
		require.NoError(t, listen(t, next, reuse.Config{}, "tcp4", anyPort).Close())
		require.ErrorContains(t, next.Ready(soon(t)), "other sockets (tcp4 "+anyPort+") than this process (nothing)")
		require.NoError(t, next.Close())
		answers(t, "old", l.Addr())
	})
}

// Drain hides and empties a listener that was opened after a newcomer had received the
// others.
func TestDrainOfListenerThatNewcomerLacks(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, _ := serve(t, c, "old", "tcp4", anyPort)
		ready(t, old)
		begin(t, c)
		l := listen(t, old, reuse.Config{}, "tcp4", anyPort)
		conn, err := net.Dial("tcp4", l.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		drained := make(chan error, 1)
		go func() { drained <- old.Drain(soon(t)) }()
		answerAll(l, "late")
		answered(t, "late", conn)
		err = <-drained
		if err != nil {
			require.ErrorIs(t, err, errors.ErrUnsupported)
		}
	})
}
