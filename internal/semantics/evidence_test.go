package semantics_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

// Restarts were measured for connections that a listener on a specific IPv4 address
// had accepted, and a new one there or on the wildcard; nothing else is called so.
func TestRestartEvidence(t *testing.T) {
	t.Parallel()
	type change func(a, b *semantics.Binding)
	at := netip.MustParseAddr
	for _, tt := range []struct {
		name            string
		change          change
		freebsd, netbsd bool // measured there
	}{
		{"the same address", func(_, _ *semantics.Binding) {}, true, true},
		{"the wildcard", func(_, b *semantics.Binding) { b.Addr = at("0.0.0.0") }, true, true},
		{"another address", func(_, b *semantics.Binding) { b.Addr = at("192.0.2.2") }, false, false},
		{"TIME_WAIT", func(a, _ *semantics.Binding) { a.State = semantics.TimeWait }, true, true},
		{"FIN_WAIT_2", func(a, _ *semantics.Binding) { a.State = semantics.FinWait2 }, false, true},
		{"CLOSE_WAIT", func(a, _ *semantics.Binding) { a.State = semantics.CloseWait }, false, false},
		{"dialed", func(a, _ *semantics.Binding) { a.Dialed = true }, false, false},
		{"another user", func(_, b *semantics.Binding) { b.User++ }, true, false},
		{"IPv6", func(a, b *semantics.Binding) { a.Addr, b.Addr = at("::1"), at("::1") }, false, false},
		{"mapped, the old one", func(a, _ *semantics.Binding) { a.Addr = at("::ffff:192.0.2.1") }, false, false},
		{"mapped, the new one", func(_, b *semantics.Binding) { b.Addr = at("::ffff:192.0.2.1") }, false, false},
	} {
		for system, measured := range map[string]bool{"freebsd-14": tt.freebsd, "netbsd": tt.netbsd} {
			s, err := semantics.Find(system)
			require.NoError(t, err)
			a := semantics.Binding{Proto: semantics.TCP, State: semantics.Established, Addr: at("192.0.2.1"), User: 1000}
			b := semantics.Binding{Proto: semantics.TCP, State: semantics.Listening, Addr: at("192.0.2.1"), User: 1000}
			tt.change(&a, &b)
			answer := s.Second(a, b)
			assert.Equal(t, measured, answer.Known.How == semantics.Measured, "%s, %s: %v", system, tt.name, answer.Known)
		}
	}
}

// On which kernels of Linux a pair was measured.
func TestLinuxEvidence(t *testing.T) {
	t.Parallel()
	s, err := semantics.Find("linux")
	require.NoError(t, err)
	const all, latest, deviates, source = "5.10.223, 6.1.170, 6.1.192, 6.12.117, 6.18.44", "6.18.44", "admit it", "inet_csk_bind_conflict"
	for _, tt := range []struct {
		proto         semantics.Proto
		first, second string
		want          string
	}{
		{semantics.UDP, "192.0.2.1", "192.0.2.1", all},
		{semantics.UDP, "192.0.2.1", "192.0.2.2", all},
		{semantics.UDP, "192.0.2.1", "224.1.2.3", all},
		{semantics.UDP, "224.1.2.3", "192.0.2.1", all},
		{semantics.UDP, "224.1.2.3", "224.1.2.3", all},
		{semantics.UDP, "224.1.2.3", "0.0.0.0", all},
		{semantics.UDP, "0.0.0.0", "224.1.2.3", all},
		{semantics.UDP, "224.1.2.3", "224.1.2.4", latest},
		{semantics.TCP, "224.1.2.3", "224.1.2.4", source},
		{semantics.TCP, "224.1.2.3", "224.1.2.3", all},
		{semantics.TCP, "192.0.2.1", "224.1.2.3", all},
		{semantics.TCP, "224.1.2.3", "192.0.2.1", all},
		{semantics.TCP, "::1", "::2", source},
		{semantics.TCP, "::1", "192.0.2.1", all},
		{semantics.TCP, "::ffff:0.0.0.0", "::ffff:127.0.0.1", deviates},
		{semantics.TCP, "::ffff:127.0.0.1", "::ffff:127.0.0.1", all},
		{semantics.TCP, "::ffff:0.0.0.0", "::ffff:0.0.0.0", all},
		{semantics.UDP, "::ffff:0.0.0.0", "::ffff:127.0.0.1", all},
		{semantics.TCP, "0.0.0.0", "::ffff:127.0.0.1", all},
	} {
		a := semantics.Binding{Proto: tt.proto, State: semantics.Bound, Addr: netip.MustParseAddr(tt.first), User: 1000}
		b := semantics.Binding{Proto: tt.proto, State: semantics.Bound, Addr: netip.MustParseAddr(tt.second), User: 1000}
		known := s.Second(a, b).Known
		if tt.want == all || tt.want == latest {
			assert.Equal(t, semantics.Known{How: semantics.Measured, Where: tt.want}, known, "%v %s, %s", tt.proto, tt.first, tt.second)
		} else {
			assert.True(t, strings.Contains(known.Where, tt.want), "%v %s, %s: %v", tt.proto, tt.first, tt.second, known)
		}
	}
}

// A listener on ::1 whose IPV6_V6ONLY is off, as package net opens it, takes no IPv4.
func TestSpecificIPv6IsNotBoth(t *testing.T) {
	t.Parallel()
	s, err := semantics.Find("linux")
	require.NoError(t, err)
	a := semantics.Binding{Proto: semantics.TCP, State: semantics.Listening, Addr: netip.IPv6Loopback(), User: 1000}
	b := semantics.Binding{Proto: semantics.TCP, State: semantics.Listening, Addr: netip.IPv4Unspecified(), User: 1000}
	assert.True(t, s.Second(a, b).OK())
}
