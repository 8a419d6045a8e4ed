package measure_test

import (
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
)

// Any two binds, by bits that mean nothing to the rules: what these say is what the kernel
// does. TestRules has every pair once, in their order; here any comes after any other.
//
//	go test -fuzz FuzzModel ./internal/measure
func FuzzModel(f *testing.F) {
	switch runtime.GOOS {
	case "js", "wasip1", "plan9":
		f.Skip("there are no socket options to measure")
	}
	if onWine() {
		f.Skip("this is Wine, whose differences from Windows package semantics counts")
	}
	s, release := system(f)
	sets, addresses := s.Subsets(), measure.Addresses()
	for kind := range uint8(3) {
		for second := range addresses {
			f.Add(kind, uint8(second), uint8(second), uint8(len(sets)-1), uint8(len(sets)-1))
			f.Add(kind, uint8(0), uint8(second), uint8(1), uint8(0))
		}
	}
	f.Fuzz(func(t *testing.T, kind, first, second, a, b uint8) {
		p := []measure.Pair{
			{Proto: semantics.TCP, State: semantics.Bound},
			{Proto: semantics.TCP, State: semantics.Listening},
			{Proto: semantics.UDP, State: semantics.Bound},
		}[kind%3]
		p.First, p.Second = addresses[int(first)%len(addresses)], addresses[int(second)%len(addresses)]
		p.A, p.B = sets[int(a)%len(sets)], sets[int(b)%len(sets)]
		if list, _ := measure.Usable([]measure.Pair{p}); len(list) == 0 || deviates(runtime.GOOS, release, p) {
			return
		}
		want := measure.Outcome(s.Second(p.Bindings(os.Geteuid(), os.Geteuid())))
		open := descriptors(t)
		var got string
		for range 3 { // somebody may take the port
			var err error
			got, err = measure.Measure(t.Context(), p, measure.Here{})
			require.NoError(t, err, "%v", p)
			if got == want {
				break
			}
		}
		if want != "" {
			require.Equal(t, want, got, "%v on %v", p, s)
		}
		require.Equal(t, open, descriptors(t), "sockets that were left open")
	})
}
