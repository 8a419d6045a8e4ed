package semantics_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

// A scenario is a single case that was read in the sources.
type scenario struct {
	system, certainty, name, proto, a, b string
	aOptions, bOptions                   semantics.Options
	same                                 bool
	outcome                              string
}

// at reads the words by which scenarios and measurements name a socket.
func at(t testing.TB, words string, proto string) semantics.Binding {
	t.Helper()
	b := semantics.Binding{State: semantics.Bound, Proto: protocol(proto), Addr: netip.MustParseAddr("127.0.0.1")}
	switch words {
	case "accepted connection ESTABLISHED", "established":
		b.State = semantics.Established
	case "accepted connection TIME_WAIT", "time_wait":
		b.State = semantics.TimeWait
	case "fin_wait_2":
		b.State = semantics.FinWait2
	case "connected (specific laddr)", "connected":
		b.State, b.Dialed = semantics.Established, true
	case "[::] dual", "[::]", "::":
		b.Addr = netip.IPv6Unspecified()
	case "[::] v6only":
		b.Addr, b.V6Only = netip.IPv6Unspecified(), true
	case "[::1]", "::1":
		b.Addr = netip.IPv6Loopback()
	case "0.0.0.0", "wildcard":
		b.Addr = netip.IPv4Unspecified()
	case "127.0.0.1", "127.0.0.2":
		b.Addr = netip.MustParseAddr(words)
	case "specific", "-":
	default:
		t.Fatalf("what is %q?", words)
	}
	return b
}

// check returns what the rules say of a scenario.
func (c scenario) check(t *testing.T, s semantics.System) string {
	a, b := at(t, c.a, c.proto), at(t, c.b, c.proto)
	a.Options, b.Options = c.aOptions, c.bOptions
	a.User, b.User = 1000, 1000
	if !c.same {
		b.User = 1001
	}
	var got semantics.Answer
	switch {
	case strings.HasSuffix(c.name, "(IPv6)"):
		a.Addr = netip.IPv6Loopback()
		got = s.Second(a, b)
	case strings.HasPrefix(c.name, "connect() on a"):
		got = s.Connect(b)
	case strings.HasPrefix(c.name, "connect() to a 4-tuple"):
		got = s.SameTuple()
	case strings.HasPrefix(c.name, "257th"):
		got = s.Second(a, b)
		group := make([]semantics.Binding, 257)
		for i := range group {
			group[i] = b
			group[i].State = semantics.Listening
		}
		to := s.Traffic(b.Addr, group)
		assert.Equal(t, semantics.Spread, to.Way)
		assert.Len(t, to.To, 256, "the last one gets nothing")
	default:
		got = s.Second(a, b)
	}
	assert.NotEmpty(t, got.Rule.Text)
	if got.Known.How == semantics.Unknown {
		return "not known"
	}
	if got.Err == "" {
		return "ok"
	}
	return got.Err
}

// What was read in the BSDs' sources beside the tables: leftover connections,
// dual stack, users of IPv6, connect, a group that is full.
func TestScenarios(t *testing.T) {
	t.Parallel()
	list, want := lines(t, "bsd-extra.txt")
	rows, unsure := 0, 0
	for _, line := range list {
		f := strings.Split(line, "\t")
		if len(f) == 1 {
			continue // version, evidence
		}
		require.Len(t, f, 10, line)
		rows++
		if f[1] == "unsure" {
			unsure++
			continue
		}
		c := scenario{f[0], f[1], f[2], f[3], f[4], f[5], options(t, f[6]), options(t, f[7]), f[8] == "same", f[9]}
		s, err := semantics.Find(c.system)
		require.NoError(t, err)
		assert.Equal(t, c.outcome, c.check(t, s), line)
	}
	assert.Equal(t, 184, want)
	assert.Equal(t, 184, rows)
	assert.Equal(t, 3, unsure)
}

// measurement is one line of a file whose columns have names.
type measurement map[string]string

func (m measurement) counts(t testing.TB, column string) []int {
	t.Helper()
	var list []int
	for s := range strings.SplitSeq(m[column], "/") {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		list = append(list, n)
	}
	return list
}

// one returns the index of the only number that is not 0.
func one(t testing.TB, list []int) int {
	t.Helper()
	found := -1
	for i, n := range list {
		if n != 0 {
			require.Equal(t, -1, found, "%v", list)
			found = i
		}
	}
	return found
}

// What else was measured on NetBSD 7.99: who gets the traffic, restarts, port 0,
// connect, options set late.
func TestNetBSD(t *testing.T) {
	t.Parallel()
	s, err := semantics.Find("netbsd")
	require.NoError(t, err)
	list, want := lines(t, "netbsd-7.99-extra.txt")
	checks := map[string]func(*testing.T, semantics.System, measurement) bool{
		"balance": netbsdBalance, "burst": netbsdBurst, "wildcard-and-specific": netbsdSpecific,
		"handover": netbsdHandover, "multicast": netbsdMulticast, "restart": netbsdRestart,
		"port-zero": netbsdPortZero, "port-zero-full-range": netbsdFullRange,
		"connect-same": netbsdConnect, "late": netbsdLate, "bound-only": netbsdBoundOnly,
		// How long TIME_WAIT lasts is not a rule.
		"time-wait-ends": func(*testing.T, semantics.System, measurement) bool { return false },
	}
	var name string
	var columns []string
	rows, left := 0, 0
	for _, line := range list {
		f := strings.Split(line, "\t")
		if f[0] == "test" {
			name, columns = f[1], f[2:]
			continue
		}
		require.Len(t, f, len(columns), line)
		m := measurement{}
		for i, c := range columns {
			m[c] = f[i]
		}
		require.Contains(t, checks, name)
		rows++
		if !checks[name](t, s, m) {
			left++
		}
	}
	assert.Equal(t, 552, want)
	assert.Equal(t, 552, rows)
	// 72 are of a port algorithm with a fault, which is not the default's, with
	// its range exhausted; one is a duration.
	assert.Equal(t, 73, left)
}

// sharing returns sockets in the order of their binds, and those that are alive.
func sharing(b semantics.Binding, alive []int) (list []semantics.Binding, index []int) {
	for i, n := range alive {
		if n == 1 {
			list, index = append(list, b), append(index, i)
		}
	}
	return list, index
}

func netbsdBalance(t *testing.T, s semantics.System, m measurement) bool {
	if m["error"] != "" {
		b := at(t, "127.0.0.1", m["proto"])
		b.State, b.Options = semantics.Listening, semantics.Opts(semantics.Addr)
		return assert.Equal(t, m["error"], s.Second(b, b).Err)
	}
	b := at(t, m["bind"], m["proto"])
	to, counts := m["connect"], m["per_listener_in_bind_order"]
	b.State = semantics.Listening
	if m["proto"] == "udp" {
		to, counts = m["send_to"], m["per_socket_in_bind_order"]
		b.State = semantics.Bound
	}
	b.Options = semantics.Opts(semantics.Port)
	list, index := sharing(b, m.counts(t, "alive"))
	got := s.Traffic(netip.MustParseAddr(to), list)
	if !assert.Equal(t, semantics.One, got.Way) || !assert.Len(t, got.To, 1) {
		return true
	}
	return assert.Equal(t, one(t, measurement{"": counts}.counts(t, "")), index[got.To[0]], "%v", m)
}

func netbsdBurst(t *testing.T, s semantics.System, m measurement) bool {
	b := at(t, "127.0.0.1", "tcp")
	b.State, b.Options = semantics.Listening, semantics.Opts(semantics.Port)
	counts := m.counts(t, "accepted_in_bind_order")
	got := s.Traffic(b.Addr, []semantics.Binding{b, b, b, b})
	return assert.Equal(t, []int{one(t, counts)}, got.To)
}

func netbsdSpecific(t *testing.T, s semantics.System, m measurement) bool {
	specific, wildcard := at(t, "127.0.0.1", m["proto"]), at(t, "0.0.0.0", m["proto"])
	specific.State, wildcard.State = semantics.Listening, semantics.Listening
	list, want := []semantics.Binding{wildcard, specific}, 1
	if m["first"] == "specific" {
		list, want = []semantics.Binding{specific, wildcard}, 0
	}
	got := s.Traffic(specific.Addr, list)
	return assert.Equal(t, []int{want}, got.To) && assert.Equal(t, "0", m["wildcard_got"])
}

func netbsdHandover(t *testing.T, s semantics.System, m measurement) bool {
	assert.Equal(t, "ECONNRESET", m["old_closed_without_accept_client_read"])
	return assert.Equal(t, semantics.Reset, s.Closing().Queue)
}

func netbsdMulticast(t *testing.T, s semantics.System, m measurement) bool {
	b := semantics.Binding{Proto: semantics.UDP, State: semantics.Bound, Addr: netip.MustParseAddr("224.1.2.3"), Options: options(t, m["opt"])}
	require.True(t, s.Second(b, b).OK())
	got := s.Traffic(b.Addr, []semantics.Binding{b, b, b, b})
	return assert.Equal(t, semantics.Copies, got.Way) && assert.Len(t, got.To, len(m.counts(t, "per_socket")))
}

// set reads "none", "addr+port".
func set(t testing.TB, s string) semantics.Options {
	t.Helper()
	if s == "none" {
		s = "-"
	}
	return options(t, s)
}

func netbsdRestart(t *testing.T, s semantics.System, m measurement) bool {
	a, b := at(t, m["old_child"], "tcp"), at(t, m["new"], "tcp")
	port, err := strconv.Atoi(m["port"])
	require.NoError(t, err)
	a.Port, a.Options, b.Options = uint16(port), set(t, m["old_opts"]), set(t, m["new_opts"])
	b.State = semantics.Listening
	return assert.Equal(t, m["outcome"], s.Second(a, b).String(), "%v", m)
}

func netbsdPortZero(t *testing.T, s semantics.System, m measurement) bool {
	if m["portalgo"] == "random_start" && m["binds"] != "1500" {
		return false
	}
	b := at(t, m["addr"], m["proto"])
	b.Options = set(t, m["opts"])
	return assert.Equal(t, m["duplicates"] != "0", s.HandsOut(b, b).OK(), "%v", m)
}

func netbsdFullRange(t *testing.T, s semantics.System, m measurement) bool {
	if m["portalgo"] == "random_start" {
		return false
	}
	a, b := at(t, m["a"], m["proto"]), at(t, m["b"], m["proto"])
	a.Options, b.Options = set(t, m["a_opts"]), set(t, m["b_opts"])
	return assert.Equal(t, m["b_port_shared"] == "yes", s.HandsOut(a, b).OK(), "%v", m)
}

func netbsdConnect(t *testing.T, s semantics.System, m measurement) bool {
	a, b := at(t, m["local"], m["proto"]), at(t, m["local"], m["proto"])
	a.Options, b.Options = set(t, m["a_opts"]), set(t, m["b_opts"])
	if m["b_bound"] == "after a connected" {
		a.State, a.Dialed, a.Addr = semantics.Established, true, netip.MustParseAddr("127.0.0.1")
	}
	answer := s.Second(a, b)
	if m["b_bind"] != "ok" {
		return assert.Equal(t, "bind:"+m["b_bind"], answer.String(), "%v", m)
	}
	assert.True(t, answer.OK(), "%v", m)
	assert.Equal(t, m["b_connect_same_dst"], s.SameTuple().Err)
	return assert.True(t, s.Connect(b).OK()) && assert.Equal(t, "ok", m["then_b_connect_other_dst"])
}

// netbsdLate: what the first socket set after its bind counts as if before.
func netbsdLate(t *testing.T, s semantics.System, m measurement) bool {
	a, b := at(t, "127.0.0.1", m["proto"]), at(t, "127.0.0.1", m["proto"])
	a.Options, b.Options = set(t, m["a_opts_before_bind"]), set(t, m["b_opts"])
	a.Options &^= semantics.Opts(semantics.Port)
	if m["a_then_sets_reuseport"] == "1" {
		a.Options |= semantics.Opts(semantics.Port)
	}
	if m["a_state"] == "listening" {
		a.State = semantics.Listening
	}
	got := strings.TrimPrefix(s.Second(a, b).String(), "bind:")
	if m["b_retry_with_port"] == "ok" {
		b.Options |= semantics.Opts(semantics.Port)
		if m["a_then_sets_reuseport"] == "1" {
			assert.True(t, s.Second(a, b).OK(), "%v", m)
		}
	}
	return assert.Equal(t, m["b_bind"], got, "%v", m)
}

func netbsdBoundOnly(t *testing.T, s semantics.System, m measurement) bool {
	bound, listening := at(t, "127.0.0.1", "tcp"), at(t, "127.0.0.1", "tcp")
	listening.State = semantics.Listening
	list := []semantics.Binding{listening, bound}
	if strings.HasPrefix(m["order"], "B bound only, then A") {
		list = []semantics.Binding{bound, listening}
	}
	got := s.Traffic(bound.Addr, list)
	require.Len(t, got.To, 1)
	reached := list[got.To[0]].State == semantics.Listening
	return assert.Equal(t, m["listener_accepts"] == "yes", reached, "%v", m)
}
