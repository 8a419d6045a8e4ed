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

// socket reads "0.0.0.0 port", "::1 -", "[::] lb bound", ":: dual" as a listener,
// or for UDP as a bound socket.
func socket(t testing.TB, proto semantics.Proto, words string) semantics.Binding {
	t.Helper()
	f := strings.Fields(words)
	require.GreaterOrEqual(t, len(f), 2, words)
	b := semantics.Binding{Proto: proto, State: semantics.Listening, V6Only: true, Options: options(t, f[1])}
	if proto == semantics.UDP || slices.Contains(f, "bound") {
		b.State = semantics.Bound
	}
	if slices.Contains(f, "user2") {
		b.User = 2
	}
	if f[0] == "dual" {
		f[0], b.V6Only = "::", false
	}
	b.Addr = netip.MustParseAddr(f[0])
	return b
}

// Who gets what is sent to an address, as it was measured or read. "0/0/2" of
// the sockets: everything to the last; "1/1": spread; "c/c": a copy each.
func TestTraffic(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		system  string
		proto   semantics.Proto
		to      string
		sockets string
		want    string
		how     semantics.How
	}{
		// Linux, measured.
		{"linux", semantics.TCP, "127.0.0.1", "127.0.0.1 port, 127.0.0.1 port", "1/1", semantics.Measured},
		{"linux", semantics.TCP, "127.0.0.1", "127.0.0.1 port, 127.0.0.1 port bound", "2/0", semantics.Measured},
		{"linux", semantics.TCP, "127.0.0.1", "127.0.0.1 port bound", "0", semantics.Measured},
		{"linux", semantics.TCP, "127.0.0.1", "127.0.0.1 port, 0.0.0.0 port", "2/0", semantics.Measured},
		{"linux", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 127.0.0.1 port", "0/2", semantics.Measured},
		{"linux", semantics.TCP, "127.0.0.1", "dual port, 0.0.0.0 port, 0.0.0.0 port", "0/1/1", semantics.Measured},
		{"linux", semantics.TCP, "::1", ":: port, dual port", "2/0", semantics.Measured},
		{"linux", semantics.TCP, "::1", "0.0.0.0 -", "0", semantics.Measured},
		{"linux", semantics.UDP, "127.0.0.1", "0.0.0.0 addr, 0.0.0.0 addr, 0.0.0.0 addr", "0/0/2", semantics.Measured},
		{"linux", semantics.UDP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port, 0.0.0.0 port", "1/1/1", semantics.Measured},
		{"linux", semantics.UDP, "127.0.0.1", "0.0.0.0 addr+port, 0.0.0.0 addr+port, 0.0.0.0 addr", "0/0/2", semantics.Measured},
		{"linux", semantics.UDP, "127.0.0.1", "0.0.0.0 addr, 0.0.0.0 addr+port, 0.0.0.0 addr+port", "0/1/1", semantics.Measured},
		{"linux", semantics.UDP, "224.1.2.3", "0.0.0.0 addr, 224.1.2.3 port, 224.1.2.4 addr", "c/c/0", semantics.Measured},
		{"linux", semantics.UDP, "127.0.0.1", "0.0.0.0 addr+port, 0.0.0.0 addr+port user2", "0/2", semantics.Measured},
		{"linux", semantics.TCP, "::ffff:127.0.0.1", "0.0.0.0 -", "2", semantics.Measured},
		{"android", semantics.TCP, "127.0.0.1", "127.0.0.1 port, 127.0.0.1 port", "1/1", semantics.Inferred},
		{"linux-3.8", semantics.UDP, "127.0.0.1", "0.0.0.0 addr, 0.0.0.0 addr", "0/2", semantics.Inferred},

		// FreeBSD 14.0, measured; of 40, 200 or 1000 connections.
		{"freebsd-14", semantics.TCP, "127.0.0.1", "127.0.0.1 -, 0.0.0.0 lb", "0/2", semantics.Measured},
		{"freebsd-14", semantics.TCP, "127.0.0.1", "127.0.0.1 -, 0.0.0.0 port", "2/0", semantics.Measured},
		{"freebsd-14", semantics.TCP, "127.0.0.1", "127.0.0.1 -, 0.0.0.0 addr", "2/0", semantics.Measured},
		{"freebsd-14", semantics.TCP, "127.0.0.1", "0.0.0.0 -, 127.0.0.1 addr", "0/2", semantics.Measured},
		{"freebsd-14", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "0/2", semantics.Measured},
		{"freebsd-14", semantics.TCP, "127.0.0.1", "127.0.0.1 port, 127.0.0.1 port", "0/2", semantics.Measured},
		{"freebsd-14", semantics.TCP, "127.0.0.1", "127.0.0.1 lb, 0.0.0.0 lb", "2/0", semantics.Measured},
		{"freebsd-14", semantics.TCP, "127.0.0.1", "127.0.0.1 port+lb, 127.0.0.1 port, 127.0.0.1 port+lb, 127.0.0.1 port", "1/0/1/0", semantics.Measured},
		{"freebsd-14", semantics.TCP, "127.0.0.1", "127.0.0.1 lb, 127.0.0.1 lb, 127.0.0.1 lb, 127.0.0.1 lb bound", "1/1/1/1", semantics.Measured},
		{"freebsd-14", semantics.TCP, "127.0.0.1", "127.0.0.1 port, 127.0.0.1 port bound", "0/2", semantics.Measured},
		{"freebsd-14", semantics.TCP, "127.0.0.1", "dual lb, dual lb, dual lb, dual lb", "0/0/0/2", semantics.Measured},
		{"freebsd-14", semantics.TCP, "::1", "dual lb, dual lb, dual lb, dual lb", "0/0/0/2", semantics.Measured},
		{"freebsd-14", semantics.TCP, "::1", ":: lb, :: lb, :: lb, :: lb", "1/1/1/1", semantics.Measured},
		{"freebsd-14", semantics.TCP, "::1", "::1 lb, ::1 lb, ::1 lb, ::1 lb", "1/1/1/1", semantics.Measured},
		{"freebsd-14", semantics.UDP, "127.0.0.1", "0.0.0.0 lb, 0.0.0.0 lb", "1/1", semantics.Measured},
		{"freebsd-14", semantics.UDP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "0/2", semantics.Measured},
		{"freebsd", semantics.TCP, "127.0.0.1", "127.0.0.1 lb, 127.0.0.1 lb, 127.0.0.1 lb bound", "1/1/0", semantics.Source},
		{"freebsd", semantics.TCP, "127.0.0.1", "127.0.0.1 -, 0.0.0.0 lb", "0/2", semantics.Source},
		{"freebsd", semantics.TCP, "127.0.0.1", "127.0.0.1 -, 127.0.0.1 lb bound", "?", semantics.Unknown},
		{"freebsd", semantics.TCP, "127.0.0.1", "127.0.0.1 port, 127.0.0.1 port", "0/2", semantics.Source},
		{"freebsd", semantics.TCP, "127.0.0.1", "dual lb, dual lb", "0/2", semantics.Source},
		{"freebsd", semantics.UDP, "127.0.0.1", "0.0.0.0 lb, 0.0.0.0 lb", "1/1", semantics.Source},
		{"freebsd", semantics.UDP, "224.1.2.3", "224.1.2.3 lb, 224.1.2.3 lb", "c/c", semantics.Source},

		// The others, read; NetBSD's measurements are in netbsd-7.99-extra.txt.
		{"netbsd", semantics.TCP, "127.0.0.1", "dual -, 0.0.0.0 addr", "0/2", semantics.Inferred},
		{"netbsd", semantics.UDP, "127.0.0.1", "dual -, 0.0.0.0 addr", "0/2", semantics.Inferred},
		{"netbsd", semantics.TCP, "127.0.0.1", "127.0.0.1 -, dual addr", "2/0", semantics.Measured},
		{"netbsd", semantics.TCP, "127.0.0.1", "dual -", "2", semantics.Measured},
		{"openbsd", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "0/2", semantics.Source},
		{"openbsd", semantics.TCP, "127.0.0.1", "0.0.0.0 port, dual port", "2/0", semantics.Source},
		{"darwin", semantics.TCP, "127.0.0.1", "127.0.0.1 port, 127.0.0.1 port", "0/2", semantics.Source},
		{"darwin", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "2/0", semantics.Source},
		{"darwin", semantics.UDP, "::1", "dual port, dual port", "2/0", semantics.Source},
		{"darwin", semantics.UDP, "224.1.2.3", "0.0.0.0 addr, 0.0.0.0 -, 0.0.0.0 addr", "0/c/c", semantics.Source},
		{"darwin", semantics.UDP, "224.1.2.3", "0.0.0.0 addr, 224.1.2.4 addr, 0.0.0.0 addr", "c/0/c", semantics.Source},
		{"darwin", semantics.TCP, "::1", ":: port, dual port", "2/0", semantics.Source},
		{"darwin", semantics.TCP, "::1", "dual port, :: port", "2/0", semantics.Source},
		{"dragonfly", semantics.TCP, "127.0.0.1", "dual port", "0", semantics.Source},
		{"dragonfly", semantics.UDP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "1/1", semantics.Source},
		{"dragonfly", semantics.UDP, "224.1.2.3", "224.1.2.3 addr, 224.1.2.3 addr", "c/c", semantics.Source},
		{"dragonfly", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "1/1", semantics.Source},
		{"dragonfly", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port bound", "2/0", semantics.Source},
		{"dragonfly", semantics.TCP, "::1", ":: port, :: port", "2/0", semantics.Source},
		{"dragonfly", semantics.TCP, "::1", "::1 port, ::1 port", "0/2", semantics.Source},
		{"dragonfly", semantics.TCP, "127.0.0.1", "127.0.0.1 -, 0.0.0.0 port, 0.0.0.0 port", "2/0/0", semantics.Source},
		{"windows", semantics.TCP, "::1", "127.0.0.1 -", "0", semantics.Vendor},
		{"windows", semantics.UDP, "224.1.2.3", "0.0.0.0 addr, 127.0.0.1 addr", "c/0", semantics.Vendor},
		{"windows", semantics.TCP, "127.0.0.1", "127.0.0.1 -, 0.0.0.0 -", "2/0", semantics.Vendor},
		{"windows", semantics.TCP, "127.0.0.1", "0.0.0.0 addr, 0.0.0.0 addr", "?", semantics.Unknown},
		{"windows", semantics.UDP, "224.1.2.3", "0.0.0.0 addr, 0.0.0.0 addr", "c/c", semantics.Vendor},
		{"illumos", semantics.UDP, "127.0.0.1", "127.0.0.1 -, 127.0.0.1 addr", "2/0", semantics.Source},
		{"illumos", semantics.TCP, "127.0.0.1", "0.0.0.0 -, 127.0.0.1 addr", "0/2", semantics.Source},
		{"illumos", semantics.TCP, "127.0.0.1", "127.0.0.1 - bound, 0.0.0.0 addr", "0/2", semantics.Source},
		{"illumos", semantics.TCP, "127.0.0.1", "dual -, 0.0.0.0 -", "0/2", semantics.Inferred},
		{"illumos", semantics.TCP, "127.0.0.1", "dual -, 127.0.0.1 addr", "0/2", semantics.Source},
		{"illumos", semantics.TCP, "127.0.0.1", "0.0.0.0 -", "2", semantics.Source},
		{"illumos", semantics.TCP, "::1", "dual -, 0.0.0.0 -", "2/0", semantics.Source},
		{"illumos", semantics.TCP, "127.0.0.1", "dual - bound", "0", semantics.Source},
		{"illumos", semantics.UDP, "224.1.2.3", "0.0.0.0 addr, 0.0.0.0 addr", "?", semantics.Unknown},
		{"solaris-11.4", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port bound", "2/0", semantics.Inferred},
		{"solaris-11.4", semantics.TCP, "127.0.0.1", "127.0.0.1 port bound, 0.0.0.0 port, 0.0.0.0 port", "0/1/1", semantics.Vendor},
		{"solaris-11.4", semantics.TCP, "127.0.0.1", "127.0.0.1 port, 0.0.0.0 port", "2/0", semantics.Inferred},
		{"solaris-11.4", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port, 127.0.0.2 port", "1/1/0", semantics.Vendor},
		{"solaris-11.4", semantics.UDP, "127.0.0.1", "0.0.0.0 addr, 0.0.0.0 addr", "2/0", semantics.Inferred},
		{"solaris-11.4", semantics.UDP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "1/1", semantics.Vendor},
		{"solaris-11.4", semantics.UDP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 -, 127.0.0.2 port", "2/0/0", semantics.Inferred},
		{"solaris-11.4", semantics.UDP, "224.1.2.3", "0.0.0.0 port, 0.0.0.0 port", "?", semantics.Unknown},
		{"solaris", semantics.TCP, "127.0.0.1", "127.0.0.1 -", "2", semantics.Inferred},
		{"solaris", semantics.UDP, "224.1.2.3", "0.0.0.0 addr", "?", semantics.Unknown},
		{"solaris-11.4", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "1/1", semantics.Vendor},
		{"solaris-11.4", semantics.TCP, "127.0.0.1", "0.0.0.0 addr+port, 0.0.0.0 addr+port", "?", semantics.Unknown},
		{"solaris", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "?", semantics.Unknown},
		{"aix", semantics.TCP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "2/0", semantics.Vendor},
		{"aix", semantics.TCP, "127.0.0.1", "0.0.0.0 port bound, 0.0.0.0 port", "0/2", semantics.Vendor},
		{"aix", semantics.TCP, "127.0.0.1", "0.0.0.0 -", "?", semantics.Unknown},
		{"aix", semantics.UDP, "127.0.0.1", "0.0.0.0 port, 0.0.0.0 port", "?", semantics.Unknown},
		{"js", semantics.TCP, "127.0.0.1", "0.0.0.0 -", "?", semantics.Unknown},
	} {
		s, err := semantics.Find(tt.system)
		require.NoError(t, err)
		var sharing []semantics.Binding
		for words := range strings.SplitSeq(tt.sockets, ", ") {
			sharing = append(sharing, socket(t, tt.proto, words))
		}
		got := s.Traffic(netip.MustParseAddr(tt.to), sharing)
		assert.Equal(t, tt.want, shares(got, len(sharing)), "%s %v to %s: %s", tt.system, tt.proto, tt.to, tt.sockets)
		if len(got.To) == 0 {
			assert.Equal(t, semantics.Nobody, got.Way, "%s %v to %s: %s", tt.system, tt.proto, tt.to, tt.sockets)
		}
		assert.Equal(t, tt.how, got.Known.How, "%s %v to %s: %s", tt.system, tt.proto, tt.to, tt.sockets)
	}
}

// On NetBSD a UDP socket on IPv4 comes first when it is bound, and when it sends.
func TestNetBSDSender(t *testing.T) {
	t.Parallel()
	s, err := semantics.Find("netbsd")
	require.NoError(t, err)
	group := semantics.Binding{Proto: semantics.UDP, State: semantics.Bound, Addr: netip.MustParseAddr("224.1.2.3"), Options: semantics.Opts(semantics.Port)}
	assert.Equal(t, "multicast", s.Traffic(group.Addr, []semantics.Binding{group, group}).Rule.Name)
	for to, want := range map[string]string{"127.0.0.1": "bound or sent last", "::1": "newest"} {
		for proto, want := range map[semantics.Proto]string{semantics.UDP: want, semantics.TCP: "newest"} {
			b := semantics.Binding{Proto: proto, State: semantics.Listening, Addr: netip.MustParseAddr(to), Options: semantics.Opts(semantics.Port)}
			got := s.Traffic(b.Addr, []semantics.Binding{b, b})
			assert.Equal(t, []int{1}, got.To)
			assert.Equal(t, want, got.Rule.Name, "%v to %s", proto, to)
			assert.Equal(t, want == "newest", got.Known.Where == "7.99.34", "%v to %s", proto, to)
		}
	}
}

func shares(got semantics.Traffic, sockets int) string {
	if got.Known.How == semantics.Unknown {
		return "?"
	}
	share := map[semantics.Way]string{semantics.One: "2", semantics.Spread: "1", semantics.Copies: "c"}[got.Way]
	list := make([]string, sockets)
	for i := range list {
		list[i] = "0"
	}
	for _, i := range got.To {
		list[i] = share
	}
	return strings.Join(list, "/")
}

// What becomes of a closed listener's queue, and of a four-tuple that is taken.
func TestClosing(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		queue semantics.Queue
		tuple string
	}{
		"linux": {semantics.Reset, "EADDRNOTAVAIL"}, "android": {semantics.Reset, "EADDRNOTAVAIL"},
		"linux-3.8": {semantics.Reset, "EADDRNOTAVAIL"},
		"freebsd":   {semantics.Reset, "EADDRINUSE"}, "freebsd-14": {semantics.Reset, "EADDRINUSE"},
		"openbsd": {semantics.Reset, "EADDRINUSE"}, "netbsd": {semantics.Reset, "EADDRINUSE"},
		"dragonfly": {semantics.Moved, "EADDRINUSE"}, "darwin": {semantics.Reset, "EADDRINUSE"},
		"ios": {semantics.Reset, "EADDRINUSE"}, "windows": {"", "WSAEADDRINUSE"}, "windows-2000": {"", "WSAEADDRINUSE"},
		"illumos": {"", ""}, "solaris": {"", ""}, "solaris-11.4": {"", ""},
		"aix": {"", ""}, "js": {"", ""}, "wasip1": {"", ""}, "plan9": {"", ""},
	} {
		s, err := semantics.Find(name)
		require.NoError(t, err)
		assert.Equal(t, want.queue, s.Closing().Queue, name)
		assert.Equal(t, want.queue != "", s.Closing().Known.How != semantics.Unknown, name)
		assert.Equal(t, want.tuple, s.SameTuple().Err, name)
	}
}
