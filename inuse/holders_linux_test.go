package inuse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/sockdiag"
	"example.com/reuse/internal/testproc"
)

// What overlaps an address is found, by whichever name the address is called.
func TestHoldersOverlap(t *testing.T) {
	if !netns(t) {
		return
	}
	addAddress(t, netip.MustParseAddr("fe80::1"))
	listener("127.0.0.1:80", 0).keep(t)
	packets("127.0.0.1:82", 0).with(tcp).keep(t) // the kernel lists it for any port
	linkLocal, err := net.Listen("tcp6", "[fe80::1%lo]:81")
	require.NoError(t, err)
	defer linkLocal.Close()
	for _, tt := range []struct {
		network, address string
		want             int
	}{
		{"tcp", "localhost:80", 1}, {"tcp", "127.0.0.1:http", 1}, {"tcp", ":http", 1}, {"tcp", "[::]:80", 1},
		{"tcp", "0.0.0.0:80", 1}, {"tcp", "[::ffff:127.0.0.1]:80", 1}, {"tcp4", "[::]:80", 1},
		{"tcp", "[::1]:80", 0}, {"tcp", "127.0.0.2:80", 0}, {"tcp", "127.0.0.1:81", 0}, {"tcp6", "[::]:80", 0}, {"udp", "[::]:80", 0},
		// a link-local address is another one on each interface
		{"tcp6", "[fe80::1%lo]:81", 1}, {"tcp6", "[fe80::1%1]:81", 1}, {"tcp6", "[::]:81", 1},
		{"tcp6", "[fe80::1%2]:81", 0}, {"tcp6", "[fe80::1%other]:81", 0},
	} {
		list := holdersOf(t, tt.network, tt.address)
		require.Len(t, list, tt.want, "%+v", tt)
		if tt.want > 0 && strings.HasSuffix(tt.address, "1") {
			assert.Equal(t, "[fe80::1%lo]:81", list[0].Local.String())
			assert.Empty(t, list[0].Device)
		}
	}
	for _, address := range []string{"[fe80::1%lo]:81", "[fe80::1%1]:81"} {
		assert.Contains(t, refused(t, reuse.Config{}, "tcp6", address).Reason, ":81 is held by this process")
	}
}

// An IPv4 connection of a dual-stack listener comes after it, with its IPv4 address. While
// it waits to be accepted it has no process, also if its peer has closed it. It has the
// options of its listener.
func TestConnectionsOfListener(t *testing.T) {
	if !netns(t) {
		return
	}
	listener("[::]:80", 0).keep(t)
	c, err := net.Dial("tcp4", "127.0.0.1:80")
	require.NoError(t, err)
	for _, state := range []string{"ESTABLISHED", closeWait} {
		var list []Holder
		require.Eventually(t, func() bool {
			list = holdersOf(t, "tcp", ":80")
			return len(list) == 2 && list[1].State == state
		}, patience, tick)
		assert.Equal(t, Holder{Network: "tcp", Local: netip.MustParseAddrPort("[::]:80"), State: listen, PID: os.Getpid(), Command: ownName(t)}, list[0])
		assert.Equal(t, []string{"tcp4", "127.0.0.1:80"}, []string{list[1].Network, list[1].Local.String()})
		assert.Zero(t, list[1].PID)
		assert.Contains(t, list[1].String(), "no process yet, with a connection from 127.0.0.1:80 to "+c.LocalAddr().String())
		require.NoError(t, c.(*net.TCPConn).CloseWrite())
	}
	defer c.Close()
	r := refused(t, reuse.Config{}, "tcp", ":80")
	assert.Equal(t, "reuse.Config{Port: reuse.On} works if this process's own socket set SO_REUSEPORT.", r.Advice[0])
}

// A handshake that the listener has not finished holds no port. With TCP_DEFER_ACCEPT it
// stays unfinished until the client sends.
func TestHandshakeHoldsNothing(t *testing.T) {
	if !netns(t) {
		return
	}
	file, at := listener("127.0.0.1:0", 0).keep(t)
	require.NoError(t, unix.SetsockoptInt(int(file.Fd()), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60))
	c, err := net.Dial("tcp4", at.String())
	require.NoError(t, err)
	defer c.Close()
	handshakes, err := sockdiag.Sockets(unix.IPPROTO_TCP, unix.AF_INET, at.Port(), 1<<unix.BPF_TCP_SYN_RECV)
	require.NoError(t, err)
	require.Len(t, handshakes, 1)
	list := holdersOf(t, "tcp4", at.String())
	require.Len(t, list, 1)
	assert.Equal(t, listen, list[0].State)
}

// A socket's user need not be its process's. A process that this user cannot see is reported as not visible.
func TestUserAndProcess(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	s := listener("127.0.0.1:0", 0).ofNobody()
	_, at := s.keep(t)
	list := holdersOf(t, "tcp4", at.String())
	require.Len(t, list, 1)
	assert.Equal(t, fmt.Sprintf("this process, pid %d (%s), listening on %v (socket of uid %d)", os.Getpid(), ownName(t), at, nobody), list[0].String())
	assert.Equal(t, "a process that has ended or is not visible, listening on "+at.String(), Holder{Local: at, State: listen, UID: -1}.String()) // root sees all that there are

	at, pid := listener("0.0.0.0:0", raddr|rport).start(t)
	address := fmt.Sprint("127.0.0.1:", at.Port())
	r := refusedToNobody(t, "tcp4", address)
	assert.Equal(t, []Holder{{Network: "tcp4", Local: at, State: listen}}, r.Holders, "pid %d", pid)
	assert.Contains(t, r.Reason, fmt.Sprintf("%s is held by a process that is not visible, listening on %v (socket of uid 0).", address, at))
	assert.Contains(t, r.Reason, fmt.Sprintf("both set SO_REUSEPORT under the same user. Yours is uid %d.", nobody))
	assert.Contains(t, r.Advice[0], "No Config works")

	at, pid = s.start(t)
	r = refusedToNobody(t, "tcp4", at.String())
	require.Len(t, r.Holders, 1)
	assert.Contains(t, []int{0, pid}, r.Holders[0].PID) // a process that changed its user shows itself to root only
	assert.Equal(t, nobody, r.Holders[0].UID)
}

func TestAddressesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, tt := range [][2]string{
		{"tcp", ""}, {"tcp", "127.0.0.1"}, {"tcp", "127.0.0.1:"}, {"tcp", "127.0.0.1:0"}, {"tcp", ":0"},
		{"tcp", "127.0.0.1:65536"}, {"tcp", "127.0.0.1:-1"}, {"tcp", "[::1:80"}, {"tcp", "::1:80"}, {"tcp", "\x00:80"},
		{"tcp4", "[::1]:80"}, {"tcp6", "127.0.0.1:80"}, {"udp6", "0.0.0.0:80"}, {"", "127.0.0.1:80"}, {"6", "127.0.0.1:80"},
		{"tcp5", "127.0.0.1:80"}, {"ip4:icmp", "127.0.0.1"}, {"tcp", "127.0.0.1:no such service"}, {"\x1b[2J", ":80"},
	} {
		list, err := Holders(t.Context(), tt[0], tt[1])
		require.Error(t, err, "%q", tt)
		assert.True(t, strings.HasPrefix(err.Error(), "inuse: "), "%v", err)
		assert.Empty(t, list)
	}
	_, err := Holders(t.Context(), "tcp", "127.0.0.1:0")
	assert.ErrorIs(t, err, os.ErrInvalid)
	var unknown net.UnknownNetworkError
	_, err = Holders(t.Context(), "tcp5", "127.0.0.1:80")
	assert.ErrorAs(t, err, &unknown)
	_, err = Holders(t.Context(), "ip4", "/x")
	assert.ErrorIs(t, err, errors.ErrUnsupported)
}

// A context ends the search.
func TestContextEndsSearch(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	_, err := Holders(ctx, "tcp4", "127.0.0.1:80")
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorIs(t, owners(ctx, []Holder{{}}, []uint32{1}), context.DeadlineExceeded)
	_, err = Explain(ctx, reuse.Config{}, &net.OpError{Op: "listen", Net: "tcp4", Addr: &net.TCPAddr{Port: 80}, Err: syscall.EADDRINUSE})
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

// Without descriptors nothing is invented, and no call leaves one open.
func TestFewDescriptors(t *testing.T) {
	if !netns(t) {
		return
	}
	file, at := listener("127.0.0.1:0", 0).keep(t)
	holdersOf(t, "tcp4", at.String())
	before, _ := openFiles()
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	failed := 0
	for spare := range 5 {
		low := limit
		low.Cur = uint64(file.Fd()) + 1 + uint64(spare) // it was the lowest that was free
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
		list, err := Holders(t.Context(), "tcp4", at.String())
		if spare == 0 {
			r := refused(t, reuse.Config{}, "tcp4", "127.0.0.1:0")
			assert.Equal(t, fmt.Sprintf("This process has as many descriptors open as it may: %d of %[1]d now.", low.Cur), r.Reason)
			says(t, r, `^Close connections and files`)
			says(t, r, `^Raise the hard limit`)
		}
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		if err != nil {
			failed++
			assert.ErrorIs(t, err, syscall.EMFILE)
			continue
		}
		require.Len(t, list, 1)
		assert.Equal(t, os.Getpid(), list[0].PID)
	}
	assert.NotZero(t, failed)
	after, _ := openFiles()
	assert.Equal(t, before, after)
}

// A socket is found behind all the other descriptors of its process.
func TestLastOfManyDescriptors(t *testing.T) {
	if !netns(t) {
		return
	}
	s := listener("127.0.1.9:10000", 0)
	s.Count, s.Spread = 3000, true
	_, pid := s.start(t)
	list := holdersOf(t, "tcp4", "127.0.1.9:12999")
	require.Len(t, list, 1)
	assert.Equal(t, pid, list[0].PID)
	assert.Equal(t, ownName(t), list[0].Command)
}

// Without sock_diag the same answer comes from /proc/net, and without both it is an error.
func TestNoSockDiag(t *testing.T) {
	testproc.NeedDeny(t)
	if !netns(t) {
		return
	}
	var places [][2]string
	for _, tt := range []struct {
		holder        spec
		network, held string
	}{
		{listener("[::1]:8080", 0), "tcp6", "[::1]:8080"},
		{listener("127.0.0.1:8081", 0), "tcp4", ":8081"},
		{listener("[::]:8084", 0), "tcp", ":8084"},
		{packets("[::1]:8080", 0), "udp6", "[::]:8080"},
		{packets("127.0.0.1:8081", 0), "udp4", "127.0.0.1:8081"},
		{packets("127.0.0.3:8083", 0), "udp", ":8083"},
	} {
		tt.holder.keep(t)
		places = append(places, [2]string{tt.network, tt.held})
		if tt.holder.Listen {
			c, err := net.Dial("tcp", strings.Replace(tt.holder.At.String(), "[::]", "127.0.0.1", 1))
			require.NoError(t, err)
			defer c.Close()
		}
	}
	inUse := len(places)
	places = append(places, [2]string{"tcp6", "[::1]:8081"}, [2]string{"tcp4", "127.0.0.2:8081"}, [2]string{"udp6", "[::1]:8083"}, [2]string{"udp4", "127.0.0.2:8081"})
	full := question{Places: places}.in(t, nil)
	for _, without := range [][]string{{"proc"}, {"netlink"}, {"proc", "netlink"}} {
		for i, a := range (question{Without: without, Places: places}).in(t, nil) {
			what := fmt.Sprint("without ", without, " ", places[i])
			held := i < inUse
			require.Equal(t, held, a.Refused != nil, what)
			require.Equal(t, len(without) == 2, a.Unsupported, what)
			if a.Unsupported {
				if held {
					assert.Contains(t, a.Refused.Reason, "Which one cannot be seen: unsupported operation")
					assert.Contains(t, a.Refused.Reason, " Linux refuses ")
					says(t, a.Refused, `^reuse\.Config\{Port: reuse\.On\} works if the process on \S+ set SO_REUSEPORT and belongs to your user\.$`)
					says(t, a.Refused, `^The command "ss -tulnp" shows the processes`)
				}
				continue
			}
			require.NotNil(t, a.Checked, what)
			assert.Equal(t, !held, a.Checked.Free, what)
			if held {
				want := slices.Clone(full[i].Checked.Holders)
				for i := range want {
					if without[0] == "proc" {
						want[i].PID, want[i].Command = 0, ""
					}
				}
				require.NotEmpty(t, want, what)
				assert.Equal(t, want, a.Checked.Holders, what)
				assert.Contains(t, a.Refused.Reason, " is held by ", what)
			}
		}
	}
}

func TestOlderThan68(t *testing.T) {
	t.Parallel()
	for release, older := range map[string]bool{"5.10.0-30-amd64": true, "6.7.12": true, "6.8.0": false, "10.0": false, "": false} {
		assert.Equal(t, older, olderThan68(release), release)
	}
}

// No line of /proc/net makes the parser panic or return a socket without an address.
func FuzzProc(f *testing.F) {
	f.Add("   0: 0100007F:9BB7 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 233371 2")
	f.Add("   5: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0        6 1")
	f.Fuzz(func(t *testing.T, line string) {
		if s, ok := parseLine(line); ok && (!s.Local.IsValid() || s.State == 0) {
			t.Fatalf("%q is read as %+v", line, s)
		}
	})
}
