package group_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/group"
	"example.com/reuse/internal/sockdiag"
	"example.com/reuse/internal/testproc"
)

var accidentChildren = map[string]testproc.Child{
	"server": server,
	"plain":  plain,
	"squat":  squat,
	"refuse": refuse,
}

// long is a HoldFor that no test outlasts, on no machine.
const long = time.Hour

// server is a process with a group, which serves at once. It answers connections
// with the letter that is its first argument; then come the size, the network, the
// address, and HoldFor.
func server(args []string, in *bufio.Scanner, out io.Writer) error {
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	hold, err := time.ParseDuration(args[4])
	if err != nil {
		return err
	}
	var g *group.Group
	served := make(chan error, 1)
	say := func(err error) {
		if err != nil {
			fmt.Fprintln(out, "error:", strings.ReplaceAll(err.Error(), "\n", "; "))
			return
		}
		fmt.Fprintln(out, "ok")
	}
	for in.Scan() {
		words := strings.Fields(in.Text())
		limit := patience
		if len(words) > 2 {
			if limit, err = time.ParseDuration(words[2]); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		switch words[0] {
		case "listen":
			if g, err = (group.Config{Size: size, HoldFor: hold}).Listen(ctx, args[2], args[3]); err != nil {
				say(err)
				break
			}
			go func() { served <- g.Serve(func(l net.Listener) error { return tell(l, args[0][0]) }) }()
			fmt.Fprintln(out, g.Addr())
		case "takeover":
			members, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			say(g.TakeOver(ctx, members))
		case "drain":
			err := g.Drain(ctx)
			say(errors.Join(err, <-served))
		case "settled":
			say(group.Settled(ctx, g))
		case "close":
			i, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			say(g.Listeners()[i].Close())
		}
	}
	return nil
}

// plain is a process with plain sharing listeners that serve and know nothing of
// groups: a letter, their number, the network, the address and the user.
func plain(args []string, in *bufio.Scanner, out io.Writer) error {
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := become(args[4]); err != nil {
		return err
	}
	var listeners []net.Listener
	address := args[3]
	for range size {
		l, err := reuse.Config{PortLB: reuse.On}.Listen(context.Background(), args[2], address)
		if err != nil {
			return err
		}
		address = l.Addr().String()
		listeners = append(listeners, l)
		go func() { _ = tell(l, args[0][0]) }()
	}
	fmt.Fprintln(out, address)
	for in.Scan() { // the number of one to close
		i, err := strconv.Atoi(in.Text())
		if err != nil {
			return err
		}
		if err := listeners[i].Close(); err != nil {
			return err
		}
		fmt.Fprintln(out, "ok")
	}
	return nil
}

// squat is a process of a user that binds the abstract unix socket that is its first
// argument; a status in place of silence is the third.
func squat(args []string, in *bufio.Scanner, out io.Writer) error {
	if err := become(args[1]); err != nil {
		return err
	}
	l, err := net.Listen("unix", args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for args[2] != "silent" {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if args[2] == "hangup" {
				c.Close()
				continue
			}
			fmt.Fprintln(c, args[2])
		}
	}()
	fmt.Fprintln(out, "ok")
	for in.Scan() {
	}
	return nil
}

// become changes the user of this process.
func become(user string) error {
	id, err := strconv.Atoi(user)
	if err != nil || id == os.Getuid() {
		return err
	}
	return syscall.Setresuid(id, id, id)
}

// tell answers each connection with a letter.
func tell(l net.Listener, letter byte) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_, _ = c.Read(make([]byte, 1))
		_, _ = c.Write([]byte{letter})
		c.Close()
	}
}

// who makes connections and counts the letters that answer.
func who(t *testing.T, address string, n int) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range n {
		letter, err := askLetter(address)
		require.NoError(t, err)
		count[string(letter)]++
	}
	return count
}

// only asserts that one server answers all of n connections.
func only(t *testing.T, letter, address string, n int) {
	t.Helper()
	n = scaled(n)
	require.Equal(t, map[string]int{letter: n}, who(t, address, n))
}

// scaled is how many connections are enough for a number of them: where the processor
// is emulated each takes long.
func scaled(n int) int {
	if testing.Short() {
		return n / 5
	}
	return n
}

func askLetter(address string) (byte, error) {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return 0, err
	}
	b := make([]byte, 1)
	_, err = io.ReadFull(c, b)
	return b[0], err
}

// begin starts a server, which listens.
func begin(t *testing.T, letter string, size int, address string, hold time.Duration) (*testproc.Process, string) {
	t.Helper()
	p := testproc.Start(t, "server", letter, strconv.Itoa(size), "tcp4", address, hold.String())
	answer := p.Ask("listen")
	require.NotContains(t, answer, "error")
	return p, answer
}

// attached tells whether the group of an address has a program, which it takes away.
func attached(t *testing.T, l any) bool {
	t.Helper()
	rc, err := l.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
	}))
	if err != nil {
		require.ErrorIs(t, err, unix.ENOENT)
	}
	return err == nil
}

// join opens a listener on an address in use.
func join(t *testing.T, address string) net.Listener {
	t.Helper()
	return joinNetwork(t, "tcp4", address)
}

func joinNetwork(t *testing.T, network, address string) net.Listener {
	t.Helper()
	lc, err := reuse.Config{PortLB: reuse.On}.ListenConfig(net.ListenConfig{})
	require.NoError(t, err)
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), network, address)
	require.NoError(t, err)
	return l
}

// Of two newcomers the second waits until the first has settled, or its ctx ends:
// to listen, and if it listens already, to take over.
func TestTwoNewcomers(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	old, address := begin(t, "o", 2, "127.0.0.1:0", long)
	first, _ := begin(t, "f", 2, address, long)
	second, _ := begin(t, "s", 3, address, long)
	require.Equal(t, "ok", first.Ask("takeover 0"))
	only(t, "f", address, 100)
	assert.Contains(t, second.Ask("takeover 0 50ms"), "deadline exceeded")
	late := testproc.Start(t, "server", "l", "1", "tcp4", address, "1m")
	assert.Contains(t, late.Ask("listen 0 50ms"), "deadline exceeded")

	second.Send("takeover 0")
	only(t, "f", address, 100)
	require.Equal(t, "ok", old.Ask("drain"))
	require.Equal(t, "ok", second.Receive())
	only(t, "s", address, 100)

	late.Send("listen")
	require.Equal(t, "ok", first.Ask("drain"))
	require.Equal(t, address, late.Receive())
	require.Equal(t, "ok", late.Ask("takeover 0"))
	require.Equal(t, "ok", second.Ask("drain"))
	only(t, "l", address, 100)
}

// The program of a newcomer that was killed stays in the group; who listens next
// takes it away.
func TestNewcomerKilled(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, next := range []bool{false, true} {
		_, address := begin(t, "o", 2, "127.0.0.1:0", long)
		newcomer, _ := begin(t, "n", 2, address, long)
		require.Equal(t, "ok", newcomer.Ask("takeover 0"))
		only(t, "n", address, 100)
		newcomer.Kill()
		only(t, "o", address, 100)
		if next {
			begin(t, "m", 1, address, long)
		}
		l := join(t, address)
		assert.Equal(t, !next, attached(t, l), "what the kernel does without anybody's help, or the next one's work")
		require.NoError(t, l.Close())
	}
}

// Listeners from before leave in any order, and all at once when their process is
// killed: nothing that is steered to the newcomer goes elsewhere, and nothing of
// that is lost.
func TestOldKilled(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for range 3 {
		old := testproc.Start(t, "plain", "o", "6", "tcp4", "127.0.0.1:0", strconv.Itoa(os.Getuid()))
		address := old.Receive()
		newcomer, _ := begin(t, "n", 2, address, long)
		require.Equal(t, "ok", newcomer.Ask("takeover 0"))
		for _, i := range []string{"1", "5", "0"} {
			require.Equal(t, "ok", old.Ask(i))
			only(t, "n", address, 200)
		}
		stop := load(address, 8)
		only(t, "n", address, 200)
		old.Kill()
		require.Equal(t, "ok", newcomer.Ask("settled"))
		answered, lost := stop()
		assert.NotZero(t, answered)
		assert.Empty(t, lost)
	}
}

// Somebody of the same user joins after TakeOver and leaves again, or stays. The
// newcomer is still the one that gets everything, and settles.
func TestThirdMember(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, stays := range []bool{false, true} {
		old, address := begin(t, "o", 2, "127.0.0.1:0", long)
		newcomer, _ := begin(t, "n", 1, address, long)
		require.Equal(t, "ok", newcomer.Ask("takeover 0"))
		third := testproc.Start(t, "plain", "t", "2", "tcp4", address, strconv.Itoa(os.Getuid()))
		third.Receive()
		only(t, "n", address, 200)
		stop := load(address, 4)
		if !stays {
			third.Ask("1")
			only(t, "n", address, 200)
			third.Ask("0")
			only(t, "n", address, 200)
		}
		assert.Equal(t, "ok", old.Ask("drain"))
		require.Equal(t, "ok", newcomer.Ask("settled"))
		answers := who(t, address, scaled(300))
		assert.Equal(t, stays, answers["t"] > 0, "%v", answers)
		assert.NotZero(t, answers["n"])
		answered, lost := stop()
		assert.NotZero(t, answered)
		assert.Empty(t, lost)
	}
}

// A listener from before that stays beyond HoldFor gets its share again, and the
// next newcomer need not wait.
func TestHoldFor(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	foreign := testproc.Start(t, "plain", "f", "2", "tcp4", "127.0.0.1:0", strconv.Itoa(os.Getuid()))
	address := foreign.Receive()
	stop := load(address, 4)
	newcomer, _ := begin(t, "n", 2, address, time.Second)
	require.Equal(t, "ok", newcomer.Ask("takeover 0"))
	only(t, "n", address, 50)
	require.Equal(t, "ok", newcomer.Ask("settled"))
	answers := who(t, address, scaled(300))
	assert.NotZero(t, answers["f"])
	assert.NotZero(t, answers["n"])
	next, _ := begin(t, "x", 2, address, long)
	require.Equal(t, "ok", next.Ask("takeover 0"))
	require.Equal(t, "ok", newcomer.Ask("drain"))
	only(t, "x", address, 50)
	answered, lost := stop()
	assert.NotZero(t, answered)
	assert.Empty(t, lost)
}

// needRoot skips a test that needs two users.
func needRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	id, err := os.ReadFile("/proc/self/uid_map")
	require.NoError(t, err)
	if f := strings.Fields(string(id)); len(f) == 3 && f[2] == "1" {
		t.Skip("this user namespace has one user")
	}
}

const nobody = "65534"

// Another user's sockets on another address of the same port don't count, and
// nothing happens to them; on the same address they are an error.
func TestOtherUser(t *testing.T) {
	needRoot(t)
	if !testproc.Netns(t) {
		return
	}
	_, address := begin(t, "o", 2, "127.0.0.1:0", long)
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	theirs := net.JoinHostPort("127.0.0.2", port)
	stranger := testproc.Start(t, "plain", "s", "3", "tcp4", theirs, nobody)
	require.Equal(t, theirs, stranger.Receive())
	same := testproc.Start(t, "plain", "m", "1", "tcp4", net.JoinHostPort("127.0.0.3", port), "0")
	same.Receive()
	newcomer, _ := begin(t, "n", 2, address, long)
	require.Equal(t, "ok", newcomer.Ask("takeover 0"))
	only(t, "n", address, 100)
	only(t, "s", theirs, 100)
	_, err = group.Config{}.Listen(t.Context(), "tcp4", theirs)
	require.ErrorIs(t, err, unix.EADDRINUSE)
}

// Whoever squats on the lock's name makes Listen and TakeOver fail when their ctx
// ends, whatever his socket does, and is believed nothing if he is another user.
func TestSquattedLock(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	me := strconv.Itoa(os.Getuid())
	g := start(t, 1, "tcp4", "127.0.0.1:0").g
	defer g.Close()
	address, name := g.Addr().String(), group.LockName(g)
	for _, how := range []string{"silent", "hangup", "listening", "steering 1"} {
		squatter := testproc.Start(t, "squat", name, me, how)
		require.Equal(t, "ok", squatter.Receive())
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		assert.ErrorIs(t, g.TakeOver(ctx, 0), context.DeadlineExceeded, how)
		_, err := group.Config{}.Listen(ctx, "tcp4", address)
		assert.ErrorIs(t, err, context.DeadlineExceeded, how)
		cancel()
		assert.False(t, attached(t, g.Listeners()[0]))
		squatter.Kill()
	}
	require.NoError(t, g.TakeOver(t.Context(), 0))
}

// Close does not wait for a TakeOver that waits.
func TestCloseEndsTakeOver(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for name, end := range map[string]func(g *group.Group) error{
		"Close": func(g *group.Group) error { return g.Close() },
		"Drain": func(g *group.Group) error {
			assert.Error(t, g.Drain(t.Context()))
			return nil
		},
		"listener": func(g *group.Group) error { return g.Listeners()[0].Close() },
	} {
		s := start(t, 1, "tcp4", "127.0.0.1:0")
		l, err := net.Listen("unix", group.LockName(s.g))
		require.NoError(t, err)
		failed := make(chan error, 1)
		go func() { failed <- s.g.TakeOver(t.Context(), 0) }()
		c, err := l.Accept() // it waits
		require.NoError(t, err)
		go func() { // Drain asks for a successor
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		require.NoError(t, end(s.g), name)
		assert.ErrorIs(t, <-failed, net.ErrClosed, name)
		if err := <-s.done; err != nil { // of a listener that its user has closed
			assert.ErrorIs(t, err, net.ErrClosed, name)
		}
		require.NoError(t, c.Close())
		require.NoError(t, l.Close())
	}
}

// The lock of another user says nothing about a successor.
func TestForeignLock(t *testing.T) {
	needRoot(t)
	if !testproc.Netns(t) {
		return
	}
	s := start(t, 1, "tcp4", "127.0.0.1:0")
	squatter := testproc.Start(t, "squat", group.LockName(s.g), nobody, "steering 1")
	require.Equal(t, "ok", squatter.Receive())
	assert.ErrorContains(t, s.g.Drain(t.Context()), "user "+nobody)
	require.NoError(t, <-s.done)
}

// Handing over loses nothing whether or not the kernel migrates requests, and without
// TakeOver even migration is not called lossless.
func TestMigrateReq(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	const name = "/proc/sys/net/ipv4/tcp_migrate_req"
	for _, value := range []string{"0", "1"} {
		if err := os.WriteFile(name, []byte(value), 0); err != nil {
			t.Skip("before Linux 5.14, or not this namespace's: ", err)
		}
		s := start(t, 2, "tcp4", "127.0.0.1:0")
		address := s.g.Addr().String()
		stop := load(address, 8)
		for range 10 {
			next := start(t, 2, "tcp4", address)
			require.NoError(t, next.g.TakeOver(t.Context(), 0))
			require.NoError(t, s.g.Drain(t.Context()))
			require.NoError(t, <-s.done)
			s = next
		}
		answered, lost := stop()
		assert.NotZero(t, answered)
		assert.Empty(t, lost)
		require.NoError(t, group.Settled(t.Context(), s.g))
		next := start(t, 2, "tcp4", address)
		assert.ErrorContains(t, s.g.Drain(t.Context()), "no process has taken over")
		require.NoError(t, next.g.Close())
	}
}

// Three processes are replaced by two, one of which takes over for both.
func TestWorkers(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	o1, address := begin(t, "o", 1, "127.0.0.1:0", long)
	o2, _ := begin(t, "o", 1, address, long)
	o3, _ := begin(t, "o", 2, address, long)
	stop := load(address, 8)
	a, _ := begin(t, "a", 2, address, long)
	begin(t, "b", 1, address, long)
	assert.Contains(t, a.Ask("takeover 1"), "invalid argument")
	assert.Contains(t, a.Ask("takeover 8"), "invalid argument")
	assert.Contains(t, a.Ask("takeover -1"), "invalid argument")
	require.Equal(t, "ok", a.Ask("takeover 3"))
	both := func() {
		t.Helper()
		answers := who(t, address, scaled(300))
		assert.Len(t, answers, 2)
		assert.NotZero(t, answers["a"])
		assert.NotZero(t, answers["b"])
	}
	both()
	for _, old := range []*testproc.Process{o2, o1, o3} {
		assert.Equal(t, "ok", old.Ask("drain"))
		both()
	}
	require.Equal(t, "ok", a.Ask("settled"))
	both()
	answered, lost := stop()
	assert.NotZero(t, answered)
	assert.Empty(t, lost)
}

// Listeners that their user closes one at a time while the steering goes on.
func TestCloseListener(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	old, address := begin(t, "o", 3, "127.0.0.1:0", long)
	g := start(t, 3, "tcp4", address)
	require.NoError(t, g.g.TakeOver(t.Context(), 0))
	for i, l := range g.g.Listeners() {
		require.NoError(t, l.Close())
		require.ErrorIs(t, l.Close(), net.ErrClosed)
		_, err := l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		want := string([]byte{1})
		if i == 2 {
			want = "o"
		}
		only(t, want, address, 200)
	}
	require.ErrorIs(t, <-g.done, net.ErrClosed)
	require.ErrorIs(t, g.g.TakeOver(t.Context(), 0), net.ErrClosed)
	require.ErrorIs(t, g.g.Drain(t.Context()), net.ErrClosed)
	next := start(t, 2, "tcp4", address) // nothing holds the lock
	l := join(t, address)
	assert.False(t, attached(t, l))
	require.NoError(t, l.Close())
	require.NoError(t, next.g.TakeOver(t.Context(), 0))
	require.NoError(t, next.g.Listeners()[1].Close())
	require.Equal(t, "ok", old.Ask("drain"))
	require.NoError(t, group.Settled(t.Context(), next.g))
	assert.Zero(t, group.Spares(next.g))
	assert.Len(t, who(t, address, 100), 1)
	require.NoError(t, next.g.Close())
}

// A listener that closes is hidden an instant before. Who looks then for the listeners from
// before must not take them for strangers, and end the steering.
func TestHiddenWhileOldRemain(t *testing.T) {
	t.Parallel()
	old := alone(t, 1)
	g, err := group.Config{Size: 1}.Listen(t.Context(), "tcp4", old.Addr().String())
	require.NoError(t, err)
	require.NoError(t, g.TakeOver(t.Context(), 0))
	require.NoError(t, group.BlindFirst(g))
	assert.True(t, group.Remain(g))
	require.NoError(t, g.Close())
	require.NoError(t, old.Close())
}

// An old listener that nobody accepts from, and whose queue is full, does not answer who
// asks for its number. When HoldFor is over the spares are closed nevertheless, or left if
// there are more such listeners than can be waited for.
func TestSettleBesideFullQueue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ full, spares int }{{1, 0}, {6, 6}} {
		t.Run(strconv.Itoa(tt.full), func(t *testing.T) {
			t.Parallel()
			address := "127.0.0.1:0"
			for range tt.full {
				old := join(t, address)
				defer old.Close()
				address = old.Addr().String()
				rc, err := old.(*net.TCPListener).SyscallConn()
				require.NoError(t, err)
				require.NoError(t, rc.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }))
				require.NoError(t, err)
			}
			for range 100 * tt.full { // until no queue has room
				d := net.Dialer{Timeout: 100 * time.Millisecond}
				if c, err := d.Dial("tcp", address); err == nil {
					defer c.Close()
				}
				if queuedAt(t, address) == tt.full {
					break
				}
			}
			require.Equal(t, tt.full, queuedAt(t, address))
			g, err := group.Config{Size: 2, HoldFor: time.Millisecond}.Listen(t.Context(), "tcp4", address)
			require.NoError(t, err)
			require.NoError(t, g.TakeOver(t.Context(), 0))
			require.NoError(t, group.Settled(t.Context(), g))
			assert.Equal(t, tt.spares, group.Spares(g))
			assert.False(t, attached(t, g.Listeners()[0]))
			require.NoError(t, g.Close())
		})
	}
}

// queuedAt counts the connections that wait for those who listen on an IPv4 address.
func queuedAt(t *testing.T, address string) (n int) {
	t.Helper()
	list, err := sockdiag.TCP(unix.AF_INET, netip.MustParseAddrPort(address).Port(), sockdiag.Listen)
	require.NoError(t, err)
	for _, s := range list {
		n += int(s.Queue)
	}
	return n
}

// Then the listeners from before leave: their number of spares must not have fallen.
func TestCloseListenerThenOld(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	old := testproc.Start(t, "plain", "o", "3", "tcp4", "127.0.0.1:0", strconv.Itoa(os.Getuid()))
	address := old.Receive()
	s := start(t, 3, "tcp4", address)
	require.NoError(t, s.g.TakeOver(t.Context(), 0))
	n := scaled(200)
	mine := map[string]int{"\x01": n}
	for _, l := range s.g.Listeners()[:2] {
		require.NoError(t, l.Close())
		assert.Equal(t, mine, who(t, address, n))
	}
	for _, i := range []string{"0", "1", "2"} {
		require.Equal(t, "ok", old.Ask(i))
		assert.Equal(t, mine, who(t, address, n))
	}
	require.NoError(t, group.Settled(t.Context(), s.g))
	assert.Zero(t, group.Spares(s.g))
	assert.False(t, attached(t, s.g.Listeners()[2]))
	require.NoError(t, s.g.Close())
	require.ErrorIs(t, <-s.done, net.ErrClosed)
}
