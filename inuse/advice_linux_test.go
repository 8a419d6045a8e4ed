package inuse

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
)

// These tests hold addresses in every way, and do what Explain advises.

// A process that has the address is named with its socket's state and user, with the rule
// that refuses the bind, and with what works.
func TestExplainNamesHolderRuleAndAdvice(t *testing.T) {
	if !netns(t) {
		return
	}
	at4, any4, any6 := "127.0.0.1:0", "0.0.0.0:0", "[::]:0"
	none, port, noAddr := reuse.Config{}, reuse.Config{Port: reuse.On}, reuse.Config{Addr: reuse.Off}
	const listening, overlap = "refuses any overlapping bind", "refuses a bind that overlaps another socket"
	const otherUser = "SO_REUSEPORT shares only between sockets that one user made, without an exception for root. Yours is uid 0."
	for _, tt := range []struct {
		name          string
		holder        spec
		network, host string
		config        reuse.Config
		held, state   string
		rule, advice  string
		works         bool // some Config
	}{
		{"nothing set", listener(at4, 0), "tcp4", "127.0.0.1", none, "tcp4", listen, listening, "works if pid PID set SO_REUSEPORT", false},
		{"refused with Port", listener(at4, raddr), "tcp4", "127.0.0.1", port, "tcp4", listen, listening, "No Config works alongside pid PID.", false},
		{"dual-stack", listener(any6, 0), "tcp", "", none, "tcp", listen, listening, "works if", false},
		{"IPv6 only", listener(any6, 0).v6only(true), "tcp6", "::", none, "tcp6", listen, listening, "works if", false},
		{"IPv6 only, dual-stack wanted", listener(any6, rport).v6only(true), "tcp", "", none, "tcp6", listen, listening, "works if", true},
		{"dual-stack, IPv4 wanted", listener(any6, rport), "tcp4", "127.0.0.1", none, "tcp", listen, listening, "works if", true},
		{"Multipath TCP", listener(at4, rport).with(mptcp), "tcp4", "127.0.0.1", none, "tcp4", listen, listening, "works if", true},
		{"bound only", packets(at4, 0).with(tcp), "tcp4", "127.0.0.1", none, "tcp4", bound, overlap, "reuse.Config{Port: reuse.On} works if pid PID set SO_REUSEPORT", false},
		{"bound only, without SO_REUSEADDR", packets(at4, raddr).with(tcp), "tcp4", "127.0.0.1", noAddr, "tcp4", bound, overlap, "reuse.Config{} works if pid PID set SO_REUSEADDR", true},
		{"UDP", packets(at4, 0), "udp4", "127.0.0.1", none, "udp4", bound, overlap, "works if", false},
		{"UDP with SO_REUSEADDR", packets(any4, raddr), "udp4", "127.0.0.1", none, "udp4", bound, overlap,
			"reuse.Config{Addr: reuse.On} works if pid PID set SO_REUSEADDR. Then sockets of any user may share the port.", true},
		{"UDP multicast", packets(at4, raddr), "udp4", "224.1.2.3", noAddr, "udp4", bound, overlap, "reuse.Config{} works if pid PID set SO_REUSEADDR", true},
		{"40 of one group", listener(at4, rport).forty(), "tcp4", "127.0.0.1", none, "tcp4", listen, listening, "reuse.Config{Port: reuse.On} works.", true},
		{"40 UDP sockets", packets(at4, rport).forty(), "udp4", "127.0.0.1", none, "udp4", bound, overlap,
			"reuse.Config{Port: reuse.On} works if pid PID and what shares with it set SO_REUSEPORT.", true},
		{"another user's", listener(any4, rport).ofNobody(), "tcp4", "127.0.0.1", port, "tcp4", listen, otherUser, "No Config works alongside pid PID.", false},
		{"another user's UDP", packets(at4, raddr).ofNobody(), "udp4", "127.0.0.1", none, "udp4", bound, overlap, "reuse.Config{Addr: reuse.On} works if pid PID set SO_REUSEADDR", true},
		{"another user's UDP, refused with Addr", packets(at4, 0).ofNobody(), "udp4", "127.0.0.1", reuse.Config{Addr: reuse.On}, "udp4", bound, overlap,
			"No Config works alongside pid PID. End the process, or use another port.", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.holder.UID != 0 {
				needUsers(t)
			}
			if tt.holder.Proto == mptcp {
				s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, mptcp)
				if err != nil {
					t.Skip("this kernel was built without Multipath TCP, as Debian's 5.10: ", err)
				}
				require.NoError(t, unix.Close(s))
			}
			at, pid := tt.holder.start(t)
			address := net.JoinHostPort(tt.host, strconv.Itoa(int(at.Port())))
			r := refused(t, tt.config, tt.network, address)
			if tt.holder.Proto != udp && tt.state == bound && !showsBound() {
				assert.Empty(t, r.Holders)
				assert.Contains(t, r.Reason, "is gone, or is not shown. Linux lists TCP sockets that are bound and do not listen from 6.8 on")
				assert.Equal(t, []string{"Try again."}, r.Advice)
				return
			}
			works, _ := follow(t, r, tt.config, tt.network, address)
			assert.Equal(t, tt.works, len(works) > 0, "%v: %v", works, r)
			require.Len(t, r.Holders, max(tt.holder.Count, 1))
			for _, h := range r.Holders {
				assert.Equal(t, Holder{
					Network: tt.held, Local: at, State: tt.state, UID: tt.holder.UID, PID: pid, Command: ownName(t),
				}, h)
			}
			assert.Equal(t, tt.network, r.Network)
			assert.Contains(t, r.Reason, fmt.Sprintf(" is held by pid %d (%s), ", pid, ownName(t)))
			assert.Contains(t, r.Reason, fmt.Sprintf(" (socket of uid %d)", tt.holder.UID))
			assert.Contains(t, r.Reason, tt.rule)
			assert.Contains(t, strings.Join(r.Advice, " "), strings.ReplaceAll(tt.advice, "PID", strconv.Itoa(pid)))
			// A hand-over is advised from a socket of this user on the same address only.
			same := tt.network == tt.held && at.Addr().String() == cmp.Or(tt.host, "::")
			handOver := same && tt.holder.UID == 0 && (tt.state == listen || tt.holder.Proto == udp)
			assert.Equal(t, handOver, strings.Contains(strings.Join(r.Advice, " "), "a hand-over from it passes the socket on"), "%v", r)
			assert.Equal(t, r.Holders, holdersOf(t, tt.network, address))
		})
	}
}

// A condition in an Advice decides whether its Config works, for every kind of holder and
// every Config that it refuses.
func TestConditionsHold(t *testing.T) {
	if !netns(t) {
		return
	}
	condition := regexp.MustCompile(`^this process's own socket set (\w+)(?: or set (\w+))?$`)
	names := map[string]semantics.Options{"SO_REUSEADDR": raddr, "SO_REUSEPORT": rport}
	refusals, conditional := 0, 0
	for _, kind := range []spec{{Proto: tcp}, {Proto: tcp, Listen: true}, {Proto: udp}} {
		if kind.Proto == tcp && !kind.Listen && !showsBound() {
			continue
		}
		for _, options := range []semantics.Options{0, raddr, rport, raddr | rport} {
			for _, host := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
				s := kind
				s.At, s.Options = netip.AddrPortFrom(netip.MustParseAddr(host), 0), options
				for _, c := range every() {
					for _, wanted := range []string{"127.0.0.1", "", "::1"} {
						file, at := s.keep(t) // each on its own port: what was bound before leaves a trace
						address := net.JoinHostPort(wanted, strconv.Itoa(int(at.Port())))
						if l, err := bindAs(c, s.network(), address); err == nil {
							require.NoError(t, errors.Join(l.Close(), file.Close()))
							continue
						}
						refusals++
						r := refused(t, c, s.network(), address)
						require.Len(t, r.Holders, 1, "%v", r)
						works, _ := follow(t, r, c, s.network(), address, s)
						for next, text := range conditions(r) {
							if text == "" || !slices.Contains(every(), next) {
								continue
							}
							conditional++
							m := condition.FindStringSubmatch(text)
							require.NotNil(t, m, text)
							holds := options&(names[m[1]]|names[m[2]]) != 0
							assert.Equal(t, holds, slices.Contains(works, next), "%+v %v: %v if %v", s, c, next, text)
						}
						require.NoError(t, file.Close())
					}
				}
			}
		}
	}
	assert.Greater(t, refusals, 500)
	assert.Greater(t, conditional, 100)
}

// The advice is right alongside any sockets, open or closed.
func TestAdviceHoldsAlongsideAnySockets(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	shown := showsBound() // if not, all TCP sockets listen
	random := rand.New(rand.NewPCG(1, 1))
	hosts := []string{"127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"}
	rounds := 400
	if testing.Short() {
		rounds = 100
	}
	hopeless, other := 0, 0
	for round := range rounds {
		port := uint16(2000 + round)
		s := spec{Proto: []int{tcp, udp}[random.IntN(2)]}
		var open []io.Closer
		var story []string
		for range 2 + random.IntN(4) {
			s.At = netip.AddrPortFrom(netip.MustParseAddr(hosts[random.IntN(len(hosts))]), port)
			s.Options = []semantics.Options{0, raddr, rport, raddr | rport}[random.IntN(4)]
			s.V6Only, s.Listen = random.IntN(2) == 0, s.Proto == tcp && (random.IntN(2) == 0 || !shown)
			s.UID = []int{0, 0, nobody}[random.IntN(3)]
			fd, _, err := s.open()
			story = append(story, fmt.Sprintf("%+v: %v", s, err))
			if err == nil {
				open = append(open, os.NewFile(uintptr(fd), ""))
			}
			if len(open) > 1 && random.IntN(4) == 0 {
				i := random.IntN(len(open))
				require.NoError(t, open[i].Close())
				open = slices.Delete(open, i, i+1)
				story = append(story, fmt.Sprint("and closed number ", i))
			}
		}
		network, address := s.network(), net.JoinHostPort(hosts[random.IntN(len(hosts))], strconv.Itoa(int(port)))
		if strings.HasPrefix(address, "0") {
			network += "4"
		}
		c := every()[random.IntN(len(every()))]
		if l, err := bindAs(c, network, address); err == nil {
			require.NoError(t, l.Close())
		} else {
			r := explained(t, c, err)
			_, n := follow(t, r, c, network, address, round, strings.Join(story, "\n"))
			other += n
			if strings.Contains(strings.Join(r.Advice, "\n"), "No Config works") {
				hopeless++
			}
		}
		for _, c := range open {
			require.NoError(t, c.Close())
		}
	}
	assert.NotZero(t, hopeless)
	assert.NotZero(t, other)
}

// connection makes a connection to a listener, closes the listener, and brings the
// server's end to a state.
func connection(t testing.TB, s spec, state string) (server, client *net.TCPConn) {
	t.Helper()
	file, at := s.keep(t)
	l, err := net.FileListener(file)
	require.NoError(t, err)
	c, err := net.Dial("tcp", at.String()) // a wildcard is dialed on the loopback
	require.NoError(t, err)
	a, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, errors.Join(l.Close(), file.Close()))
	t.Cleanup(func() { a.Close(); c.Close() })
	end := func(closing func() error, peer net.Conn) {
		require.NoError(t, closing())
		_, err := peer.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	server, client = a.(*net.TCPConn), c.(*net.TCPConn)
	if state == closeWait {
		end(client.CloseWrite, server)
	}
	if state == finWait2 || state == timeWait {
		end(server.Close, client)
	}
	if state == timeWait {
		require.NoError(t, client.Close())
	}
	return server, client
}

// Connections that a listener left are found, and the advice alongside them is right.
func TestLeftoverConnections(t *testing.T) {
	if !netns(t) {
		return
	}
	for _, tt := range []struct {
		name    string
		options semantics.Options
		config  reuse.Config
		works   bool
	}{
		{"as package net, refused without SO_REUSEADDR", raddr, reuse.Config{Addr: reuse.Off}, true},
		{"nothing set", 0, reuse.Config{}, false},
		{"sharing", rport, reuse.Config{}, true},
		{"both", raddr | rport, reuse.Config{Addr: reuse.Off}, true},
	} {
		for _, state := range []string{"ESTABLISHED", closeWait, finWait2, timeWait} {
			t.Run(tt.name+", "+state, func(t *testing.T) {
				server, client := connection(t, listener("127.0.0.1:0", tt.options), state)
				at := server.LocalAddr().(*net.TCPAddr).AddrPort()
				want := Holder{
					Network: "tcp4", Local: at, Remote: client.LocalAddr().(*net.TCPAddr).AddrPort(), State: state,
					PID: os.Getpid(), Command: ownName(t),
				}
				if state == finWait2 || state == timeWait { // of a socket that is closed
					want.PID, want.Command, want.UID, want.orphan = 0, "", -1, true
				}
				require.Eventually(t, func() bool {
					list := holdersOf(t, "tcp4", at.String())
					return len(list) == 1 && list[0].State == state
				}, patience, tick)
				r := refused(t, tt.config, "tcp4", at.String())
				works, _ := follow(t, r, tt.config, "tcp4", at.String())
				assert.Equal(t, tt.works, len(works) > 0, "%v: %v", works, r)
				assert.Equal(t, []Holder{want}, r.Holders)
				who := "this process's own socket"
				if want.orphan { // the kernel has forgotten the user, who does not matter
					who = "the socket that left " + state + " behind"
					assert.Contains(t, r.Reason, "is held by no process any more, with a connection from")
				}
				says(t, r, `^reuse\.Config\{Port: reuse\.On\} works if `+who+` (set SO_REUSEADDR or )?set SO_REUSEPORT\.$`)
			})
		}
	}
}

// An IPv6 connection of a dual-stack socket conflicts with 0.0.0.0 as an IPv4 one would,
// and with no other IPv4 address. The kernel does not report that its socket is dual-stack.
func TestDualStackConnection(t *testing.T) {
	if !netns(t) {
		return
	}
	off := reuse.Config{Addr: reuse.Off}
	for _, state := range []string{"ESTABLISHED", timeWait, connected} {
		for _, dual := range []bool{true, false} {
			s := listener("[::]:0", 0).v6only(!dual)
			var local netip.AddrPort
			if state == connected {
				s = packets("[::]:0", 0).v6only(!dual)
				file, at := s.keep(t)
				local = netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
				require.NoError(t, unix.Connect(int(file.Fd()), sockaddr(netip.AddrPortFrom(local.Addr(), 9))))
			} else {
				server, _ := connection(t, s, state)
				local = server.LocalAddr().(*net.TCPAddr).AddrPort()
			}
			network, port, what := s.network()+"4", fmt.Sprint(":", local.Port()), fmt.Sprintf("%+v %s", s, state)
			list := holdersOf(t, network, port)
			require.Len(t, list, 1, what)
			assert.Equal(t, local, list[0].Local, what)
			says(t, checked(t, off, network, port), `^reuse\.Config{Addr: reuse\.Off} works if .* made an IPv6-only socket\.$`)
			if dual {
				r := refused(t, off, network, port)
				follow(t, r, off, network, port, what)
				assert.NotContains(t, r.String(), "IPv6-only") // so it was not
			} else {
				binds(t, off, network, port)
			}
			assert.Empty(t, holdersOf(t, network, "127.0.0.1"+port), what)
			binds(t, off, network, "127.0.0.1"+port)
		}
	}
}

// Sockets that are alongside each other do not always share, so that no advice is sure.
func TestNoAdviceIsSure(t *testing.T) {
	if !netns(t) {
		return
	}
	addDevice(t, "a0")
	addDevice(t, "b0")
	for _, tt := range []struct {
		name             string
		holders          []spec
		clear            bool // SO_REUSEPORT, after the binds
		network, address string
	}{
		{"listeners of different devices", []spec{listener("0.0.0.0:67", 0).on("a0"), listener("0.0.0.0:67", 0).on("b0")},
			false, "tcp4", ":67"},
		{"UDP sockets of different devices", []spec{packets("0.0.0.0:67", 0).on("a0"), packets("0.0.0.0:67", 0).on("b0")},
			false, "udp4", ":67"},
		{"one was compared with the last only", []spec{listener("0.0.0.0:80", 0).on("a0"), listener("0.0.0.0:80", rport).on("b0"), listener("0.0.0.0:80", rport)},
			false, "tcp4", "127.0.0.1:80"},
		{"another user's socket let two in", []spec{packets("0.0.0.0:53", raddr|rport).ofNobody(), packets("0.0.0.0:53", raddr|rport), packets("127.0.0.1:53", rport)},
			false, "udp4", "127.0.0.1:53"},
		{"the option was cleared", []spec{packets("127.0.0.1:54", rport), packets("127.0.0.1:54", rport)},
			true, "udp4", "127.0.0.1:54"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.holders[0].UID != 0 {
				needUsers(t)
			}
			var files []*os.File
			for _, s := range tt.holders {
				file, _ := s.keep(t)
				files = append(files, file)
			}
			for _, file := range files {
				if tt.clear {
					require.NoError(t, unix.SetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_REUSEPORT, 0))
				}
			}
			for _, c := range []reuse.Config{{}, {Addr: reuse.On}} {
				r := refused(t, c, tt.network, tt.address)
				require.Len(t, r.Holders, len(tt.holders))
				assert.NotContains(t, r.String(), "} works.")
				works, _ := follow(t, r, c, tt.network, tt.address)
				assert.True(t, len(works) == 0 || !tt.clear, "%v", works)
				if r.Holders[0].Device != "" {
					assert.Contains(t, r.String(), fmt.Sprintf("  %v on %s  ", r.Holders[0].Local, r.Holders[0].Device))
				}
			}
		})
	}
}

// Linux admits what the rules of two sockets forbid, because it asks one of several only, or
// remembers one that is closed. The Advice is then never that no Config works.
func TestLinuxAdmitsMoreThanItsRules(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	for port, gone := range map[string]bool{":80": false, ":81": true} {
		listener("0.0.0.0"+port, 0).ofNobody().keep(t)
		own := listener("[::]"+port, rport).v6only(true)
		own.Listen = !gone
		if file, _ := own.keep(t); gone {
			require.NoError(t, file.Close())
			says(t, refused(t, reuse.Config{}, "tcp", port), "^No Config is sure to work alongside this process's own socket\\.$")
		} else {
			r := refused(t, reuse.Config{}, "tcp", port)
			assert.Equal(t, "reuse.Config{Port: reuse.On} may work: Linux can admit SO_REUSEPORT alongside one socket of your user without asking the others.", r.Advice[0])
		}
		l, err := bindAs(reuse.Config{Port: reuse.On}, "tcp", port)
		require.NoError(t, err)
		assert.NotContains(t, refused(t, reuse.Config{}, "tcp4", "127.0.0.1"+port).String(), "} works.")
		require.NoError(t, l.Close())
	}
}

// The Reason names the holder that refuses every Config.
func TestHopelessHolderIsNamed(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	listener("127.0.0.1:8200", rport).keep(t)
	_, pid := listener("127.0.0.2:8200", 0).ofNobody().start(t)
	for _, c := range []reuse.Config{{}, {Port: reuse.On}} {
		r := refused(t, c, "tcp4", ":8200")
		assert.Equal(t, []string{fmt.Sprintf("No Config works alongside pid %d.", pid), "End the process, or use another port."}, r.Advice)
		assert.Contains(t, r.Reason, fmt.Sprintf(":8200 is held by pid %d ", pid))
		follow(t, r, c, "tcp4", ":8200")
	}
}

// The Advice names a network or an address that no holder overlaps.
func TestElsewhere(t *testing.T) {
	if !netns(t) {
		return
	}
	addDevice(t, "v0")
	none, exclusive := reuse.Config{}, reuse.Config{Exclusive: reuse.On}
	for _, tt := range []struct {
		holder         spec
		config         reuse.Config
		network, asked string
		want           string // "": nothing elsewhere
	}{
		{listener("[::1]:8080", 0), none, "tcp", "0.0.0.0:8080", `Network "tcp4" works: "tcp" with a wildcard address is dual-stack`},
		{listener("0.0.0.0:8080", 0), none, "tcp", "[::]:8080", `Network "tcp6" works`},
		{packets("[::1]:8080", 0), none, "udp", "0.0.0.0:8080", `Network "udp4" works`},
		// systemd-resolved's, which is on lo
		{packets("127.0.0.53:53", 0).on("lo"), none, "udp4", "0.0.0.0:53", `A specific address works, as in "127.0.0.1:53"`},
		{listener("127.0.0.53:53", 0).on("lo"), none, "tcp", "0.0.0.0:53", "A specific address works"},
		{packets("127.0.0.1:53", 0), none, "udp4", ":53", ""}, // lo has no other
		// with Exclusive On the advice is of what Listen accepts
		{listener("[::1]:8080", 0), exclusive, "tcp", ":8080", ""},
		{listener("[::1]:80", 0), exclusive, "tcp", ":80", `Network "tcp4" works`}, // a privileged port
		{listener("127.0.0.1:8080", 0), exclusive, "tcp", ":8080", ""},
		{listener("127.0.0.2:8080", 0), exclusive, "tcp", ":8080", "A specific address works"},
		{listener("127.0.0.1:8080", 0).on("v0"), exclusive, "tcp", "127.0.0.1:8080", ""},
		{packets("127.0.0.1:8080", 0), exclusive, "udp", ":8080", ""},
	} {
		file, _ := tt.holder.keep(t)
		r := refused(t, tt.config, tt.network, tt.asked)
		_, n := follow(t, r, tt.config, tt.network, tt.asked)
		if tt.want != "" {
			says(t, r, "^"+tt.want)
		} else if tt.config == none {
			assert.Zero(t, n, "%v", r)
		}
		if tt.config == exclusive {
			assert.NotContains(t, r.String(), "another device")
		}
		assert.NotContains(t, r.String(), "hand-over")
		require.NoError(t, file.Close())
	}
}

// Of listeners on devices, the one on the caller's device refuses. No error names that
// device. Each condition is named once, and another device works.
func TestDeviceOfCaller(t *testing.T) {
	if !netns(t) {
		return
	}
	addDevice(t, "v0")
	addDevice(t, "w0")
	on := func(device string) (net.Listener, error) {
		lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
			var err error
			return errors.Join(rc.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }), err)
		}}
		return lc.Listen(t.Context(), "tcp4", ":8080")
	}
	s := listener("0.0.0.0:8080", rport)
	s.on("v0").keep(t)
	s.on("w0").keep(t)
	_, err := on("v0")
	r := explained(t, reuse.Config{}, err)
	assert.Contains(t, r.Reason, fmt.Sprintf("is held by this process, pid %d (%s), listening on 0.0.0.0:8080 (socket of uid 0, on device v0)", os.Getpid(), ownName(t)))
	assert.Contains(t, r.Reason, "Sockets on a device refuse sockets on that device and on none (here on v0, w0). Look at the holder on the device of your own socket")
	m := says(t, r, `^reuse\.Config\{Port: reuse\.On\} works if (.*)\.`)
	assert.Equal(t, "this process's own socket set SO_REUSEPORT", m[1])
	l, err := on(says(t, r, `^A socket on another device works \(SO_BINDTODEVICE\), as in "(\w+)"\.`)[1])
	require.NoError(t, err)
	require.NoError(t, l.Close())
	s.on("v0").keep(t) // the third, with the others' option
	r = refused(t, reuse.Config{}, "tcp4", ":8080")
	require.Len(t, r.Holders, 3)
	assert.Contains(t, r.Reason, "on device v0), and 2 other sockets.")
}
