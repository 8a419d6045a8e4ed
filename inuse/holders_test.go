package inuse

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
)

// On every system that shows sockets an own listener is found, and named if the
// system tells processes. On the others that is said.
func TestOwn(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	list, err := Holders(t.Context(), "tcp4", at.String())
	if errors.Is(err, errors.ErrUnsupported) {
		assert.Empty(t, list)
	} else {
		require.NoError(t, err)
		require.Len(t, list, 1)
		assert.Equal(t, []any{"tcp4", at, listen}, []any{list[0].Network, list[0].Local, list[0].State})
		assert.Contains(t, []int{os.Getpid(), 0}, list[0].PID)
	}

	other, listenErr := net.Listen("tcp4", at.String())
	if listenErr == nil { // js: nothing is refused
		other.Close()
		return
	}
	if failureOf(listenErr) != inUse {
		t.Skipf("no errno here: %v", listenErr)
	}
	r, err := Explain(t.Context(), reuse.Config{}, listenErr)
	require.NoError(t, err)
	assert.Equal(t, list, r.Holders)
	assert.Contains(t, r.Reason, at.String())
	assert.NotEmpty(t, r.Advice)
}

// For every system, whatever holds an address, what is said to work is not refused by
// that system's rules, and what is said to be of no use is.
func TestEverySystem(t *testing.T) {
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
			for _, c := range []reuse.Config{{}, {Addr: reuse.Off}, {Port: reuse.Prefer}, {Addr: reuse.On}, {Exclusive: reuse.Prefer}} {
				at := target{proto: h.proto(), local: netip.MustParseAddrPort("127.0.0.1:80")}
				b := &bind{target: at, system: system, user: 1, listens: true, asked: c}
				list := b.classes([]Holder{h})
				advice, verdicts := b.advise(list)
				for _, a := range advice {
					assert.NotContains(t, a, "set  ", system.Name())
					assert.NotContains(t, a, "if pid 0", system.Name())
				}
				for _, v := range verdicts {
					var good, bad, unknown int
					for _, g := range b.guesses(h) {
						switch a := b.answer(g, v.config); {
						case a.Known.How == semantics.Unknown:
							unknown++
						case a.Err == "":
							good++
						case !a.First:
							bad++
						}
					}
					assert.Equal(t, v.never, good+unknown == 0 && bad > 0, "%v %v %v", system, h, v.config)
					if len(advice) == 1 && strings.HasPrefix(advice[0], literal(v.config)+" works.") {
						assert.Zero(t, bad+unknown, "%v %v %v", system, h, v.config)
					}
				}
			}
		}
	}
}

// Where the sockets cannot be read a refusal is explained by the rule, as of a socket on the
// same address, on every system.
func TestSuppose(t *testing.T) {
	t.Parallel()
	for _, system := range semantics.Systems() {
		for _, p := range []semantics.Proto{semantics.TCP, semantics.UDP} {
			for _, host := range []string{"127.0.0.1", "::", "::1"} {
				b := &bind{
					target: target{proto: p, local: netip.AddrPortFrom(netip.MustParseAddr(host), 80)},
					system: system, user: 1, listens: true, refused: true,
				}
				x := explainer{Report: &Report{Address: b.local.String()}}
				x.suppose(b, errors.ErrUnsupported, nil)
				assert.True(t, strings.HasPrefix(x.Reason, "A socket that overlaps "+b.local.String()+" refuses it. Which one cannot be seen: unsupported operation."), x.Reason)
				require.NotEmpty(t, x.Advice)
				assert.Contains(t, x.Advice[len(x.Advice)-1], "shows the processes")
				for _, a := range x.Advice {
					assert.NotContains(t, a, "pid 0")
					assert.NotRegexp(t, `set ( |\.)`, a)
				}
				if system.Name() == "linux" {
					assert.Contains(t, x.Reason, " Linux refuses ")
					assert.Equal(t, "reuse.Config{Port: reuse.On} works if the process on "+b.local.String()+" set SO_REUSEPORT and belongs to your user.", x.Advice[0])
				}
			}
		}
	}
}

// Holders come in an order that depends on nothing else.
func TestOrder(t *testing.T) {
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
func TestReportString(t *testing.T) {
	t.Parallel()
	at := netip.MustParseAddrPort("127.0.0.1:80")
	r := &Report{Network: "tcp4", Address: at.String(), Reason: strings.Repeat("word ", 30), Advice: []string{strings.Repeat("more ", 20), "b"}}
	for range 22 {
		r.Holders = append(r.Holders, Holder{State: timeWait, Local: at, Remote: at, UID: -1, orphan: true})
	}
	r.Holders[0] = Holder{State: listen, Local: at, UID: 0}
	r.Holders[1] = Holder{State: listen, Local: at, UID: 33, PID: 4211, Command: "nginx"}
	line := "TIME_WAIT  127.0.0.1:80  127.0.0.1:80  ?    -     -\n"
	assert.Equal(t, "tcp4 127.0.0.1:80\n\n"+
		"STATE      LOCAL         REMOTE        UID  PID   COMMAND\n"+
		"LISTEN     127.0.0.1:80  -             0    ?     -\n"+
		"LISTEN     127.0.0.1:80  -             33   4211  nginx\n"+
		strings.Repeat(line, 18)+"and 2 more\n\n"+
		strings.Repeat("word ", 30)+"\n\n"+
		"- "+strings.Repeat("more ", 20)+"\n- b\n", r.String())
	assert.Empty(t, new(Report).String())
}

// Which options a socket has before package reuse and after.
func TestBindOptions(t *testing.T) {
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
		{"linux", udp, true, false, reuse.Config{}, "-"},
		{"linux", udp, true, true, reuse.Config{}, "addr"},
		{"linux", tcp, true, false, reuse.Config{Addr: reuse.Off, PortLB: reuse.On}, "port"},
		{"linux", tcp, true, false, reuse.Config{Exclusive: reuse.On}, "addr"},
		{"linux", udp, true, true, reuse.Config{Exclusive: reuse.On}, "-"},
		{"windows", tcp, true, false, reuse.Config{}, "-"},
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

// Of whom a leftover is matters until the kernel has forgotten it.
func TestUnknownUser(t *testing.T) {
	t.Parallel()
	system, err := semantics.Find("linux")
	require.NoError(t, err)
	at := netip.MustParseAddrPort("127.0.0.1:80")
	for state, want := range map[string]string{
		"FIN_WAIT1": "set SO_REUSEPORT and belongs to your user",
		finWait2:    "set SO_REUSEPORT",
		timeWait:    "set SO_REUSEPORT",
	} {
		b := &bind{target: target{proto: semantics.TCP, local: at}, system: system, user: 1, listens: true}
		list := b.classes([]Holder{{Network: "tcp4", Local: at, State: state, UID: -1, orphan: true}})
		v := b.judge(list, reuse.Config{Addr: reuse.Off, Port: reuse.On})
		require.Len(t, v.depends, 1)
		assert.Equal(t, "the socket that left "+state+" behind "+want, v.depends[0])
	}
}
