package semantics_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"example.com/reuse/internal/semantics"
)

const everywhere = semantics.Listens | semantics.Dialed

// What is promised where, for every system that Go builds for.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		system            string
		portLB, exclusive semantics.Places
	}{
		{"aix", semantics.Nowhere, semantics.Nowhere},
		{"android", semantics.Listens, everywhere},
		{"darwin", semantics.Nowhere, semantics.Specific},
		{"dragonfly", semantics.IPv4 | semantics.IPv4Any, semantics.Nowhere},
		{"freebsd", semantics.IPv4 | semantics.IPv4Any | semantics.IPv6 | semantics.IPv6Any, semantics.Nowhere},
		{"illumos", semantics.Nowhere, everywhere},
		{"ios", semantics.Nowhere, semantics.Specific},
		{"js", semantics.Nowhere, semantics.Nowhere},
		{"linux", semantics.Listens, everywhere},
		{"netbsd", semantics.Nowhere, semantics.Specific},
		{"openbsd", semantics.Nowhere, semantics.Specific},
		{"plan9", semantics.Nowhere, semantics.Nowhere},
		{"solaris", semantics.Nowhere, everywhere},
		{semantics.Solaris114, semantics.Listens, everywhere},
		{"wasip1", semantics.Nowhere, semantics.Nowhere},
		{"windows", semantics.Nowhere, everywhere},
		{"a system to come", semantics.Nowhere, semantics.Nowhere},
	} {
		for _, v := range []struct {
			name string
			got  semantics.Verdict
			want semantics.Places
			all  semantics.Places // where it could be asked for
		}{
			{"PortLB", semantics.PortLB(tt.system), tt.portLB, semantics.Listens},
			{"Exclusive", semantics.Exclusive(tt.system), tt.exclusive, everywhere},
		} {
			assert.Equal(t, v.want, v.got.Holds, "%s on %s", v.name, tt.system)
			assert.Equal(t, v.want != v.all, v.got.Why != "", "%s on %s: a reason exactly where it does not hold", v.name, tt.system)
		}
	}
}

func TestSolaris(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"11.4.0.15.0": semantics.Solaris114, "11.4": semantics.Solaris114, "11.10": semantics.Solaris114,
		"11.3": "solaris", "10": "solaris", "Generic_150400-61": "solaris", "illumos-3974": "solaris",
		"joyent_20240101T000000Z": "solaris", "omnios-r151050": "solaris", "12.4": "solaris", "": "solaris",
	} {
		assert.Equal(t, want, semantics.Solaris(version), version)
	}
}
