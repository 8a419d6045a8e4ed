package inuse

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
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
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/sockdiag"
	"example.com/reuse/internal/testproc"
)

const (
	raddr  = semantics.Options(semantics.Addr)
	rport  = semantics.Options(semantics.Port)
	nobody = 65534

	patience = 10 * time.Second
	tick     = time.Millisecond
)

// netns is testproc.Netns, for a test that expects Linux's rules.
func netns(t *testing.T) bool {
	t.Helper()
	if !likeLinux() {
		t.Skip("the rules of this kernel, which is not Linux, are not known")
	}
	return testproc.Netns(t)
}

var works = regexp.MustCompile(`^reuse\.Config\{([^}]*)\} works(\.| if )`)

// advised reads the Configs out of an Advice. sure tells whether there is one that
// depends on nothing.
func advised(t testing.TB, r *Report) (list []reuse.Config, sure bool) {
	t.Helper()
	for _, a := range r.Advice {
		m := works.FindStringSubmatch(a)
		if m == nil {
			continue
		}
		sure = sure || m[2] == "."
		var c reuse.Config
		for _, field := range strings.Split(m[1], ", ") {
			switch field {
			case "":
			case "Addr: reuse.On":
				c.Addr = reuse.On
			case "Addr: reuse.Off":
				c.Addr = reuse.Off
			case "Port: reuse.On":
				c.Port = reuse.On
			case "PortLB: reuse.On":
				c.PortLB = reuse.On
			case "Exclusive: reuse.On":
				c.Exclusive = reuse.On
			case "DeferPort: reuse.On":
				c.DeferPort = reuse.On
			default:
				t.Fatalf("advice %q", a)
			}
		}
		list = append(list, c)
	}
	return list, sure
}

var onOther = regexp.MustCompile(`^(?:Network "(\w+)"|A specific address) works(?:, as in "(\S+)"\.)?`)

// elsewhereWorks binds with the other networks and addresses that are advised, and returns
// their number. What it binds may leave a trace: see TestTrace.
func elsewhereWorks(t testing.TB, r *Report, c reuse.Config, port uint16) (n int) {
	t.Helper()
	for _, a := range r.Advice {
		m := onOther.FindStringSubmatch(a)
		if m == nil {
			continue
		}
		network, address := m[1], fmt.Sprint(":", port)
		if network == "" {
			network, address = r.Network, m[2]
		}
		l, err := bindAs(c, network, address)
		if assert.NoError(t, err, "%s %s with %v: %v", network, address, c, r) {
			require.NoError(t, l.Close())
		}
		n++
	}
	return n
}

// every is each Config that a listener can have on Linux and that makes sense.
func every() (list []reuse.Config) {
	settings := []reuse.Setting{reuse.Default, reuse.On, reuse.Off}
	for _, a := range settings {
		for _, p := range settings {
			// On is not for every address, and Off is nothing.
			for _, e := range []reuse.Setting{reuse.Default, reuse.Prefer} {
				if c := (reuse.Config{Addr: a, Port: p, Exclusive: e}); c.Check() == nil {
					list = append(list, c)
				}
			}
		}
	}
	return list
}

// refusedAll shows that no Config binds.
func refusedAll(t testing.TB, network, address string) {
	t.Helper()
	for _, c := range every() {
		l, err := bindAs(c, network, address)
		if assert.ErrorIs(t, err, syscall.EADDRINUSE, "%v", c) {
			continue
		}
		if err == nil {
			l.Close()
		}
	}
}

// needUsers skips a test that makes processes of other users.
func needUsers(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can be other users")
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	require.NoError(t, err)
	var inside, outside, count int
	_, err = fmt.Sscan(string(b), &inside, &outside, &count)
	require.NoError(t, err)
	if count <= nobody {
		t.Skip("this user namespace has no other user")
	}
}

// ownName is what this program's processes are called.
func ownName(t testing.TB) string {
	b, err := os.ReadFile("/proc/self/comm")
	require.NoError(t, err)
	return strings.TrimSuffix(string(b), "\n")
}

// follow binds with a Config and does what Explain advises until a bind succeeds or
// no Config is advised, and then shows that none succeeds. It returns the first
// report, and the Config that bound.
func follow(t testing.TB, c reuse.Config, network, address string) (first *Report, last reuse.Config, bound bool) {
	t.Helper()
	var refused []reuse.Config
	l, err := bindAs(c, network, address)
	for range 5 {
		if err == nil {
			require.NoError(t, l.Close())
			return first, c, true
		}
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		r, e := Explain(t.Context(), c, err)
		require.NoError(t, e)
		if first == nil {
			first = r
		}
		assert.Equal(t, r.Holders, first.Holders)
		list, sure := advised(t, r)
		refused = append(refused, c)
		all := true
		for _, next := range list {
			all = all && slices.Contains(refused, next)
		}
		if all { // so what the advice depends on does not hold
			if len(list) == 0 {
				assert.Contains(t, strings.Join(r.Advice, " "), "No Config works beside")
			}
			assert.False(t, sure)
			refusedAll(t, network, address)
			return first, c, false
		}
		for i, next := range list {
			require.NotEqual(t, c, next, "it was refused")
			if l, err = bindAs(next, network, address); err == nil || i == len(list)-1 {
				c = next
				break
			}
			refused = append(refused, next)
		}
		if sure {
			require.NoError(t, err, "%v is sure to work: %v", c, r)
		}
	}
	t.Fatalf("the advice does not end: %v", first)
	return
}

// showsBound reports whether this kernel shows TCP sockets that are bound only.
func showsBound() bool {
	release, _ := uname()
	return !olderThan68(release)
}

// notShown is what is said of a holder that this kernel does not show: a TCP socket
// that is bound and does not listen, before Linux 6.8.
func notShown(t *testing.T, c reuse.Config, network, address string) {
	t.Helper()
	_, err := bindAs(c, network, address)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	r, err := Explain(t.Context(), c, err)
	require.NoError(t, err)
	assert.Empty(t, r.Holders)
	assert.Contains(t, r.Reason, "is gone, or is not shown. Linux lists TCP sockets that are bound and do not listen from 6.8 on")
	assert.Equal(t, []string{"Try again."}, r.Advice)
}

// needMPTCP skips a test on a kernel that was built without Multipath TCP, as Debian's
// 5.10 was.
func needMPTCP(t *testing.T) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err == unix.EPROTONOSUPPORT {
		t.Skip("no Multipath TCP: ", err)
	}
	require.NoError(t, err)
	require.NoError(t, unix.Close(s))
}

// The holder that is found is the right one, and what is advised succeeds, or if
// nothing is, nothing does. The holder is in another process.
func TestHeld(t *testing.T) {
	if !netns(t) {
		return
	}
	const tcp, udp, mptcp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_MPTCP
	at4, any4 := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("0.0.0.0:0")
	at6, any6 := netip.MustParseAddrPort("[::1]:0"), netip.MustParseAddrPort("[::]:0")
	port := reuse.Config{Port: reuse.On}
	const listening = "refuses any overlapping bind beside a listening socket"
	const overlap = "refuses a bind that overlaps another socket"
	for _, tt := range []struct {
		name          string
		holder        spec
		network, host string
		config        reuse.Config
		held, state   string
		rule          string
		advice        string
		bound         bool // by following the advice
	}{
		{"nothing set", spec{Proto: tcp, At: at4, Listen: true}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp4", listen,
			listening, "works if pid PID set SO_REUSEPORT", false},
		{"as package net", spec{Proto: tcp, At: at4, Listen: true, Options: raddr}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp4", listen,
			listening, "works if pid PID set SO_REUSEPORT", false},
		{"refused with Port", spec{Proto: tcp, At: at4, Listen: true, Options: raddr}, "tcp4", "127.0.0.1", port, "tcp4", listen,
			listening, "No Config works beside pid PID.", false},
		{"without SO_REUSEADDR", spec{Proto: tcp, At: at4, Listen: true, Options: raddr}, "tcp4", "127.0.0.1", reuse.Config{Addr: reuse.Off}, "tcp4", listen,
			overlap, "works if pid PID set SO_REUSEPORT", false},
		{"sharing", spec{Proto: tcp, At: at4, Listen: true, Options: rport}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp4", listen,
			listening, "reuse.Config{Port: reuse.On} works if pid PID set SO_REUSEPORT", true},
		{"exclusive wanted", spec{Proto: tcp, At: at4, Listen: true, Options: rport}, "tcp4", "127.0.0.1", reuse.Config{Exclusive: reuse.On}, "tcp4", listen,
			listening, "reuse.Config{Port: reuse.On} works if pid PID", true},
		{"wildcard, specific wanted", spec{Proto: tcp, At: any4, Listen: true, Options: raddr | rport}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp4", listen,
			listening, "works if", true},
		{"specific, wildcard wanted", spec{Proto: tcp, At: at4, Listen: true, Options: raddr | rport}, "tcp4", "0.0.0.0", reuse.Config{}, "tcp4", listen,
			listening, "works if", true},
		{"specific, dual-stack wanted", spec{Proto: tcp, At: at4, Listen: true, Options: raddr | rport}, "tcp", "", reuse.Config{}, "tcp4", listen,
			listening, "works if", true},
		{"specific, 0.0.0.0 wanted, which is dual-stack", spec{Proto: tcp, At: at6, Listen: true, Options: raddr}, "tcp", "0.0.0.0", reuse.Config{}, "tcp6", listen,
			listening, "works if", false},
		{"dual-stack, IPv4 wanted", spec{Proto: tcp, At: any6, Listen: true, Options: rport}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp", listen,
			listening, "works if", true},
		{"dual-stack, IPv6 wanted", spec{Proto: tcp, At: any6, Listen: true}, "tcp6", "::1", reuse.Config{}, "tcp", listen,
			listening, "works if", false},
		{"IPv6 only", spec{Proto: tcp, At: any6, V6Only: true, Listen: true, Options: rport}, "tcp6", "::1", reuse.Config{}, "tcp6", listen,
			listening, "works if", true},
		{"Multipath TCP", spec{Proto: mptcp, At: at4, Listen: true, Options: rport}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp4", listen,
			listening, "works if", true},
		{"bound only", spec{Proto: tcp, At: at4}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp4", bound,
			overlap, "reuse.Config{Port: reuse.On} works if pid PID set SO_REUSEPORT", false},
		{"bound only, without SO_REUSEADDR", spec{Proto: tcp, At: at4, Options: raddr}, "tcp4", "127.0.0.1", reuse.Config{Addr: reuse.Off}, "tcp4", bound,
			overlap, "reuse.Config{} works if pid PID set SO_REUSEADDR", true},
		{"bound only, sharing", spec{Proto: tcp, At: any6, Options: rport}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp", bound,
			overlap, "works if", true},
		{"bound only, Multipath TCP", spec{Proto: mptcp, At: at4, Options: rport}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp4", bound,
			overlap, "works if", true},
		{"UDP", spec{Proto: udp, At: at4}, "udp4", "127.0.0.1", reuse.Config{}, "udp4", bound,
			overlap, "works if", false},
		{"UDP with SO_REUSEADDR", spec{Proto: udp, At: any4, Options: raddr}, "udp4", "127.0.0.1", reuse.Config{}, "udp4", bound,
			overlap, "reuse.Config{Addr: reuse.On} works if pid PID set SO_REUSEADDR. Then sockets of any user may share the port.", true},
		{"UDP, dual-stack, sharing", spec{Proto: udp, At: any6, Options: rport}, "udp", "127.0.0.1", reuse.Config{}, "udp", bound,
			overlap, "works if", true},
		{"UDP multicast", spec{Proto: udp, At: at4, Options: raddr}, "udp4", "224.1.2.3", reuse.Config{Addr: reuse.Off}, "udp4", bound,
			overlap, "reuse.Config{} works if pid PID set SO_REUSEADDR", true},
		{"40 of one group", spec{Proto: tcp, At: at4, Listen: true, Options: rport, Count: 40}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp4", listen,
			listening, "reuse.Config{Port: reuse.On} works.", true},
		{"40 UDP sockets", spec{Proto: udp, At: at4, Options: rport, Count: 40}, "udp4", "127.0.0.1", reuse.Config{}, "udp4", bound,
			overlap, "reuse.Config{Port: reuse.On} works if pid PID and what shares with it set SO_REUSEPORT.", true},
		{"another user's", spec{Proto: tcp, At: any4, Listen: true, Options: rport, UID: nobody}, "tcp4", "127.0.0.1", port, "tcp4", listen,
			"SO_REUSEPORT shares only between sockets that one user made; root is no exception. Yours is uid 0.", "No Config works beside pid PID.", false},
		{"another user's group of 40", spec{Proto: tcp, At: any4, Listen: true, Options: rport, UID: nobody, Count: 40}, "tcp4", "127.0.0.1", reuse.Config{}, "tcp4", listen,
			"Yours is uid 0.", "No Config works beside", false},
		{"another user's UDP", spec{Proto: udp, At: at4, Options: raddr, UID: nobody}, "udp4", "127.0.0.1", reuse.Config{}, "udp4", bound,
			overlap, "reuse.Config{Addr: reuse.On} works if pid PID set SO_REUSEADDR", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.holder.UID != os.Getuid() {
				needUsers(t)
			}
			if tt.holder.Proto == mptcp {
				needMPTCP(t)
			}
			at, pid := tt.holder.start(t)
			address := net.JoinHostPort(tt.host, strconv.Itoa(int(at.Port())))
			if tt.holder.Proto != udp && !tt.holder.Listen && !showsBound() {
				notShown(t, tt.config, tt.network, address)
				return
			}
			r, c, ok := follow(t, tt.config, tt.network, address)
			require.NotNil(t, r, "not refused with %v", tt.config)
			assert.Equal(t, tt.bound, ok, "%v: %v", c, r)
			require.Len(t, r.Holders, max(tt.holder.Count, 1))
			for _, h := range r.Holders {
				assert.Equal(t, Holder{
					Network: tt.held, Local: at, State: tt.state, UID: tt.holder.UID, PID: pid, Command: h.Command,
				}, h)
			}
			assert.Equal(t, tt.network, r.Network)
			assert.Contains(t, r.Reason, " is held by pid "+strconv.Itoa(pid)+" ("+ownName(t)+"), ")
			assert.Contains(t, r.Reason, " (socket of uid "+strconv.Itoa(tt.holder.UID)+")")
			assert.Contains(t, r.Reason, tt.rule)
			assert.Contains(t, strings.Join(r.Advice, " "), strings.ReplaceAll(tt.advice, "PID", strconv.Itoa(pid)))
			list, err := Holders(t.Context(), tt.network, address)
			require.NoError(t, err)
			assert.Equal(t, r.Holders, list)
		})
	}
}

// What follows is certain, and what depends on the holder does so as is said: for
// every kind of holder, and every Config that it refuses.
func TestEveryAdvice(t *testing.T) {
	if !netns(t) {
		return
	}
	condition := regexp.MustCompile(`^(reuse\.Config\{[^}]*\}) works if this process's own socket set (\w+)(?: or set (\w+))?\.(?: Then sockets of any user may share the port\.)?$`)
	names := map[string]semantics.Options{"SO_REUSEADDR": raddr, "SO_REUSEPORT": rport}
	refusals, sure := 0, 0
	for _, proto := range []int{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		network := map[int]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[proto]
		for _, listens := range []bool{false, true}[:map[int]int{unix.IPPROTO_TCP: 2, unix.IPPROTO_UDP: 1}[proto]] {
			for _, options := range []semantics.Options{0, raddr, rport, raddr | rport} {
				if proto == unix.IPPROTO_TCP && !listens && !showsBound() {
					continue
				}
				for _, host := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
					s := spec{Proto: proto, At: netip.AddrPortFrom(netip.MustParseAddr(host), 0), Listen: listens, Options: options}
					fd, at, err := s.open()
					require.NoError(t, err)
					for _, c := range every() {
						for _, wanted := range []string{"127.0.0.1", "", "::1"} {
							address := net.JoinHostPort(wanted, strconv.Itoa(int(at.Port())))
							l, err := bindAs(c, network, address)
							if err == nil {
								require.NoError(t, l.Close())
								continue
							}
							refusals++
							r, e := Explain(t.Context(), c, err)
							require.NoError(t, e)
							require.Len(t, r.Holders, 1, "%v", r)
							assert.NotContains(t, r.Reason, "is gone", "%v %v", s, c)
							list, certain := advised(t, r)
							depends := slices.DeleteFunc(slices.Clone(r.Advice), func(a string) bool { return !works.MatchString(a) })
							if len(list) == 0 {
								assert.Contains(t, strings.Join(r.Advice, " "), "No Config works", "%v %v", s, c)
							}
							for i, next := range list {
								l, err := bindAs(next, network, address)
								if err == nil {
									require.NoError(t, l.Close())
								}
								if certain {
									sure++
									assert.NoError(t, err, "%v %v: %v", s, c, r)
									continue
								}
								m := condition.FindStringSubmatch(depends[i])
								require.NotNil(t, m, depends[i])
								holds := options&(names[m[2]]|names[m[3]]) != 0
								assert.Equal(t, holds, err == nil, "%v %v: %v: %v", s, c, depends[i], err)
							}
							if len(list) == 0 {
								for _, next := range every() {
									l, err := bindAs(next, network, address)
									if !assert.Error(t, err, "%v refused %v, and lets in %v", s, c, next) {
										l.Close()
									}
								}
							}
						}
					}
					require.NoError(t, unix.Close(fd))
				}
			}
		}
	}
	t.Logf("%d refusals explained, %d certain advices", refusals, sure)
	assert.Greater(t, refusals, 500)
}

// connection makes a connection to a listener that shares as options say, and
// closes the listener.
func connection(t testing.TB, options semantics.Options) (at netip.AddrPort, server, client net.Conn) {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		if e := rc.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, int(options&raddr)/int(raddr)),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, int(options&rport)/int(rport)))
		}); e != nil {
			return e
		}
		return err
	}}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	client, err = net.Dial("tcp4", l.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	require.NoError(t, l.Close())
	t.Cleanup(func() { server.Close(); client.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort(), server, client
}

// What a listener leaves behind is found, and what is advised beside it succeeds.
func TestLeftovers(t *testing.T) {
	if !netns(t) {
		return
	}
	for _, tt := range []struct {
		name    string
		options semantics.Options
		config  reuse.Config
		bound   bool
	}{
		{"as package net, refused without SO_REUSEADDR", raddr, reuse.Config{Addr: reuse.Off}, true},
		{"nothing set", 0, reuse.Config{}, false},
		{"sharing", rport, reuse.Config{}, true},
		{"both", raddr | rport, reuse.Config{Addr: reuse.Off}, true},
	} {
		for _, state := range []string{"ESTABLISHED", closeWait, finWait2, timeWait} {
			t.Run(tt.name+", "+state, func(t *testing.T) {
				at, server, client := connection(t, tt.options)
				pid, orphan, uid := os.Getpid(), false, os.Getuid()
				read := func(c net.Conn) {
					_, err := c.Read(make([]byte, 1))
					require.ErrorIs(t, err, io.EOF)
				}
				switch state {
				case closeWait:
					require.NoError(t, client.(*net.TCPConn).CloseWrite())
					read(server)
				case finWait2: // of a socket that is closed
					require.NoError(t, server.Close())
					read(client)
				case timeWait:
					require.NoError(t, server.Close())
					read(client)
					require.NoError(t, client.Close())
				}
				if state == finWait2 || state == timeWait {
					pid, orphan, uid = 0, true, -1
				}
				var list []Holder
				require.Eventually(t, func() bool {
					var err error
					list, err = Holders(t.Context(), "tcp4", at.String())
					return assert.NoError(t, err) && len(list) == 1 && list[0].State == state
				}, patience, tick, "%v", list)
				r, c, ok := follow(t, tt.config, "tcp4", at.String())
				require.NotNil(t, r)
				assert.Equal(t, tt.bound, ok, "%v: %v", c, r)
				require.Len(t, r.Holders, 1)
				h := r.Holders[0]
				assert.Equal(t, Holder{
					Network: "tcp4", Local: at, Remote: client.LocalAddr().(*net.TCPAddr).AddrPort(), State: state,
					UID: uid, PID: pid, Command: h.Command, orphan: orphan,
				}, h)
				if orphan {
					assert.Contains(t, r.Reason, "is held by no process any more, with a connection from")
					assert.Contains(t, r.String(), state)
				}
			})
		}
	}
}

// A connection of a dual-stack listener has an IPv4 address, and listening sockets
// come first, of whichever family.
func TestFamilies(t *testing.T) {
	if !netns(t) {
		return
	}
	dual := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("[::]:80"), Listen: true}
	fd, _, err := dual.open()
	require.NoError(t, err)
	c, err := net.Dial("tcp4", "127.0.0.1:80")
	require.NoError(t, err)
	defer c.Close()
	accepted, _, err := unix.Accept(fd)
	require.NoError(t, err)
	defer unix.Close(accepted)
	list, err := Holders(t.Context(), "tcp", ":80")
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, []string{"tcp", "[::]:80", listen}, []string{list[0].Network, list[0].Local.String(), list[0].State})
	assert.Equal(t, []string{"tcp4", "127.0.0.1:80", "ESTABLISHED"}, []string{list[1].Network, list[1].Local.String(), list[1].State})
	require.NoError(t, unix.Close(fd))

	at, _, _ := connection(t, raddr)
	only := spec{Proto: unix.IPPROTO_TCP, At: netip.AddrPortFrom(netip.MustParseAddr("::1"), at.Port()), V6Only: true, Listen: true}
	fd, _, err = only.open()
	require.NoError(t, err)
	defer unix.Close(fd)
	list, err = Holders(t.Context(), "tcp", ":"+strconv.Itoa(int(at.Port())))
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, []string{listen, "ESTABLISHED"}, []string{list[0].State, list[1].State})
}

// A link-local address has a zone.
func TestLinkLocal(t *testing.T) {
	if !netns(t) {
		return
	}
	addAddress(t, netip.MustParseAddr("fe80::1"), 1)
	var err error
	var l net.Listener
	require.Eventually(t, func() bool { // until the kernel has checked the address
		l, err = net.Listen("tcp6", "[fe80::1%lo]:80")
		return !errors.Is(err, syscall.EADDRNOTAVAIL)
	}, patience, tick)
	require.NoError(t, err)
	defer l.Close()
	for address, n := range map[string]int{"[fe80::1%lo]:80": 1, "[fe80::1%1]:80": 1, "[fe80::1%2]:80": 0, "[::]:80": 1, "[fe80::1%other]:80": 0} {
		list, err := Holders(t.Context(), "tcp6", address)
		require.NoError(t, err)
		require.Len(t, list, n, address)
		if n > 0 {
			assert.Equal(t, "[fe80::1%lo]:80", list[0].Local.String())
		}
	}
	r := refused(t, reuse.Config{}, "tcp6", "[fe80::1%lo]:80")
	assert.Contains(t, r.Reason, "[fe80::1%lo]:80 is held by this process")
	r = refused(t, reuse.Config{}, "tcp6", "[fe80::1%1]:80")
	require.Len(t, r.Holders, 1)
	assert.Contains(t, r.Reason, "80 is held by this process")
}

// A connection that nobody has accepted yet is in the way, too.
func TestQueued(t *testing.T) {
	if !netns(t) {
		return
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	var list []Holder
	require.Eventually(t, func() bool {
		list, err = Holders(t.Context(), "tcp4", l.Addr().String())
		return err == nil && len(list) == 2
	}, patience, tick)
	assert.Equal(t, []string{listen, "ESTABLISHED"}, []string{list[0].State, list[1].State})
	assert.Equal(t, []int{os.Getpid(), 0}, []int{list[0].PID, list[1].PID})
	assert.Contains(t, list[1].String(), "no process yet")
	// Also one that its peer has closed. What its listener set, it has set.
	require.NoError(t, c.Close())
	require.Eventually(t, func() bool {
		list, err = Holders(t.Context(), "tcp4", l.Addr().String())
		return err == nil && len(list) == 2 && list[1].State == closeWait
	}, patience, tick)
	assert.Contains(t, list[1].String(), "no process yet")
	r := refused(t, reuse.Config{}, "tcp4", l.Addr().String())
	assert.Equal(t, "reuse.Config{Port: reuse.On} works if this process's own socket set SO_REUSEPORT.", r.Advice[0])
}

// A handshake that the listener has not finished holds no port. With TCP_DEFER_ACCEPT it
// stays unfinished until the client sends.
func TestHandshakeHoldsNothing(t *testing.T) {
	if !netns(t) {
		return
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		return errors.Join(rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60) }), err)
	}}
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for range 2 {
		c, err := net.Dial("tcp4", l.Addr().String())
		require.NoError(t, err)
		defer c.Close()
	}
	port := addrPort(l.Addr().String()).Port()
	handshakes, err := sockdiag.TCP(unix.AF_INET, port, sockdiag.SynRecv)
	require.NoError(t, err)
	require.Len(t, handshakes, 2)
	list, err := Holders(t.Context(), "tcp4", l.Addr().String())
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, listen, list[0].State)
}
