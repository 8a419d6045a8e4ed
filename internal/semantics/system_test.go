package semantics_test

import (
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
		{"linux", "3.8.13", "", "linux-3.8"},
		{"linux", "2.6.32-754.el6", "", "linux-3.8"},
		{"linux", "strange", "", "linux"},
		{"android", "4.19.113", "", "android"},
		{"freebsd", "12.0-RELEASE", "", "freebsd-14"},
		{"freebsd", "14.0-STABLE", "", "freebsd-14"},
		{"freebsd", "15.0-CURRENT", "", "freebsd"},
		{"freebsd", "", "", "freebsd"},
		{"windows", "10.0", "", "windows"},
		{"solaris", "5.11", "11.4.0.15.0", "solaris-11.4"},
		{"solaris", "5.11", "11.3", "solaris"},
		{"solaris", "5.11", "12.4", "solaris"},
		{"aix", "2", "7", "aix"},
	} {
		s, err := semantics.On(tt.goos, tt.release, tt.version)
		require.NoError(t, err, tt)
		assert.Equal(t, tt.want, s.Name(), tt)
	}
	_, err := semantics.On("zos", "", "")
	require.Error(t, err)
	for _, s := range semantics.Systems() {
		assert.ErrorContains(t, err, s.Name())
		assert.Equal(t, s.String(), find(t, s.Name()).String())
	}
}

// A question that has no answer, and one about an option that is not there.
func TestInvalidQuestions(t *testing.T) {
	t.Parallel()
	good, udp, gone := parse(t, "0.0.0.0"), parse(t, "udp 0.0.0.0"), parse(t, "time-wait 0.0.0.0")
	unknown := good
	unknown.Options = 1 << 7
	for _, s := range semantics.Systems() {
		for _, bad := range []semantics.Binding{
			{State: good.State, Addr: good.Addr}, {Proto: 3, State: good.State, Addr: good.Addr},
			{Proto: good.Proto, Addr: good.Addr}, {Proto: good.Proto, State: 99, Addr: good.Addr},
			{Proto: good.Proto, State: good.State},
		} {
			for _, is := range []semantics.Answer{s.Bind(bad, good), s.Bind(good, bad), s.AssignsPort(bad, good), s.AssignsPort(good, bad)} {
				assert.Equal(t, "unverified", is.String(), s.Name())
				assert.False(t, is.OK())
			}
			assert.Equal(t, semantics.Unknown, s.Traffic(good.Addr, []semantics.Binding{bad}).Evidence.Kind)
		}
		assert.Equal(t, "invalid", s.Traffic(good.Addr, []semantics.Binding{good, udp}).Rule.Name)
		assert.Equal(t, "invalid", s.Traffic(good.Addr, []semantics.Binding{gone}).Rule.Name)
		assert.Equal(t, "unverified", s.Bind(good, gone).String(), "a socket that is gone cannot be bound")
		assert.Equal(t, "ok", s.Bind(good, udp).String(), s.Name())
		assert.Equal(t, "setsockopt:ENOPROTOOPT", s.Bind(good, unknown).String(), s.Name())
		assert.Equal(t, "first:setsockopt:ENOPROTOOPT", s.Bind(unknown, good).String(), s.Name())
	}
}

// Android answers as Linux does, and what is known of it is inferred from Linux. It has a
// user for each app.
func TestAndroidIsInferredFromLinux(t *testing.T) {
	t.Parallel()
	linux, android := find(t, "linux"), find(t, "android")
	inferred := semantics.Evidence{Kind: semantics.Inferred, Reference: "from Linux, whose kernel it is"}
	for _, r := range pairs(t, "linux-6.18.txt") {
		want := linux.Bind(r.first, r.second)
		want.Evidence = inferred
		assert.Equal(t, want, android.Bind(r.first, r.second))
	}
	for _, topic := range []semantics.Topic{semantics.Closing, semantics.Security} {
		f := android.Fact(topic)
		assert.Equal(t, inferred, f.Evidence)
		assert.True(t, strings.HasPrefix(f.Text, linux.Fact(topic).Text))
		assert.Equal(t, topic == semantics.Security, strings.Contains(f.Text, "app"))
	}
}

// What the rules imply for the fields of package reuse: for TCP and then UDP, on a
// specific IPv4 address, 0.0.0.0, a specific IPv6 address, an IPv6-only :: and a
// dual-stack one; and for a connected socket of both.
func TestImplied(t *testing.T) {
	t.Parallel()
	digit := map[bool]string{false: "0", true: "1"}
	for names, want := range map[string][2]string{ // PortLB, Exclusive
		"linux android":      {"11111 11111", "10101 00001 10"},
		"linux-3.8":          {"00000 00000", "11111 11111 11"},
		"freebsd freebsd-14": {"11110 11110", "00000 00000 00"},
		"openbsd netbsd":     {"00000 00000", "10100 10100 00"},
		"dragonfly":          {"11000 11000", "00000 00000 00"},
		"darwin ios":         {"00000 00000", "10100 10100 00"},
		"windows illumos":    {"00000 00000", "11111 11111 11"},
		"solaris-11.4":       {"11111 11111", "11111 11111 11"},
		"solaris":            {"00000 00000", "11111 11111 11"},
		"aix js plan9":       {"00000 00000", "00000 00000 00"},
	} {
		for name := range strings.FieldsSeq(names) {
			var lb, exclusive, connected []string
			for _, proto := range []string{"listening ", "udp "} {
				var x, y string
				for _, addr := range []string{"127.0.0.1", "0.0.0.0", "::1", "::", "dual"} {
					b := parse(t, proto+addr)
					x += digit[find(t, name).Balances(b)]
					y += digit[find(t, name).Exclusive(b)]
				}
				lb, exclusive = append(lb, x), append(exclusive, y)
				connected = append(connected, digit[find(t, name).Exclusive(parse(t, proto+"established dialed 127.0.0.1"))])
			}
			assert.Equal(t, want, [2]string{strings.Join(lb, " "), strings.Join(exclusive, " ") + " " + strings.Join(connected, "")}, name)
		}
	}
}
