package semantics_test

import (
	"embed"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

// The data: what was measured on kernels and read in their sources.
//
//go:embed testdata
var testdata embed.FS

// A row is one pair of bindings and what became of the second.
type row struct {
	file    string
	systems []string
	version string
	how     string // measured, source, vendor-doc, unsure
	proto   string
	first   semantics.Binding
	second  semantics.Binding
	same    bool
	outcome byte // the letter; the file says what they mean
	names   string
}

// lines returns the lines of a file with something in them, without comments,
// and the number of rows that the file says its source has.
func lines(t testing.TB, name string) (list []string, rows int) {
	t.Helper()
	text, err := testdata.ReadFile("testdata/" + name)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		n, count := strings.CutPrefix(line, "rows ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case count:
			rows, err = strconv.Atoi(n)
			require.NoError(t, err)
		default:
			list = append(list, line)
		}
	}
	return list, rows
}

func options(t testing.TB, s string) semantics.Options {
	t.Helper()
	var all semantics.Options
	if s == "-" {
		return all
	}
	for name := range strings.SplitSeq(s, "+") {
		o, ok := map[string]semantics.Option{
			"addr": semantics.Addr, "port": semantics.Port, "lb": semantics.LB,
			"excl": semantics.Excl, "shareuid": semantics.ShareUID,
		}[name]
		require.True(t, ok, name)
		all |= semantics.Opts(o)
	}
	return all
}

func binding(t testing.TB, addr string) semantics.Binding {
	t.Helper()
	ip, ok := map[string]string{
		"specific": "127.0.0.1", "specific2": "127.0.0.2", "wildcard": "0.0.0.0",
		"multicast": "224.1.2.3", "multicast2": "224.1.2.4",
		"wildcard6": "::", "wildcard6only": "::", "specific6": "::1", "specific6-dual": "::1",
		"mapped": "::ffff:127.0.0.1", "mapped-wildcard": "::ffff:0.0.0.0",
	}[addr]
	require.True(t, ok, addr)
	return semantics.Binding{Addr: netip.MustParseAddr(ip), V6Only: addr == "wildcard6only" || addr == "specific6"}
}

func state(t testing.TB, s string) semantics.State {
	t.Helper()
	if s == "connected" {
		return semantics.Established
	}
	for state := semantics.Bound; state <= semantics.CloseWait; state++ {
		if state.String() == s {
			return state
		}
	}
	t.Fatalf("what is %q?", s)
	return 0
}

func protocol(s string) semantics.Proto {
	if s == "udp" {
		return semantics.UDP
	}
	return semantics.TCP // mptcp, tcp+mptcp: the kernels make no difference
}

// pairs reads a file of pairs.
func pairs(t testing.TB, name string) (rows []row, want int) {
	t.Helper()
	list, want := lines(t, name)
	var group row
	var sets []semantics.Options
	for _, line := range list {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "system":
			group = row{file: name, systems: strings.Fields(value)}
			continue
		case "version":
			group.version = value
			continue
		case "how":
			group.how = value
			continue
		case "evidence", "note":
			continue
		case "options":
			sets = nil
			for _, s := range strings.Fields(value) {
				sets = append(sets, options(t, s))
			}
			continue
		}
		f := strings.Fields(line)
		require.Len(t, f, 5+len(sets), line)
		names := strings.Join(f[:5], " ")
		first, second := binding(t, f[2]), binding(t, f[3])
		for i, letters := range f[5:] {
			require.Len(t, letters, len(sets), line)
			for j, letter := range []byte(letters) {
				if letter == '_' {
					continue
				}
				r := group
				r.proto, r.outcome, r.same, r.names = f[0], letter, f[4] == "same", names
				r.first, r.second = first, second
				r.first.Proto, r.second.Proto = protocol(f[0]), protocol(f[0])
				r.first.State, r.second.State = semantics.Bound, semantics.Bound
				if f[1] != "bound" {
					r.first.State, r.second.State = state(t, f[1]), semantics.Listening
					r.first.Dialed = f[1] == "connected"
				}
				r.first.Options, r.second.Options = sets[i], sets[j]
				rows = append(rows, r)
			}
		}
	}
	return rows, want
}

// users returns who may have made the two bindings of a row; all must give the
// same answer. The second of two users is never root.
func (r row) users() [][2]int {
	if r.same {
		return [][2]int{{0, 0}, {1000, 1000}}
	}
	return [][2]int{{0, 1000}, {1000, 1001}}
}

// check compares one row with the rules. It returns what differs, or "".
func (r row) check(s semantics.System) string {
	a, b := r.first, r.second
	got := s.Second(a, b)
	want := ""
	switch r.outcome {
	case '.', 'b':
		want = "ok"
	case 'U':
		want = "bind:" + errno(s, "EADDRINUSE")
	case 'A':
		want = "bind:" + errno(s, "EACCES")
	case 'F':
		want = "bind:EAFNOSUPPORT"
		got.First = false
	case 'f':
		want = "first:bind:EAFNOSUPPORT"
	case 'n':
		want = "first:setsockopt:ENOPROTOOPT"
	case 'i':
		want = "first:setsockopt:WSAEINVAL"
	case 'I':
		want = "setsockopt:WSAEINVAL"
	case '?', 'e':
		want = "not known"
	case 'k', 'l':
		want = "ok"
		if d := r.checkListens(s); d != "" {
			return d
		}
	default:
		return "a letter without a meaning"
	}
	if got.String() != want {
		return "want " + want + ", got " + got.String() + " (" + got.Rule.Name + ")"
	}
	if got.Rule.Name == "" || got.Rule.Text == "" {
		return "no rule"
	}
	if how := got.Known.How; r.how == "measured" && how != semantics.Measured || r.how != "unsure" && how < semantics.Vendor {
		return "the row is " + r.how + ", the answer " + got.Known.String()
	}
	return ""
}

// checkListens: both have been bound; then the first listens, then the second.
func (r row) checkListens(s semantics.System) string {
	a, b := r.first, r.second
	if a.State == semantics.Bound {
		if got := s.Listen(b, a); !got.OK() {
			return "the first listens: " + got.String()
		}
	}
	a.State = semantics.Listening
	want := map[byte]string{'k': "ok", 'l': "listen:EADDRINUSE"}[r.outcome]
	if got := s.Listen(a, b); got.String() != want {
		return "the second listens: want " + want + ", got " + got.String()
	}
	return ""
}

func errno(s semantics.System, name string) string {
	if strings.HasPrefix(s.Name(), "windows") {
		return "WSA" + name
	}
	return name
}

// Every row agrees with the rules. Rows that are unsure are not asserted, but
// what they say must not be passed off as known. The counts are those of the
// files that the data was taken from.
func TestRows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file                  string
		rows, unsure, differs int
	}{
		{"linux-6.18.txt", 576, 0, 0},
		{"linux-6.18-other-uid.txt", 576, 0, 0},
		{"linux-6.18-all.txt", 7776, 0, 0},
		{"linux-6.18-leftovers.txt", 4224, 0, 0},
		{"freebsd-14.txt", 2304, 0, 0},
		{"freebsd-14-mapped.txt", 444, 0, 0},
		{"netbsd-7.99.txt", 576, 0, 0},
		{"netbsd-7.99-other-uid.txt", 576, 0, 0},
		{"bsd.txt", 7424, 192, 0},
		{"linux-windows-solaris.txt", 6342, 628, 0},
	} {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			rows, want := pairs(t, tt.file)
			assert.Equal(t, tt.rows, want)
			assert.Len(t, rows, tt.rows)
			systems := map[string]semantics.System{}
			for _, s := range semantics.Systems() {
				systems[s.Name()] = s
			}
			unsure, differs := 0, 0
			for _, r := range rows {
				if r.how == "unsure" {
					unsure++
				}
				for _, name := range r.systems {
					require.Contains(t, systems, name)
					s := systems[name]
					for _, u := range r.users() {
						r.first.User, r.second.User = u[0], u[1]
						if r.how == "unsure" {
							how := s.Second(r.first, r.second).Known.How
							assert.True(t, how <= semantics.Inferred || how == semantics.Measured,
								"%s: unsure in %s, %v in the rules", name, r.version, how)
							continue
						}
						if d := r.check(s); d != "" {
							differs++
							if differs <= 20 {
								t.Errorf("%s %s: %s, %v then %v, users %v: %s", name, r.version, r.names, r.first.Options, r.second.Options, u, d)
							}
						}
					}
				}
			}
			assert.Equal(t, tt.unsure, unsure)
			assert.Equal(t, tt.differs, differs)
		})
	}
}
