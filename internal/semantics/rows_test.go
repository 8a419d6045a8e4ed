package semantics_test

import (
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

// pairs reads a file of pairs, see testdata/README.
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
		case "version", "evidence", "note":
		default:
			require.Len(t, f, 5+len(sets), line)
			r := group
			r.names, r.same = strings.Join(f[:5], " "), f[4] == "same"
			r.first, r.second = parse(t, strings.Join(f[:3], " ")), parse(t, f[0]+" "+f[3])
			if f[1] != "bound" {
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
	want, ok := map[byte]string{
		'.': "ok", 'b': "ok", 'k': "ok", 'l': "ok", 'U': "bind:EADDRINUSE", 'A': "bind:EACCES",
		'F': "bind:EAFNOSUPPORT", 'f': "first:bind:EAFNOSUPPORT", 'n': "first:setsockopt:ENOPROTOOPT",
		'i': "first:setsockopt:EINVAL", 'I': "setsockopt:EINVAL", '?': "unverified", 'e': "unverified",
	}[r.outcome]
	if r.outcome == 'F' {
		is.First = false
	}
	outcome := strings.ReplaceAll(is.String(), "WSA", "")
	listening := r.first
	listening.State = semantics.Listening
	switch how := is.Evidence.Kind; {
	case !ok:
		return "a letter without a meaning"
	case outcome != want:
		return "want " + want + ", got " + outcome + " (" + is.Rule.Name + ")"
	case is.Rule.Name == "" || is.Rule.Text == "":
		return "no rule"
	case r.how == "measured" && how != semantics.Measured, how < semantics.Vendor:
		return "the row is " + r.how + ", the answer " + how.String() + ": " + is.Evidence.Reference
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

// What has a row is called measured, and nothing else. On FreeBSD and NetBSD all pairs of Linux' rows
// were compared with the rules. What was measured there of restarts is in cases.txt.
func TestMeasuredHasRows(t *testing.T) {
	t.Parallel()
	addrs := [][2]string{{"127.0.0.1", "127.0.0.2"}, {"224.1.2.3", "224.1.2.4"}, {"::1", "::2"}}
	kinds := []string{"127.0.0.1", "0.0.0.0", "224.1.2.3", "::", "dual", "::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0"}
	for _, a := range kinds {
		for _, b := range kinds {
			addrs = append(addrs, [2]string{a, b})
		}
	}
	states := []string{
		"bound", "listening", "udp", "established", "time-wait", "fin-wait-2", "close-wait",
		"established dialed", "udp established dialed", "time-wait dialed", "fin-wait-2 dialed", "close-wait dialed",
	}
	for system, tt := range map[string]struct{ files, states []string }{
		"linux":      {[]string{"linux-6.18-all.txt", "linux-6.18-leftovers.txt", "linux-windows-solaris.txt"}, states},
		"freebsd-14": {[]string{"linux-6.18-all.txt"}, states[:3]},
		"netbsd":     {[]string{"linux-6.18-all.txt"}, states[:3]},
	} {
		measured := map[[2]semantics.Binding]bool{}
		for _, file := range tt.files {
			for _, r := range pairs(t, file) {
				if r.how == "measured" && slices.Contains(r.systems, "linux") {
					measured[r.pair(r.same)] = true
				}
			}
		}
		s := find(t, system)
		for _, state := range tt.states {
			for _, addr := range addrs {
				for _, same := range []bool{false, true} {
					pair := row{first: parse(t, state+" "+addr[0]), second: parse(t, addr[1])}.pair(same)
					is := s.Bind(pair[0], pair[1]).Evidence.Kind == semantics.Measured
					assert.Equal(t, measured[pair], is, "%s: %s %v, same user: %v", system, state, addr, same)
				}
			}
		}
	}
}

// pair returns the bindings without what the evidence does not depend on.
func (r row) pair(same bool) [2]semantics.Binding {
	r.first.Options, r.second.Options = 0, 0
	if r.first.State >= semantics.Established {
		r.first.Addr = r.first.Addr.Unmap() // an IPv4 connection, whichever socket has it
	}
	r.second.Proto, r.second.State = r.first.Proto, semantics.Bound
	r.first.User, r.second.User = 1, map[bool]int{true: 1, false: 2}[same]
	return [2]semantics.Binding{r.first, r.second}
}
