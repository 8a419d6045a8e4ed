package inuse

import (
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkHolders asks for one port while the machine has 20,000 other sockets. The
// yardstick is what a program does that has only /proc: it reads the tables of all
// sockets, and the links of all processes.
func BenchmarkHolders(b *testing.B) {
	for i := range byte(4) {
		crowd := listener(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, i + 1}), 10000).String(), 0)
		crowd.Count, crowd.Spread = 5000, true
		crowd.start(b)
	}
	at, pid := listener("127.0.0.1:0", 0).start(b)
	b.Run("Holders, of a listener", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			list, err := Holders(b.Context(), "tcp4", at.String())
			require.NoError(b, err)
			require.Len(b, list, 1)
			require.Equal(b, pid, list[0].PID)
		}
	})
	b.Run("all of proc", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, name := range []string{"tcp", "tcp6"} {
				_, err := os.ReadFile("/proc/net/" + name)
				require.NoError(b, err)
			}
			processes, err := os.ReadDir("/proc")
			require.NoError(b, err)
			links := 0
			for _, p := range processes {
				fds, _ := os.ReadDir("/proc/" + p.Name() + "/fd")
				for _, fd := range fds {
					_, _ = os.Readlink("/proc/" + p.Name() + "/fd/" + fd.Name())
					links++
				}
			}
			require.Greater(b, links, 20000)
		}
	})
}
