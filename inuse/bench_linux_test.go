package inuse

import (
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/testproc"
)

// openCrowd opens 20,000 sockets in four processes, and one more that is asked for.
func openCrowd(b testing.TB) (at netip.AddrPort, pid int) {
	b.Helper()
	var crowds []*testproc.Process
	for i := range 4 {
		crowds = append(crowds, testproc.Start(b, "crowd", "5000", strconv.Itoa(i+1)))
	}
	for _, c := range crowds {
		require.Equal(b, "open", c.Receive())
	}
	at, pid = spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true, UID: os.Getuid()}.start(b)
	return at, pid
}

// BenchmarkHolders asks for one port while the machine has 20,000 other sockets. The
// yardstick is what a program does that has only /proc: it reads the tables of all
// sockets, and the links of all processes.
func BenchmarkHolders(b *testing.B) {
	at, pid := openCrowd(b)
	b.Run("Holders, of a listener", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			list, err := Holders(b.Context(), "tcp4", at.String())
			require.NoError(b, err)
			require.Len(b, list, 1)
			require.Equal(b, pid, list[0].PID)
		}
	})
	b.Run("Holders, of a crowd's last socket", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() { // which is behind all of its descriptors
			list, err := Holders(b.Context(), "tcp4", "127.0.1.4:14999")
			require.NoError(b, err)
			require.Len(b, list, 1)
			require.NotZero(b, list[0].PID)
		}
	})
	b.Run("sock_diag alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			list, told, err := target{proto: 1, local: at}.sockets(b.Context())
			require.NoError(b, err)
			require.Len(b, list, 1)
			require.True(b, told)
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
