package group_test

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/group"
	"example.com/reuse/internal/testproc"
)

// Handshakes that take 200 ms finish where they began, with 300 clients and one
// restart after the other, also if the kernel waits for data.
func TestSlowHandshakes(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	distant(t, 100*time.Millisecond)
	for _, deferred := range []bool{false, true} {
		open := func() *generation {
			s := start(t, 2, "tcp4", "10.9.0.1:7000")
			if deferred {
				for _, l := range s.g.Listeners() {
					deferAccept(t, l)
				}
			}
			return s
		}
		s := open()
		stop := load("10.9.0.2:7000", 300)
		for range 5 {
			next := open()
			require.NoError(t, next.g.TakeOver(t.Context(), 0))
			require.NoError(t, s.g.Drain(t.Context()))
			require.NoError(t, <-s.done)
			require.NoError(t, group.Settled(t.Context(), next.g))
			s = next
		}
		answered, lost := stop()
		assert.NotZero(t, answered)
		assert.Empty(t, lost)
		t.Log(answered, "answered")
		require.NoError(t, s.g.Close())
		require.NoError(t, <-s.done)
	}
}

func deferAccept(t *testing.T, l net.Listener) {
	rc, err := l.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1)
	}))
	require.NoError(t, err)
}

// distant makes 10.9.0.2 another name of this host's 10.9.0.1, which is some time
// away in each direction. A tun device gets the packets; with source and destination
// exchanged, which leaves the checksums as they are, they come back.
func distant(t *testing.T, delay time.Duration) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		t.Skip("no tun device for this user: ", err)
	}
	require.NoError(t, err)
	const name = "distant"
	request := func() *unix.Ifreq {
		r, err := unix.NewIfreq(name)
		require.NoError(t, err)
		return r
	}
	r := request()
	r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	if errors.Is(err, os.ErrPermission) {
		unix.Close(fd)
		t.Skip("no tun device for this user: ", err)
	}
	require.NoError(t, err)
	tun := os.NewFile(uintptr(fd), name)

	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(s)
	for _, set := range []struct {
		what uint
		ip   []byte
	}{
		{unix.SIOCSIFADDR, []byte{10, 9, 0, 1}},
		{unix.SIOCSIFNETMASK, []byte{255, 255, 255, 0}},
	} {
		r := request()
		require.NoError(t, r.SetInet4Addr(set.ip))
		require.NoError(t, unix.IoctlIfreq(s, set.what, r))
	}
	r = request()
	r.SetUint32(10_000) // packets may wait
	require.NoError(t, unix.IoctlIfreq(s, unix.SIOCSIFTXQLEN, r))
	r = request()
	r.SetUint16(unix.IFF_UP)
	require.NoError(t, unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r))

	type packet struct {
		due  time.Time
		data []byte
	}
	under := make(chan packet, 1<<16)
	var relays sync.WaitGroup
	relays.Go(func() {
		defer close(under)
		buf := make([]byte, 1<<16)
		for {
			n, err := tun.Read(buf)
			if err != nil {
				return
			}
			if n < 20 || buf[0]>>4 != 4 {
				continue
			}
			p := append([]byte(nil), buf[:n]...)
			copy(p[12:16], buf[16:20])
			copy(p[16:20], buf[12:16])
			under <- packet{time.Now().Add(delay), p}
		}
	})
	relays.Go(func() {
		timer := time.NewTimer(0)
		<-timer.C
		for p := range under {
			timer.Reset(time.Until(p.due))
			<-timer.C
			_, _ = tun.Write(p.data)
		}
	})
	t.Cleanup(func() {
		tun.Close()
		relays.Wait()
	})
}
