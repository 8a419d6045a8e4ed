package reuse

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/implied"
	"example.com/reuse/internal/semantics"
)

// What is promised on each system is what the kernel's rules imply.
func TestPromisesFollowFromTheRules(t *testing.T) {
	t.Parallel()
	addrs := []semantics.Binding{ // in the order of the kinds
		{Addr: netip.MustParseAddr("127.0.0.1")},
		{Addr: netip.IPv4Unspecified()},
		{Addr: netip.IPv6Loopback()},
		{Addr: netip.IPv6Unspecified(), V6Only: true},
		{Addr: netip.IPv6Unspecified()},
	}
	for _, s := range semantics.Systems() {
		name := s.Name()
		switch name {
		case "linux-3.8", "windows-2000":
			continue // Go does not run there
		case "freebsd-14":
			name = "freebsd"
		}
		var lb, exclusive sockKinds
		for kind := tcp4; kind < dialedTCP; kind <<= 1 {
			b := addrs[0]
			addrs = append(addrs[1:], b)
			b.Proto, b.State = semantics.TCP, semantics.Listening
			if kind >= udp4 {
				b.Proto, b.State = semantics.UDP, semantics.Bound
			}
			if implied.Balances(s, b) {
				lb |= kind
			}
			if implied.Exclusive(s, b) {
				exclusive |= kind
			}
		}
		for kind, proto := range map[sockKinds]semantics.Proto{dialedTCP: semantics.TCP, dialedUDP: semantics.UDP} {
			connected := true
			for _, addr := range []netip.Addr{addrs[0].Addr, addrs[2].Addr} {
				connected = connected && implied.Exclusive(s, semantics.Binding{Proto: proto, State: semantics.Established, Dialed: true, Addr: addr})
			}
			if connected {
				exclusive |= kind
			}
		}
		assert.Equal(t, lb, portLBOn(name).holds, "PortLB, %s", s.Name())
		assert.Equal(t, exclusive, exclusiveOn(name).holds, "Exclusive, %s", s.Name())
		assert.Equal(t, lb != listeners, portLBOn(name).why != "", "%s: a reason exactly where it does not hold", name)
		assert.Equal(t, exclusive != everySocket, exclusiveOn(name).why != "", "%s: a reason exactly where it does not hold", name)
	}
	assert.Equal(t, promise{why: noOptions}, portLBOn("a system to come"))
	assert.Equal(t, promise{why: noOptions}, exclusiveOn("a system to come"))
}

// README says where an option holds for some sockets only, in the words of the error.
func TestReadmeSaysWhy(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the test binary runs alone")
	}
	require.NoError(t, err)
	for _, s := range semantics.Systems() {
		for _, p := range []promise{portLBOn(s.Name()), exclusiveOn(s.Name())} {
			if p.holds != 0 && p.why != "" {
				assert.Contains(t, string(text), p.why[1:], s.Name())
			}
		}
	}
}

func TestSolarisName(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"11.4.0.15.0": solaris114, "11.4": solaris114, "11.10": solaris114,
		"11.3": "solaris", "10": "solaris", "Generic_150400-61": "solaris", "illumos-3974": "solaris",
		"joyent_20240101T000000Z": "solaris", "omnios-r151050": "solaris", "12.4": "solaris", "": "solaris",
	} {
		assert.Equal(t, want, solarisName(version), version)
	}
}
