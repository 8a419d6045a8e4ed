package inuse

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/shirou/gopsutil/v4/net"
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

// BenchmarkHolders asks for one port while the machine has 20,000 other sockets, in
// the ways there are. The yardstick is what a program does that has no better one: to
// read all sockets of the machine through /proc, with their processes, as gopsutil
// does. The least that any such way takes are the tables and the links.
func BenchmarkHolders(b *testing.B) {
	at, pid := openCrowd(b)
	b.Run("Holders", func(b *testing.B) {
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
			n := 0
			t := target{proto: 1, local: at}
			require.NoError(b, t.sockets(b.Context(), func(*socket) { n++ }))
			require.Equal(b, 1, n)
		}
	})
	b.Run("yardstick: all sockets with their processes, gopsutil", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			list, err := net.ConnectionsWithContext(b.Context(), "tcp")
			require.NoError(b, err)
			require.Greater(b, len(list), 20000)
		}
	})
	b.Run("all of proc: tables alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, name := range []string{"tcp", "tcp6"} {
				_, err := os.ReadFile("/proc/net/" + name)
				require.NoError(b, err)
			}
		}
	})
	b.Run("all of proc: links alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			links, err := filepath.Glob("/proc/[0-9]*/fd/*")
			require.NoError(b, err)
			for _, l := range links {
				_, _ = os.Readlink(l)
			}
		}
	})
}
