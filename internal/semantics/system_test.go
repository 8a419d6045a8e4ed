package semantics_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

func TestOn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ goos, release, version, want string }{
		{"linux", "6.18.44-x", "", "linux"},
		{"linux", "3.9.0", "", "linux"},
		{"linux", "3.10", "", "linux"},
		{"linux", "3.8.13", "", "linux-3.8"},
		{"linux", "2.6.32-754.el6", "", "linux-3.8"},
		{"linux", "", "", "linux"},
		{"linux", "strange", "", "linux"},
		{"android", "4.19.113", "", "android"},
		{"freebsd", "12.0-RELEASE", "", "freebsd-14"},
		{"freebsd", "14.0-STABLE", "", "freebsd-14"},
		{"freebsd", "15.0-CURRENT", "", "freebsd"},
		{"freebsd", "", "", "freebsd"},
		{"windows", "10.0", "", "windows"},
		{"windows", "5.2", "", "windows"},
		{"windows", "5.1", "", "windows-2000"},
		{"solaris", "5.11", "11.4.0.15.0", "solaris-11.4"},
		{"solaris", "5.11", "11.3", "solaris"},
		{"illumos", "5.11", "illumos-3974", "illumos"},
		{"darwin", "24.4.0", "", "darwin"},
		{"ios", "", "", "ios"},
		{"openbsd", "7.8", "", "openbsd"},
		{"netbsd", "10.0", "", "netbsd"},
		{"dragonfly", "6.4", "", "dragonfly"},
		{"aix", "2", "7", "aix"},
		{"js", "", "", "js"},
		{"wasip1", "", "", "wasip1"},
		{"plan9", "", "", "plan9"},
	} {
		s, err := semantics.On(tt.goos, tt.release, tt.version)
		require.NoError(t, err, "%s %s", tt.goos, tt.release)
		assert.Equal(t, tt.want, s.Name(), "%s %s %s", tt.goos, tt.release, tt.version)
	}
	_, err := semantics.On("freebsd", "11.4-RELEASE", "")
	require.ErrorIs(t, err, semantics.ErrVersion)
	assert.Contains(t, err.Error(), "11.4")
	_, err = semantics.On("zos", "", "")
	assert.Error(t, err)
}

func TestFind(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range semantics.Systems() {
		assert.False(t, seen[s.Name()], s.Name())
		seen[s.Name()] = true
		found, err := semantics.Find(s.Name())
		require.NoError(t, err)
		assert.Equal(t, s.Title(), found.String())
	}
	_, err := semantics.Find("beos")
	require.Error(t, err)
	for name := range seen {
		assert.Contains(t, err.Error(), name)
	}
}

// The options that exist, and what they are called.
func TestOptions(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"linux": "SO_REUSEADDR SO_REUSEPORT", "android": "SO_REUSEADDR SO_REUSEPORT", "linux-3.8": "SO_REUSEADDR",
		"freebsd": "SO_REUSEADDR SO_REUSEPORT SO_REUSEPORT_LB", "freebsd-14": "SO_REUSEADDR SO_REUSEPORT SO_REUSEPORT_LB",
		"openbsd": "SO_REUSEADDR SO_REUSEPORT", "netbsd": "SO_REUSEADDR SO_REUSEPORT", "dragonfly": "SO_REUSEADDR SO_REUSEPORT",
		"darwin": "SO_REUSEADDR SO_REUSEPORT SO_REUSESHAREUID", "ios": "SO_REUSEADDR SO_REUSEPORT SO_REUSESHAREUID",
		"windows": "SO_REUSEADDR SO_EXCLUSIVEADDRUSE", "windows-2000": "SO_REUSEADDR SO_EXCLUSIVEADDRUSE",
		"illumos": "SO_REUSEADDR SO_EXCLBIND", "solaris": "SO_REUSEADDR SO_REUSEPORT SO_EXCLBIND",
		"solaris-11.4": "SO_REUSEADDR SO_REUSEPORT SO_EXCLBIND", "aix": "SO_REUSEADDR SO_REUSEPORT",
		"js": "", "wasip1": "", "plan9": "",
	} {
		s, err := semantics.Find(name)
		require.NoError(t, err)
		var names []string
		for _, o := range s.Options() {
			names = append(names, s.OptionName(o))
			_, known := s.OptionSince(o)
			assert.NotEqual(t, semantics.Unknown, known.How, "%s %v", name, o)
		}
		assert.Equal(t, want, strings.Join(names, " "), name)
		assert.Len(t, s.Subsets(), 1<<len(names), name)
		assert.Equal(t, semantics.Options(0), s.Subsets()[0])
	}
	for name, want := range map[string]string{"linux": "3.9", "solaris": "11"} {
		s, err := semantics.Find(name)
		require.NoError(t, err)
		since, _ := s.OptionSince(semantics.Port)
		assert.Equal(t, want, since, name)
	}
}

// A question that makes no sense, and one about an option that is not there.
func TestNoSense(t *testing.T) {
	t.Parallel()
	good := semantics.Binding{Proto: semantics.TCP, State: semantics.Bound, Addr: netip.IPv4Unspecified()}
	for _, s := range semantics.Systems() {
		for _, change := range []func(*semantics.Binding){
			func(b *semantics.Binding) { b.Proto = 0 },
			func(b *semantics.Binding) { b.Proto = 3 },
			func(b *semantics.Binding) { b.State = 0 },
			func(b *semantics.Binding) { b.State = 99 },
			func(b *semantics.Binding) { b.Addr = netip.Addr{} },
		} {
			bad := good
			change(&bad)
			for _, got := range []semantics.Answer{s.Second(bad, good), s.Second(good, bad), s.Listen(bad, good), s.Listen(good, bad), s.HandsOut(bad, good), s.HandsOut(good, bad)} {
				assert.Equal(t, "not known", got.String(), s.Name())
				assert.False(t, got.OK())
			}
			assert.Equal(t, semantics.Unknown, s.Traffic(good.Addr, []semantics.Binding{bad}).Known.How)
		}
		listening, udp := good, good
		listening.State, udp.Proto, udp.State = semantics.Listening, semantics.UDP, semantics.Bound
		assert.Equal(t, "invalid", s.Traffic(good.Addr, []semantics.Binding{listening, udp}).Rule.Name)
		connected := good
		connected.State = semantics.Established
		assert.Equal(t, "invalid", s.Traffic(good.Addr, []semantics.Binding{connected}).Rule.Name)
		gone := good
		gone.State = semantics.TimeWait
		assert.Equal(t, "not known", s.Second(good, gone).String(), "nobody binds a socket that is gone")
		assert.Equal(t, "ok", s.Second(good, udp).String(), s.Name())
		with := good
		with.Options = 1 << 7
		assert.Equal(t, "setsockopt:ENOPROTOOPT", s.Second(good, with).String(), s.Name())
		assert.Equal(t, "first:setsockopt:ENOPROTOOPT", s.Second(with, good).String(), s.Name())
		if s.OptionName(semantics.LB) == "" {
			with.Options = semantics.Opts(semantics.LB)
			assert.Equal(t, "setsockopt:ENOPROTOOPT", s.Second(good, with).String(), s.Name())
		}
	}
}

// ::ffff:a.b.c.d is IPv4, and a zone makes no difference.
func TestMapped(t *testing.T) {
	t.Parallel()
	s, err := semantics.Find("linux")
	require.NoError(t, err)
	a := semantics.Binding{Proto: semantics.UDP, State: semantics.Bound, Addr: netip.MustParseAddr("127.0.0.1")}
	b := a
	b.Addr = netip.MustParseAddr("::ffff:127.0.0.1")
	assert.Equal(t, "bind:EADDRINUSE", s.Second(a, b).String())
	assert.Equal(t, "bind:EADDRINUSE", s.Second(b, a).String())
	assert.Equal(t, []int{0}, s.Traffic(a.Addr, []semantics.Binding{b}).To)
}

// Everything that a document will print is there.
func TestTexts(t *testing.T) {
	t.Parallel()
	for _, s := range semantics.Systems() {
		assert.NotEmpty(t, s.Title())
		known := 0
		for _, topic := range semantics.Topics() {
			f := s.Fact(topic)
			assert.Equal(t, topic, f.Topic)
			assert.True(t, strings.HasSuffix(f.Text, "."), "%s %s: %s", s.Name(), topic, f.Text)
			if f.Known.How != semantics.Unknown {
				known++
				assert.NotEmpty(t, f.Known.Where)
			} else {
				assert.Equal(t, "Not known.", f.Text)
			}
		}
		if s.Name() != "aix" {
			assert.NotZero(t, known, s.Name())
		}
	}
}

func TestStrings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ got, want string }{
		{semantics.TCP.String(), "tcp"}, {semantics.UDP.String(), "udp"}, {semantics.Proto(7).String(), "Proto(7)"},
		{semantics.Bound.String(), "bound"}, {semantics.Listening.String(), "listening"}, {semantics.TimeWait.String(), "time-wait"},
		{semantics.Established.String(), "established"}, {semantics.FinWait2.String(), "fin-wait-2"},
		{semantics.CloseWait.String(), "close-wait"}, {semantics.State(0).String(), "State(0)"},
		{semantics.Options(0).String(), "-"},
		{semantics.Opts(semantics.Port, semantics.Addr).String(), "addr+port"},
		{semantics.Opts(semantics.LB, semantics.Excl, semantics.ShareUID).String(), "lb+excl+shareuid"},
		{semantics.Options(0x81).String(), "addr+Option(128)"},
		{semantics.Addr.String(), "addr"},
		{semantics.Unknown.String(), "not known"}, {semantics.Measured.String(), "measured"},
		{semantics.Known{semantics.Source, "in_pcb.c"}.String(), "source: in_pcb.c"},
		{semantics.Known{}.String(), "not known"},
		{semantics.Spread.String(), "spread"}, {semantics.Nobody.String(), "nobody"},
	} {
		assert.Equal(t, tt.want, tt.got)
	}
}
