package semantics_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

// A row is one pair of bindings and what became of the second.
type row struct {
	systems       []string
	how           string // measured, source, vendor-doc, unsure
	first, second semantics.Binding
	same          bool // one user made both
	outcome       byte // the letter; the file says what they mean
	names         string
}

// binding reads an address by its name in the rows.
func binding(t testing.TB, proto, name string) semantics.Binding {
	t.Helper()
	ip, ok := map[string]string{
		"specific": "127.0.0.1", "specific2": "127.0.0.2", "wildcard": "0.0.0.0", "multicast": "224.1.2.3", "multicast2": "224.1.2.4",
		"wildcard6": "::", "wildcard6only": "::", "specific6": "::1", "specific6-dual": "::1",
		"mapped": "::ffff:127.0.0.1", "mapped-wildcard": "::ffff:0.0.0.0",
	}[name]
	require.True(t, ok, name)
	b := semantics.Binding{Proto: semantics.TCP, State: semantics.Bound, Addr: netip.MustParseAddr(ip), V6Only: name == "wildcard6only" || name == "specific6"}
	if proto == "udp" {
		b.Proto = semantics.UDP
	}
	return b // mptcp, tcp+mptcp: the kernels make no difference
}

// pairs reads a file of pairs.
func pairs(t testing.TB, name string) (rows []row) {
	t.Helper()
	var group row
	var sets []semantics.Options
	for _, line := range lines(t, name) {
		f := strings.Fields(line)
		switch f[0] {
		case "system":
			group = row{systems: f[1:]}
		case "how":
			group.how = f[1]
		case "options":
			sets = nil
			for _, s := range f[1:] {
				sets = append(sets, options(t, s))
			}
		case "rows", "version", "evidence", "note":
		default:
			require.Len(t, f, 5+len(sets), line)
			r := group
			r.names, r.same = strings.Join(f[:5], " "), f[4] == "same"
			r.first, r.second = binding(t, f[0], f[2]), binding(t, f[0], f[3])
			if f[1] != "bound" {
				r.first.Dialed = f[1] == "connected"
				r.first.State = parse(t, strings.Replace(f[1], "connected", "established", 1)).State
				r.second.State = semantics.Listening
			}
			for i, letters := range f[5:] {
				require.Len(t, letters, len(sets), line)
				for j, letter := range []byte(letters) {
					if letter != '_' {
						r.outcome, r.first.Options, r.second.Options = letter, sets[i], sets[j]
						rows = append(rows, r)
					}
				}
			}
		}
	}
	return rows
}

// check compares one row with the rules. It returns what differs, or "".
func (r row) check(s semantics.System) string {
	is := s.Bind(r.first, r.second)
	wsa := ""
	if strings.HasPrefix(s.Name(), "windows") {
		wsa = "WSA"
	}
	want, ok := map[byte]string{
		'.': "ok", 'b': "ok", 'k': "ok", 'l': "ok", 'U': "bind:" + wsa + "EADDRINUSE", 'A': "bind:" + wsa + "EACCES",
		'F': "bind:EAFNOSUPPORT", 'f': "first:bind:EAFNOSUPPORT", 'n': "first:setsockopt:ENOPROTOOPT",
		'i': "first:setsockopt:WSAEINVAL", 'I': "setsockopt:WSAEINVAL", '?': "unverified", 'e': "unverified",
	}[r.outcome]
	if r.outcome == 'F' {
		is.First = false
	}
	listening := r.first
	listening.State = semantics.Listening
	switch how := is.Evidence.Kind; {
	case !ok:
		return "a letter without a meaning"
	case is.String() != want:
		return "want " + want + ", got " + is.String() + " (" + is.Rule.Name + ")"
	case is.Rule.Name == "" || is.Rule.Text == "":
		return "no rule"
	case r.how == "measured" && how != semantics.Measured, how < semantics.Vendor:
		return "the row is " + r.how + ", the answer " + is.Evidence.String()
	case (r.outcome == 'k' || r.outcome == 'l') && s.Bind(listening, r.second).OK() != (r.outcome == 'k'):
		return "listen repeats the test of bind" // on Linux
	}
	return ""
}

// Every row agrees with the rules. What a row is unsure of is not called known. The counts
// are those of the measurements that the data was taken from.
func TestRows(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]struct{ rows, unsure int }{
		"linux-6.18.txt": {576, 0}, "linux-6.18-other-uid.txt": {576, 0}, "linux-6.18-all.txt": {7776, 0}, "linux-6.18-leftovers.txt": {4224, 0},
		"freebsd-14.txt": {2304, 0}, "freebsd-14-mapped.txt": {444, 0}, "netbsd-7.99.txt": {576, 0}, "netbsd-7.99-other-uid.txt": {576, 0},
		"bsd.txt": {7424, 192}, "linux-windows-solaris.txt": {6108, 628},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			rows, unsure := pairs(t, file), 0
			assert.Equal(t, want.rows, len(rows))
			for _, r := range rows {
				users := [][2]int{{0, 0}, {1000, 1000}}
				if !r.same {
					users = [][2]int{{0, 1000}, {1000, 1001}} // the second is never root
				}
				for _, name := range r.systems {
					s := find(t, name)
					for _, u := range users {
						r.first.User, r.second.User = u[0], u[1]
						difference := ""
						if r.how != "unsure" {
							difference = r.check(s)
						} else if how := s.Bind(r.first, r.second).Evidence.Kind; how > semantics.Inferred && how != semantics.Measured {
							difference = "unsure, and the answer is known from " + how.String()
						}
						require.Empty(t, difference, "%s %s, %v then %v, users %v", name, r.names, r.first.Options, r.second.Options, u)
					}
				}
				if r.how == "unsure" {
					unsure++
				}
			}
			assert.Equal(t, want.unsure, unsure)
		})
	}
}

// What Wine 10 does is no evidence of Windows, because the Linux below refuses nearly
// everything while another socket listens. A test under Wine may be trusted as far as this:
// where the rules refuse a pair, Wine does, unless the pair is of two families.
func TestWineIsStricter(t *testing.T) {
	t.Parallel()
	windows, laxer := find(t, "windows"), 0
	rows := pairs(t, "wine-10.txt")
	assert.Len(t, rows, 576)
	for _, r := range rows {
		is := windows.Bind(r.first, r.second)
		if r.outcome == '.' && is.Evidence.Kind != semantics.Unknown && is.Err != "" {
			laxer++
			assert.NotEqual(t, r.first.Addr.Is4(), r.second.Addr.Is4(), r.names)
		}
	}
	assert.Equal(t, 8, laxer)
}

// A meeting is what a measured row is about, but for the options.
type meeting struct {
	proto         semantics.Proto
	state         semantics.State // of the first
	dialed, same  bool
	first, second netip.Addr
	only1, only2  bool // IPv6 only
}

// meet names a pair of bindings as the rows do. Of each kind of address they have one, or
// two if the pair has.
func meet(a, b semantics.Binding) meeting {
	kind := func(ip netip.Addr) netip.Addr {
		switch {
		case ip.IsUnspecified() || ip.Is4In6() || ip.Is6() && ip.IsMulticast():
			return ip
		case ip.Is6():
			return netip.IPv6Loopback()
		case ip.IsMulticast():
			return netip.MustParseAddr("224.1.2.3")
		}
		return netip.MustParseAddr("127.0.0.1")
	}
	connected := a.State >= semantics.Established
	if connected {
		a.Addr = a.Addr.Unmap() // an IPv4 connection, whichever socket has it
	}
	x, y := kind(a.Addr), kind(b.Addr)
	if x == y && a.Addr != b.Addr {
		y = y.Next()
	}
	return meeting{
		a.Proto, a.State, a.Dialed, a.User == b.User, x, y,
		a.V6Only && (x == netip.IPv6Unspecified() || connected && x.Is6()), b.V6Only && y == netip.IPv6Unspecified(),
	}
}

// Only what has a row is called measured. On FreeBSD and NetBSD all pairs of Linux' rows
// were compared with the rules, and only those that differed have been kept. What was
// measured of restarts is in cases.txt.
func TestMeasuredHasRows(t *testing.T) {
	t.Parallel()
	for system, files := range map[string][]string{
		"linux":      {"linux-6.18-all.txt", "linux-6.18-leftovers.txt", "linux-windows-solaris.txt"},
		"freebsd-14": {"linux-6.18-all.txt", "freebsd-14.txt"},
		"netbsd":     {"linux-6.18-all.txt", "netbsd-7.99.txt", "netbsd-7.99-other-uid.txt"},
	} {
		measured := map[meeting]bool{}
		for _, file := range files {
			for _, r := range pairs(t, file) {
				if r.how != "measured" || file != "linux-6.18-all.txt" && !slices.Contains(r.systems, system) {
					continue
				}
				m := meet(r.first, r.second)
				m.same = r.same
				measured[m] = true
				if system == "freebsd-14" {
					m.same = false // another user's were also measured
					measured[m] = true
				}
			}
		}
		s, known := find(t, system), 0
		for _, m := range meetings() {
			a := semantics.Binding{Proto: m.proto, State: m.state, Addr: m.first, V6Only: m.only1, User: 1000, Dialed: m.dialed}
			b := semantics.Binding{Proto: m.proto, State: semantics.Bound, Addr: m.second, V6Only: m.only2, User: 1001}
			if m.same {
				b.User = a.User
			}
			row, is := meet(a, b), s.Bind(a, b).Evidence.Kind == semantics.Measured
			restart := system != "linux" && m.state >= semantics.Established && !m.dialed && row.first.Is4() && (row.second == row.first || row.second == netip.IPv4Unspecified())
			switch {
			case !is:
				assert.False(t, measured[row] && !a.Addr.Is4In6() && !b.Addr.Is4In6(), "%s: a row has %+v", system, row)
			case !restart:
				known++
				assert.True(t, measured[row], "%s: no row has %+v", system, row)
			}
		}
		assert.Positive(t, known, system)
	}
}

// meetings are all that the rules can be asked about, but for the options.
func meetings() (list []meeting) {
	var addrs []meeting
	ips := []string{"192.0.2.1", "192.0.2.2", "0.0.0.0", "224.1.2.3", "224.1.2.4", "::", "::1", "::2", "ff02::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0"}
	for i := range 4 * len(ips) * len(ips) {
		m := meeting{first: netip.MustParseAddr(ips[i/4/len(ips)]), second: netip.MustParseAddr(ips[i/4%len(ips)]), only1: i&1 != 0, only2: i&2 != 0}
		if six := func(ip netip.Addr) bool { return ip.Is6() && !ip.Is4In6() }; (!m.only1 || six(m.first)) && (!m.only2 || six(m.second)) {
			addrs = append(addrs, m)
		}
	}
	for _, m := range addrs {
		for _, m.same = range []bool{false, true} {
			for m.state = semantics.Bound; m.state <= semantics.CloseWait; m.state++ {
				m.proto, m.dialed = semantics.TCP, false
				list = append(list, m)
				if m.state >= semantics.Established {
					m.dialed = true
					list = append(list, m)
				}
				if m.state == semantics.Bound || m.state == semantics.Established { // what UDP has
					m.proto = semantics.UDP
					list = append(list, m)
				}
			}
		}
	}
	return list
}
