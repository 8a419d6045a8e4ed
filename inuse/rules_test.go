package inuse

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
)

// On every system, and alongside every kind of holder, the rules do not refuse what is sure
// to work, and refuse what never works. If the sockets cannot be read, the report is that
// of a socket on the same address.
func TestAdviceFollowsRulesOfEverySystem(t *testing.T) {
	t.Parallel()
	holders := []Holder{
		{Network: "tcp4", Local: netip.MustParseAddrPort("127.0.0.1:80"), State: listen, UID: 1},
		{Network: "tcp4", Local: netip.MustParseAddrPort("0.0.0.0:80"), State: listen, UID: 2},
		{Network: "tcp", Local: netip.MustParseAddrPort("[::]:80"), State: listen, UID: -1},
		{Network: "tcp4", Local: netip.MustParseAddrPort("127.0.0.1:80"), State: bound, UID: 1},
		{Network: "tcp4", Local: netip.MustParseAddrPort("127.0.0.1:80"), State: timeWait, UID: -1, orphan: true},
		{Network: "tcp4", Local: netip.MustParseAddrPort("127.0.0.1:80"), State: "ESTABLISHED", UID: 1},
		{Network: "udp4", Local: netip.MustParseAddrPort("127.0.0.1:80"), State: bound, UID: 1},
		{Network: "udp", Local: netip.MustParseAddrPort("[::]:80"), State: bound, UID: 2},
	}
	for _, system := range semantics.Systems() {
		for _, h := range holders {
			x := explainer{Report: &Report{Address: h.Local.String()}}
			x.suppose(&bind{target: h.target(), system: system, user: 1, listens: true, refused: true}, errors.ErrUnsupported, nil)
			assert.True(t, strings.HasPrefix(x.Reason, "A socket that overlaps "+x.Address+" refuses it. Which one cannot be seen: unsupported operation."), x.Reason)
			assert.Contains(t, x.Advice[len(x.Advice)-1], "shows the processes")
			for _, c := range []reuse.Config{{}, {Addr: reuse.Off}, {Port: reuse.Prefer}, {Addr: reuse.On}, {Exclusive: reuse.Prefer}} {
				at := target{proto: protoOf(h.Network), local: netip.MustParseAddrPort("127.0.0.1:80")}
				b := &bind{target: at, system: system, user: 1, listens: true, asked: c}
				list := b.classes([]Holder{h})
				advice, _ := b.advise(list)
				for _, a := range slices.Concat(x.Advice, advice) {
					assert.NotRegexp(t, `set ( |\.)|pid 0`, a, system.Name())
				}
				for _, c := range []reuse.Config{c, {}, {Port: reuse.On}, {Addr: reuse.On, Port: reuse.On}} {
					admitted, refused := false, false
					for _, g := range b.guesses(h) {
						a := b.answer(g, c)
						ok := a.OK() || a.Evidence.Kind == semantics.Unknown
						admitted, refused = admitted || ok, refused || !ok && !a.First
					}
					v := b.judge(list, c)
					assert.Equal(t, refused && !admitted, v.never, "%v %v %v", system, h, c)
					assert.False(t, refused && v.sure(), "%v %v %v", system, h, c)
				}
			}
		}
	}
}

// Holders come in an order that depends on nothing else.
func TestHoldersAreOrdered(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("[::1]:80")
	want := []Holder{
		{State: listen, Local: a, PID: 7}, {State: listen, Local: a, PID: 8}, {State: listen, Local: b},
		{State: bound, Local: a}, {State: connected, Local: a},
		{State: "ESTABLISHED", Local: a}, {State: "ESTABLISHED", Local: a, Remote: a}, {State: timeWait, Local: b},
	}
	list := slices.Clone(want)
	slices.Reverse(list)
	order(list)
	assert.Equal(t, want, list)
}

// A long list is cut.
func TestReportIsCut(t *testing.T) {
	t.Parallel()
	at := netip.MustParseAddrPort("127.0.0.1:80")
	r := &Report{Holders: []Holder{{State: listen, Local: at, UID: 0}}}
	for range 21 {
		r.Holders = append(r.Holders, Holder{State: timeWait, Local: at, Remote: at, UID: -1, orphan: true})
	}
	assert.Equal(t, "\nSTATE      LOCAL         REMOTE        UID  PID  COMMAND\n"+
		"LISTEN     127.0.0.1:80  -             0    ?    -\n"+
		strings.Repeat("TIME_WAIT  127.0.0.1:80  127.0.0.1:80  ?    -    -\n", 19)+"and 2 more\n", r.String())
	assert.Empty(t, new(Report).String())
}

// The options of a socket are those of package net, changed by a Config.
func TestOptionsOfBind(t *testing.T) {
	t.Parallel()
	tcp, udp := semantics.TCP, semantics.UDP
	for _, tt := range []struct {
		system        string
		p             semantics.Proto
		listens, many bool
		c             reuse.Config
		want          string
	}{
		{"linux", tcp, true, false, reuse.Config{}, "addr"},
		{"linux", tcp, false, false, reuse.Config{}, "-"},
		{"linux", udp, true, true, reuse.Config{}, "addr"},
		{"linux", tcp, true, false, reuse.Config{Addr: reuse.Off, PortLB: reuse.On}, "port"},
		{"linux", tcp, true, false, reuse.Config{Exclusive: reuse.On}, "addr"},
		{"linux", udp, true, true, reuse.Config{Exclusive: reuse.On}, "-"},
		{"windows", tcp, true, false, reuse.Config{Port: reuse.Prefer}, "-"},
		{"windows", udp, true, true, reuse.Config{Exclusive: reuse.On}, "excl"},
		{"freebsd", tcp, true, false, reuse.Config{PortLB: reuse.On}, "addr+lb"},
		{"openbsd", udp, true, true, reuse.Config{}, "addr+port"},
		{"openbsd", udp, true, true, reuse.Config{Exclusive: reuse.Prefer}, "-"},
		{"solaris-11.4", tcp, true, false, reuse.Config{PortLB: reuse.On}, "port"},
		{"illumos", tcp, true, false, reuse.Config{Exclusive: reuse.On, Port: reuse.Off}, "addr+excl"},
	} {
		system, err := semantics.Find(tt.system)
		require.NoError(t, err)
		b := &bind{target: target{proto: tt.p}, system: system, listens: tt.listens, multicast: tt.many}
		assert.Equal(t, tt.want, b.options(tt.c).String(), "%+v", tt)
	}
}
