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

// parse reads a binding such as "tcp established 127.0.0.1 addr+port user2
// dialed port128". dual is ::, which otherwise is IPv6 only. Root is user0; who
// is not named is user1.
func parse(t testing.TB, words string) semantics.Binding {
	t.Helper()
	b := semantics.Binding{Proto: semantics.TCP, User: 1}
	states := map[string]semantics.State{}
	for s := semantics.Bound; s <= semantics.CloseWait; s++ {
		states[s.String()] = s
	}
	for f := range strings.FieldsSeq(words) {
		user, isUser := strings.CutPrefix(f, "user")
		port, isPort := strings.CutPrefix(f, "port")
		n, err := strconv.Atoi(port)
		switch {
		case states[f] != 0:
			b.State = states[f]
		case f == "udp":
			b.Proto = semantics.UDP
		case f == "tcp":
		case f == "dialed":
			b.Dialed = true
		case f == "dual":
			b.Addr = netip.IPv6Unspecified()
		case isUser:
			b.User, err = strconv.Atoi(user)
			require.NoError(t, err)
		case isPort && err == nil:
			b.Port = uint16(n)
		case strings.ContainsAny(f, ".:"):
			b.Addr = netip.MustParseAddr(f)
			b.V6Only = f == "::"
		default:
			b.Options = options(t, f)
		}
	}
	if b.State == 0 {
		b.State = semantics.Bound
	}
	return b
}

// Connections on Linux that a listener has left behind, and a new listener;
// measured on 6.18. "ok/U" is the same user, and another.
func TestLinuxLeftovers(t *testing.T) {
	t.Parallel()
	s, err := semantics.Find("linux")
	require.NoError(t, err)
	established := map[string][4]string{ // new: none, addr, port, addr+port
		"-":         {"U/U", "U/U", "U/U", "U/U"},
		"addr":      {"U/U", "ok/ok", "U/U", "ok/ok"},
		"port":      {"U/U", "U/U", "ok/U", "ok/U"},
		"addr+port": {"U/U", "ok/ok", "ok/U", "ok/ok"},
	}
	gone := map[string][4]string{
		"-":         {"U/U", "U/U", "U/U", "U/U"},
		"addr":      {"U/U", "ok/ok", "U/U", "ok/ok"},
		"port":      {"U/U", "U/U", "ok/ok", "ok/ok"},
		"addr+port": {"U/U", "ok/ok", "ok/ok", "ok/ok"},
	}
	for state, table := range map[semantics.State]map[string][4]string{
		semantics.Established: established, semantics.CloseWait: established,
		semantics.TimeWait: gone, semantics.FinWait2: gone,
	} {
		for old, row := range table {
			for i, options := range []string{"-", "addr", "port", "addr+port"} {
				for _, addr := range []string{"127.0.0.1", "0.0.0.0", "dual"} {
					a, b := parse(t, "127.0.0.1 "+old), parse(t, "listening "+addr+" "+options)
					a.State = state
					other := b
					other.User = 2
					short := func(answer semantics.Answer) string {
						assert.Equal(t, semantics.Known{How: semantics.Measured, Where: "6.18.44"}, answer.Known)
						return strings.Replace(answer.String(), "bind:EADDRINUSE", "U", 1)
					}
					assert.Equal(t, row[i], short(s.Second(a, b))+"/"+short(s.Second(a, other)), "%v %s, then %s %s", state, old, addr, options)
				}
			}
		}
	}
}

// Single cases that the tables do not have: which rule decides, what is left of a
// listener, users, and what is not known.
func TestCases(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ system, first, second, want, rule string }{
		// The rule that decides.
		{"linux", "0.0.0.0", "127.0.0.1 addr+port", "bind:EADDRINUSE", "overlap"},
		{"linux", "0.0.0.0 port", "127.0.0.1 addr+port user2", "bind:EADDRINUSE", "user"},
		{"linux", "0.0.0.0 port user0", "127.0.0.1 port user2", "bind:EADDRINUSE", "user"},
		{"linux", "0.0.0.0 port user2", "127.0.0.1 port user0", "bind:EADDRINUSE", "user"},
		{"linux", "listening 0.0.0.0 addr", "127.0.0.1 addr", "bind:EADDRINUSE", "listening"},
		{"linux", "listening 0.0.0.0 addr", "127.0.0.1 port", "bind:EADDRINUSE", "overlap"},
		{"linux", "listening 0.0.0.0 addr+port", "127.0.0.1 port", "ok", "both SO_REUSEPORT"},
		{"linux", "time-wait 127.0.0.1 port", "127.0.0.1 port user2", "ok", "both SO_REUSEPORT, leftover"},
		{"linux", "udp listening 0.0.0.0 addr", "udp 127.0.0.1 addr", "ok", "both SO_REUSEADDR"},
		{"freebsd", "0.0.0.0", "127.0.0.1", "bind:EADDRINUSE", "plain"},
		{"freebsd", "127.0.0.1", "127.0.0.1 addr", "bind:EADDRINUSE", "same address"},
		{"freebsd", "0.0.0.0", "127.0.0.1 addr", "ok", "beside"},
		{"freebsd", "0.0.0.0", "dual", "ok", "unseen"},
		{"freebsd", "0.0.0.0 port", "0.0.0.0 port", "ok", "shared"},

		{"freebsd", "224.1.2.3", "0.0.0.0", "first:bind:EAFNOSUPPORT", "TCP multicast"},
		{"freebsd", "0.0.0.0", "224.1.2.3", "bind:EAFNOSUPPORT", "TCP multicast"},

		// FreeBSD: users, leftovers.
		{"freebsd-14", "127.0.0.1 port", "127.0.0.1 port user2", "bind:EADDRINUSE", "user"},
		{"freebsd-14", "127.0.0.1 port", "127.0.0.1 port user0", "ok", "shared"},
		{"freebsd-14", "127.0.0.1 port user0", "127.0.0.1 port user2", "bind:EADDRINUSE", "user"},
		{"freebsd-14", "0.0.0.0 lb", "0.0.0.0 lb user2", "ok", "shared"},
		{"freebsd-14", "0.0.0.0 lb", "0.0.0.0 user2", "bind:EADDRINUSE", "plain"},
		{"freebsd-14", "0.0.0.0 port", "0.0.0.0 lb user2", "bind:EADDRINUSE", "user"},
		{"freebsd-14", "0.0.0.0 addr", "0.0.0.0 lb user2", "bind:EADDRINUSE", "user"},
		{"freebsd-14", "0.0.0.0 port+lb", "0.0.0.0 lb user2", "bind:EADDRINUSE", "user"},
		{"freebsd-14", "dual lb", "0.0.0.0 lb user2", "ok", "shared"},
		{"freebsd-14", "0.0.0.0 lb", "dual lb user2", "bind:EADDRINUSE", "user"},
		{"freebsd-14", "dual lb", "dual lb user2", "bind:EADDRINUSE", "user"},
		{"freebsd", "0.0.0.0 lb", "0.0.0.0 lb user2", "bind:EADDRINUSE", "user"},
		{"freebsd-14", "time-wait 127.0.0.1", "127.0.0.1", "bind:EADDRINUSE", "plain"},
		{"freebsd-14", "time-wait 127.0.0.1", "127.0.0.1 lb", "ok", "beside"},
		{"freebsd-14", "established 127.0.0.1", "0.0.0.0 addr user2", "ok", "beside"},
		{"freebsd-14", "udp established 127.0.0.1 dialed", "udp 0.0.0.0 addr user2", "bind:EADDRINUSE", "user"},

		// The other BSDs: root, and connections.
		{"openbsd", "0.0.0.0 port", "0.0.0.0 port user0", "ok", "shared"},
		{"openbsd", "0.0.0.0 port user0", "0.0.0.0 port user2", "bind:EADDRINUSE", "user"},
		{"openbsd", "::1 addr", "127.0.0.1", "ok", "apart"},
		{"openbsd", "127.0.0.1 addr", "127.0.0.2 addr", "ok", "apart"},
		{"dragonfly", "0.0.0.0 port", "0.0.0.0 port user0", "ok", "shared"},
		{"dragonfly", "127.0.0.1 addr", "127.0.0.2 addr", "ok", "apart"},
		{"dragonfly", "established 127.0.0.1", "127.0.0.1", "ok", "accepted"},
		{"dragonfly", "established 127.0.0.1 dialed", "127.0.0.1", "bind:EADDRINUSE", "plain"},
		{"dragonfly", "established ::1", "::1", "bind:EADDRINUSE", "plain"},
		{"darwin", "127.0.0.1 port", "127.0.0.1 port user0", "ok", "shared"},
		{"darwin", "127.0.0.1 port", "127.0.0.1 port user2", "bind:EADDRINUSE", "user"},
		{"darwin", ":: addr", ":: addr user2", "bind:EADDRINUSE", "user"},
		{"darwin", ":: port", ":: port user2", "ok", "shared"},
		{"darwin", "0.0.0.0 addr", "0.0.0.0 addr user2", "bind:EADDRINUSE", "same address"},
		{"freebsd-14", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "bind:EADDRINUSE", "plain"},
		{"freebsd-14", "::ffff:0.0.0.0", "::ffff:127.0.0.1", "bind:EADDRINUSE", "plain"},
		{"freebsd-14", "0.0.0.0", "::ffff:0.0.0.0", "bind:EADDRINUSE", "plain"},
		{"freebsd-14", "0.0.0.0 lb", "dual lb user2", "bind:EADDRINUSE", "user"},
		{"freebsd-14", "dual lb", "dual lb user2", "bind:EADDRINUSE", "user"},
		{"netbsd", "127.0.0.1 port", "127.0.0.1 port user0", "ok", "shared"},
		{"netbsd", "127.0.0.1 port", "127.0.0.1 port user2", "bind:EADDRINUSE", "user"},
		{"netbsd", "0.0.0.0 port", "0.0.0.0 port user2", "ok", "shared"},
		{"netbsd", "0.0.0.0", "::ffff:127.0.0.1 addr user2", "ok", "beside"},
		{"netbsd", "::ffff:127.0.0.1 port", "127.0.0.1 port user2", "ok", "shared"},
		{"netbsd", "127.0.0.1", "::ffff:127.0.0.1 addr user2", "bind:EADDRINUSE", "same address"},
		{"netbsd", "0.0.0.0 addr", "0.0.0.0 addr user2", "bind:EADDRINUSE", "user"},
		{"netbsd", "time-wait 127.0.0.1 port21021", "127.0.0.1", "ok", "hidden"},
		{"netbsd", "time-wait 127.0.0.1 port21120", "127.0.0.1", "bind:EADDRINUSE", "plain"},
		{"netbsd", "time-wait ::1 port21021", "::1", "bind:EADDRINUSE", "plain"},
		{"netbsd", "established 127.0.0.1 dialed port21021", "127.0.0.1", "bind:EADDRINUSE", "plain"},
		{"netbsd", "listening 127.0.0.1 port21021", "127.0.0.1", "bind:EADDRINUSE", "plain"},

		// illumos.
		{"illumos", "established 127.0.0.1", "127.0.0.1 addr", "ok", "SO_REUSEADDR"},
		{"illumos", "established 127.0.0.1", "127.0.0.1", "bind:EADDRINUSE", "overlap"},
		{"illumos", "established 127.0.0.1 excl", "127.0.0.1 addr", "bind:EADDRINUSE", "exclusive"},
		{"illumos", "time-wait 127.0.0.1 excl", "127.0.0.1 addr", "ok", "SO_REUSEADDR"},
		{"illumos", "time-wait 127.0.0.1 excl", "127.0.0.1", "bind:EADDRINUSE", "overlap"},
		{"illumos", "udp established 127.0.0.1 excl dialed", "udp 127.0.0.1 addr", "bind:EADDRINUSE", "exclusive"},
		{"illumos", "listening 127.0.0.1", "127.0.0.1 addr", "bind:EADDRINUSE", "same address"},
		{"illumos", "0.0.0.0", "dual", "ok", "families"},
		{"illumos", "0.0.0.0", ":: addr", "ok", "families"},
		{"illumos", "0.0.0.0 excl", "dual addr", "bind:EADDRINUSE", "exclusive"},
		{"illumos", "127.0.0.1 user1", "0.0.0.0 addr user2", "ok", "SO_REUSEADDR"},

		// Solaris: what SO_REUSEPORT does is known for one case.
		{"solaris-11.4", "0.0.0.0 port", "0.0.0.0 port", "ok", "both SO_REUSEPORT"},
		{"solaris-11.4", "0.0.0.0 port", "0.0.0.0 port user2", "not known", "user"},
		{"solaris-11.4", "0.0.0.0 port", "127.0.0.1 port", "not known", "SO_REUSEPORT"},
		{"solaris-11.4", "0.0.0.0 port", "127.0.0.1 port user2", "not known", "SO_REUSEPORT"},
		{"solaris-11.4", "0.0.0.0 port", "0.0.0.0", "not known", "SO_REUSEPORT"},
		{"solaris-11.4", "0.0.0.0", "0.0.0.0 port user2", "not known", "SO_REUSEPORT"},
		{"solaris-11.4", "0.0.0.0 excl", "0.0.0.0 port", "bind:EADDRINUSE", "exclusive"},
		{"solaris-11.4", "127.0.0.1 port", "127.0.0.2 port", "ok", "apart"},
		{"solaris-11.4", "0.0.0.0", "127.0.0.1 addr", "ok", "SO_REUSEADDR"},
		{"solaris-11.4", "127.0.0.1", "127.0.0.1", "bind:EADDRINUSE", "overlap"},
		{"solaris", "0.0.0.0 port", "0.0.0.0 port", "ok", "both SO_REUSEPORT"},

		// Windows: leftovers, groups, two families, both options.
		{"windows", "0.0.0.0 addr", "127.0.0.1 addr+excl", "setsockopt:WSAEINVAL", "both"},
		{"windows", "time-wait 127.0.0.1", "127.0.0.1", "ok", "leftover"},
		{"windows", "fin-wait-2 127.0.0.1", "127.0.0.1", "ok", "leftover"},
		{"windows", "established 127.0.0.1", "127.0.0.1", "not known", "leftover"},
		{"windows", "close-wait 127.0.0.1", "127.0.0.1", "not known", "leftover"},
		{"windows", "time-wait 127.0.0.1 excl", "127.0.0.1", "not known", "leftover"},
		{"windows", "established 127.0.0.1 dialed", "127.0.0.1", "bind:WSAEADDRINUSE", "same address"},
		{"windows", "listening 127.0.0.1", "127.0.0.1", "bind:WSAEADDRINUSE", "same address"},
		{"windows", "udp 224.1.2.3 addr", "udp 224.1.2.3 addr", "not known", "multicast"},
		{"windows", "udp 224.1.2.3 addr", "udp 0.0.0.0 addr", "not known", "multicast"},
		{"windows", "udp 0.0.0.0 addr", "udp 224.1.2.3 addr", "not known", "multicast"},
		{"windows", "dual excl", "0.0.0.0", "bind:WSAEACCES", "exclusive"},
		{"windows", "dual excl", "127.0.0.1 addr", "bind:WSAEACCES", "exclusive"},
		{"windows", "dual", "0.0.0.0 excl", "ok", "two wildcards"},
		{"windows", "dual", "127.0.0.1", "ok", "same user"},
		{"windows", "dual", "127.0.0.1 user2", "bind:WSAEACCES", "user"},
		{"windows", "dual addr", "0.0.0.0 excl", "bind:WSAEADDRINUSE", "same address"},
		{"windows", "0.0.0.0 excl", "dual", "bind:WSAEADDRINUSE", "same address"},
		{"windows", "127.0.0.1", "dual excl", "bind:WSAEADDRINUSE", "exclusive wildcard"},
		{"windows", "127.0.0.1", "dual", "ok", "wildcard"},
		{"windows", "0.0.0.0", "dual excl", "bind:WSAEADDRINUSE", "same address"},
		{"windows-2000", "127.0.0.1", "0.0.0.0 addr user2", "ok", "taking"},
		{"windows-2000", "127.0.0.1 excl", "0.0.0.0 addr user2", "bind:WSAEACCES", "exclusive"},
		{"windows-2000", "127.0.0.1 addr", "0.0.0.0 addr+excl", "setsockopt:WSAEINVAL", "both"},
		{"windows-2000", "dual", "0.0.0.0", "not known", "not known"},
		{"windows-2000", "udp 224.1.2.3 addr", "udp 0.0.0.0", "not known", "not known"},
		{"windows-2000", "udp 0.0.0.0 addr", "udp 224.1.2.3", "not known", "not known"},
		{"windows-2000", "time-wait 127.0.0.1", "127.0.0.1", "ok", "leftover"},
		{"windows-2000", "established 127.0.0.1 dialed", "127.0.0.1", "bind:WSAEADDRINUSE", "overlap"},

		// AIX: what IBM's page says, and no more.
		{"aix", "0.0.0.0 port", "0.0.0.0 port", "ok", "both SO_REUSEPORT"},
		{"aix", "0.0.0.0 port", "0.0.0.0", "bind:EADDRINUSE", "same address"},
		{"aix", "0.0.0.0 port", "127.0.0.1 port", "ok", "beside"},
		{"aix", "0.0.0.0 port", "127.0.0.1", "not known", "not known"},
		{"aix", "127.0.0.1 port", "127.0.0.2", "ok", "apart"},
		{"aix", "0.0.0.0 port", "0.0.0.0 port user2", "not known", "not known"},
		{"aix", "established 127.0.0.1 port", "127.0.0.1 port", "not known", "not known"},
		{"aix", "dual port", "0.0.0.0 port", "not known", "not known"},
		{"aix", "udp 224.1.2.3 port", "udp 224.1.2.3 port", "not known", "not known"},
		{"aix", "udp 0.0.0.0 port", "udp 224.1.2.3 port", "not known", "not known"},
		{"aix", "udp 224.1.2.3 port", "udp 0.0.0.0 port", "not known", "not known"},
		{"js", "established 127.0.0.1", "127.0.0.1", "not known", "not known"},
		{"js", "listening 0.0.0.0", "listening 0.0.0.0", "bind:EADDRINUSE", "same address"},
	} {
		s, err := semantics.Find(tt.system)
		require.NoError(t, err)
		got := s.Second(parse(t, tt.first), parse(t, tt.second))
		assert.Equal(t, tt.want, got.String(), "%s: %s, then %s", tt.system, tt.first, tt.second)
		assert.Equal(t, tt.rule, got.Rule.Name, "%s: %s, then %s", tt.system, tt.first, tt.second)
		assert.NotEmpty(t, got.Rule.Text)
		if got.Err == "" {
			assert.Empty(t, got.Step, "%s: %s, then %s", tt.system, tt.first, tt.second)
		}
	}
}

// How an answer is known, where it is not the same for all of a system's.
func TestHow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		system, first, second string
		want                  semantics.How
	}{
		{"linux", "0.0.0.0", "0.0.0.0", semantics.Measured},
		{"android", "0.0.0.0", "0.0.0.0", semantics.Inferred},
		{"linux-3.8", "0.0.0.0", "0.0.0.0", semantics.Source},
		{"netbsd", "listening 127.0.0.1", "127.0.0.1", semantics.Measured},
		{"netbsd", "established 127.0.0.1 port128", "127.0.0.1", semantics.Measured},
		{"netbsd", "established 127.0.0.1 dialed", "127.0.0.1", semantics.Source},
		{"netbsd", "established ::1", "::1", semantics.Source},
		{"netbsd", "listening ::1", "::1", semantics.Measured},
		{"netbsd", "listening ::1", "::2", semantics.Source},
		{"netbsd", "udp 224.1.2.3", "udp 224.1.2.4", semantics.Source},
		{"netbsd", "udp ::ffff:224.1.2.3", "udp 0.0.0.0", semantics.Source},
		{"netbsd", "listening ::ffff:224.1.2.3", "listening 0.0.0.0", semantics.Unsure},
		{"netbsd", "listening 0.0.0.0", "listening ::ffff:224.1.2.3", semantics.Unsure},
		{"openbsd", "listening 127.0.0.1", "listening 127.0.0.1", semantics.Source},
		{"openbsd", "udp 224.1.2.3", "udp 224.1.2.3", semantics.Source},
		{"openbsd", "224.1.2.3", "224.1.2.3", semantics.Source},
		{"openbsd", "udp listening 224.1.2.3", "udp 224.1.2.3", semantics.Source},
		{"openbsd", "listening 224.1.2.3", "224.1.2.3", semantics.Unsure},
		{"openbsd", "224.1.2.3", "listening 0.0.0.0", semantics.Unsure},
		{"openbsd", "listening 0.0.0.0", "listening 0.0.0.0", semantics.Source},
		{"solaris-11.4", "0.0.0.0 port", "0.0.0.0 port", semantics.Vendor},
		{"solaris", "0.0.0.0 port", "0.0.0.0 port", semantics.Inferred},
		{"solaris", "0.0.0.0", "0.0.0.0", semantics.Inferred},
		{"windows", "127.0.0.1 addr", "127.0.0.1", semantics.Unsure},
		{"windows", "0.0.0.0 addr", "0.0.0.0", semantics.Vendor},
		{"windows", "127.0.0.1 addr", "127.0.0.1 excl", semantics.Vendor},
		{"windows", "127.0.0.1", "127.0.0.1", semantics.Vendor},
		{"windows", "dual", "0.0.0.0", semantics.Source},
		{"windows", "dual", "0.0.0.0 addr", semantics.Unsure},
		{"windows", "dual", "127.0.0.1", semantics.Unsure},
		{"windows", "dual addr", "0.0.0.0", semantics.Unsure},
		{"windows", "127.0.0.1", "dual", semantics.Unsure},
		{"windows", "127.0.0.1", "dual excl", semantics.Source},
		{"windows", "127.0.0.1 addr", "dual excl", semantics.Unsure},
		{"windows", "0.0.0.0", "dual excl", semantics.Unsure},
		{"windows", "0.0.0.0 excl", "dual", semantics.Vendor},
		{"windows", "127.0.0.1 excl", "dual", semantics.Vendor},
		{"windows", "time-wait 127.0.0.1", "127.0.0.1", semantics.Inferred},
		{"aix", "0.0.0.0 port", "0.0.0.0 port", semantics.Vendor},
		{"aix", "udp 0.0.0.0 port", "udp 0.0.0.0", semantics.Unsure},
		{"aix", "0.0.0.0", "127.0.0.1 addr", semantics.Unsure},
		{"js", "listening 127.0.0.1", "listening 127.0.0.1", semantics.Measured},
		{"js", "listening 127.0.0.1", "listening 0.0.0.0", semantics.Measured},
		{"js", "listening 127.0.0.1", "listening 127.0.0.2", semantics.Source},
		{"js", "listening 0.0.0.0", "listening 0.0.0.0", semantics.Source},
		{"js", "127.0.0.1", "127.0.0.1", semantics.Source},
		{"js", "udp listening 127.0.0.1", "udp 127.0.0.1", semantics.Source},
		{"js", "udp 127.0.0.1", "udp 127.0.0.1", semantics.Source},
		{"wasip1", "listening 127.0.0.1", "listening 127.0.0.1", semantics.Measured},
	} {
		s, err := semantics.Find(tt.system)
		require.NoError(t, err)
		assert.Equal(t, tt.want, s.Second(parse(t, tt.first), parse(t, tt.second)).Known.How, "%s: %s, then %s", tt.system, tt.first, tt.second)
	}
}

// Each answer names the versions it was measured on.
func TestWhere(t *testing.T) {
	t.Parallel()
	s, err := semantics.Find("linux")
	require.NoError(t, err)
	got := s.Second(parse(t, "listening 0.0.0.0"), parse(t, "0.0.0.0"))
	assert.Equal(t, "5.10.223, 6.1.170, 6.1.192, 6.12.117, 6.18.44", got.Known.Where)
}

// Android answers as Linux, and knows it from Linux.
func TestAndroid(t *testing.T) {
	t.Parallel()
	linux, err := semantics.Find("linux")
	require.NoError(t, err)
	android, err := semantics.Find("android")
	require.NoError(t, err)
	a, b := parse(t, "0.0.0.0 port"), parse(t, "127.0.0.1 port user2")
	for _, got := range []func(semantics.System) semantics.Answer{
		func(s semantics.System) semantics.Answer { return s.Second(a, b) },
		func(s semantics.System) semantics.Answer { return s.Listen(a, b) },
		func(s semantics.System) semantics.Answer { return s.HandsOut(a, b) },
		func(s semantics.System) semantics.Answer { return s.SameTuple() },
	} {
		want := got(linux)
		want.Known.How, want.Known.Where = semantics.Inferred, got(android).Known.Where
		assert.Equal(t, want, got(android))
	}
	assert.Equal(t, semantics.Inferred, android.Closing().Known.How)
	_, known := android.OptionSince(semantics.Port)
	assert.Equal(t, semantics.Inferred, known.How)
	for _, topic := range semantics.Topics() {
		f := android.Fact(topic)
		assert.Equal(t, semantics.Inferred, f.Known.How)
		assert.Equal(t, topic == semantics.Security, strings.Contains(f.Text, "app"))
		assert.True(t, strings.HasPrefix(f.Text, linux.Fact(topic).Text))
	}
	for _, name := range []string{"solaris", "solaris-11.4"} {
		s, err := semantics.Find(name)
		require.NoError(t, err)
		assert.Equal(t, semantics.Inferred, s.Fact(semantics.Restart).Known.How)
	}
	old, err := semantics.Find("windows-2000")
	require.NoError(t, err)
	assert.Equal(t, semantics.Unknown, old.Fact(semantics.DualStack).Known.How, "there was none")
}

// What listen, connect and port 0 add.
func TestListenConnectPortZero(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ system, first, second, want string }{
		{"linux", "listening 0.0.0.0 addr", "0.0.0.0 addr", "listen:EADDRINUSE"},
		{"linux", "0.0.0.0 addr", "0.0.0.0 addr", "ok"},
		{"linux", "listening 0.0.0.0 port", "0.0.0.0 port", "ok"},
		{"linux-3.8", "listening 0.0.0.0 addr", "0.0.0.0 addr", "listen:EADDRINUSE"},
		{"linux-3.8", "0.0.0.0 addr", "0.0.0.0 addr", "ok"},
		{"android", "listening 0.0.0.0 addr", "0.0.0.0 addr", "listen:EADDRINUSE"},
		{"netbsd", "listening 0.0.0.0 port", "0.0.0.0 port", "ok"},
		{"plan9", "0.0.0.0", "0.0.0.0", "not known"},
		{"linux", "udp 0.0.0.0", "0.0.0.0", "not known"},
		{"linux", "0.0.0.0", "udp 0.0.0.0", "not known"},
	} {
		s, err := semantics.Find(tt.system)
		require.NoError(t, err)
		got := s.Listen(parse(t, tt.first), parse(t, tt.second))
		assert.Equal(t, tt.want, got.String(), "%s: %s, then %s listens", tt.system, tt.first, tt.second)
		if got.Err == "" {
			assert.Empty(t, got.Step)
		}
	}
	for _, tt := range []struct{ system, first, second, want string }{
		{"linux", "0.0.0.0", "127.0.0.1", "bind:EADDRINUSE"},
		{"linux", "0.0.0.0 port", "127.0.0.1 port", "bind:EADDRINUSE"},
		{"linux", "127.0.0.1", "127.0.0.2", "ok"},
		{"linux", "udp 0.0.0.0", "udp 0.0.0.0", "bind:EADDRINUSE"},
		{"linux", "udp 0.0.0.0 port", "udp 0.0.0.0 port", "ok"},
		{"linux", "0.0.0.0", "udp 0.0.0.0", "ok"}, // another protocol
		{"freebsd-14", "127.0.0.1", "0.0.0.0", "bind:EADDRINUSE"},
		{"freebsd-14", "127.0.0.1", "0.0.0.0 addr", "ok"},
		{"freebsd-14", "127.0.0.1 port", "127.0.0.1 port", "bind:EADDRINUSE"},
		{"freebsd-14", "127.0.0.1", "dual", "not known"},
		{"darwin", "127.0.0.1", "0.0.0.0 addr", "bind:EADDRINUSE"},
		{"darwin", "::1", ":: addr", "ok"},
		{"illumos", "0.0.0.0", "0.0.0.0", "not known"},
		{"linux-3.8", "0.0.0.0", "0.0.0.0", "not known"},
	} {
		s, err := semantics.Find(tt.system)
		require.NoError(t, err)
		assert.Equal(t, tt.want, s.HandsOut(parse(t, tt.first), parse(t, tt.second)).String(), "%s: %s, then port 0 of %s", tt.system, tt.first, tt.second)
	}
	for _, tt := range []struct{ system, socket, want, rule string }{
		{"linux", "127.0.0.1 port", "ok", "connect"},
		{"freebsd", "127.0.0.1 lb", "connect:EOPNOTSUPP", "LB connect"},
		{"freebsd", "127.0.0.1 port", "ok", "connect"},
		{"freebsd", "udp 127.0.0.1 lb", "ok", "connect"},
		{"freebsd-14", "127.0.0.1 lb", "ok", "LB connect"},
		{"freebsd-14", "127.0.0.1 port", "ok", "connect"},
		{"freebsd-14", "udp 127.0.0.1 lb", "ok", "connect"},
	} {
		s, err := semantics.Find(tt.system)
		require.NoError(t, err)
		got := s.Connect(parse(t, tt.socket))
		assert.Equal(t, tt.want, got.String(), "%s: %s", tt.system, tt.socket)
		assert.Equal(t, tt.rule, got.Rule.Name, "%s: %s", tt.system, tt.socket)
	}
}
