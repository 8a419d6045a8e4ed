package reuse_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"example.com/reuse/internal/testproc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The receivers of Example_mdns get what is sent to their group, both of them. Its
// port may be somebody's here who does not share, so theirs is any.
func TestMDNSReceivers(t *testing.T) {
	t.Parallel()
	loopback := netip.MustParseAddr("127.0.0.1")
	to := netip.MustParseAddrPort("224.0.0.251:0")
	var receivers []*net.UDPConn
	for range 2 {
		c, err := listenMulticast(to, loopback)
		if testproc.OnGVisor() {
			require.ErrorIs(t, err, errors.ErrUnsupported)
			t.Skipf("port 0 is not shared: %v", err)
		}
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		receivers = append(receivers, c)
		to = netip.AddrPortFrom(to.Addr(), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	}

	// The source address is what Linux chooses the interface by.
	sender, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, net.UDPAddrFromAddrPort(to))
	require.NoError(t, err)
	defer sender.Close()
	_, err = sender.Write([]byte("query"))
	require.NoError(t, err)
	for _, c := range receivers {
		b := make([]byte, 100)
		n, from, err := c.ReadFromUDPAddrPort(b)
		require.NoError(t, err)
		assert.Equal(t, "query", string(b[:n]))
		assert.Equal(t, sender.LocalAddr().(*net.UDPAddr).AddrPort(), from)
	}
}
