package semantics_test

import (
	"slices"
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
		{"freebsd", "12.0-RELEASE", "", "freebsd-14"},
		{"freebsd", "14.0-STABLE", "", "freebsd-14"},
		{"freebsd", "15.0-CURRENT", "", "freebsd"},
		{"freebsd", "", "", "freebsd"},
		{"windows", "10.0", "", "windows"},
		{"solaris", "5.11", "11.4.0.15.0", "solaris-11.4"},
		{"solaris", "5.11", "11.3", "solaris"},
		{"solaris", "5.11", "12.4", "solaris"},
	} {
		s, err := semantics.On(tt.goos, tt.release, tt.version)
		require.NoError(t, err, tt)
		assert.Equal(t, tt.want, s.Name(), tt)
	}
	_, err := semantics.On("zos", "", "")
	require.Error(t, err)
	for _, s := range semantics.Systems() {
		assert.ErrorContains(t, err, s.Name())
	}
}

// A binding that lacks a part, or has one that is out of range, has no answer.
func TestInvalidQuestions(t *testing.T) {
	t.Parallel()
	s, good := find(t, "linux"), parse(t, "0.0.0.0")
	for _, bad := range []semantics.Binding{
		{State: good.State, Addr: good.Addr}, {Proto: 3, State: good.State, Addr: good.Addr},
		{Proto: good.Proto, Addr: good.Addr}, {Proto: good.Proto, State: 99, Addr: good.Addr},
		{Proto: good.Proto, State: good.State},
	} {
		for _, is := range []semantics.Answer{s.Bind(bad, good), s.Bind(good, bad), s.AssignsPort(bad, good), s.AssignsPort(good, bad)} {
			assert.Equal(t, "unverified", is.String())
			assert.False(t, is.OK())
		}
		assert.Equal(t, semantics.Unknown, s.Traffic(good.Addr, []semantics.Binding{bad}).Evidence.Kind)
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

// Where the fields of package reuse hold: 1 for yes.
func TestPromises(t *testing.T) {
	t.Parallel()
	listeners := []string{
		"listening 127.0.0.1", "listening 0.0.0.0", "listening ::1", "listening ::", "listening dual",
		"udp 127.0.0.1", "udp 0.0.0.0", "udp ::1", "udp ::", "udp dual",
	}
	every := append(slices.Clone(listeners), "connected 127.0.0.1", "udp connected 127.0.0.1")
	digits := func(holds func(semantics.Binding) bool, sockets []string) (digits string) {
		for _, words := range sockets {
			digits += map[bool]string{false: "0", true: "1"}[holds(parse(t, words))]
		}
		return digits
	}
	for names, want := range map[string]struct{ balances, exclusive string }{
		"linux android":      {"1111111111", "101010000110"},
		"linux-3.8":          {"0000000000", "111111111111"},
		"freebsd freebsd-14": {"1111011110", "000000000000"},
		"openbsd netbsd":     {"0000000000", "101001010000"},
		"dragonfly":          {"1100011000", "000000000000"},
		"darwin ios":         {"0000000000", "101001010000"},
		"windows illumos":    {"0000000000", "111111111111"},
		"solaris-11.4":       {"1111111111", "111111111111"},
		"solaris":            {"0000000000", "111111111111"},
		"aix js plan9":       {"0000000000", "000000000000"},
	} {
		for name := range strings.FieldsSeq(names) {
			s := find(t, name)
			assert.Equal(t, want.balances, digits(s.Balances, listeners), name)
			assert.Equal(t, want.exclusive, digits(s.Exclusive, every), name)
		}
	}
}
