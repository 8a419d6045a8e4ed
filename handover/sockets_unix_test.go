//go:build unix

package handover

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
)

// A socket that was passed is checked as a new one is, and can be asked for again.
func TestOptionsOfPassedSocketAreChecked(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		old, next reuse.Config
		want      reuse.Option // of the error
		ok        bool
	}{
		"On is missing":           {reuse.Config{}, reuse.Config{Port: reuse.On}, reuse.Port, false},
		"Off is set":              {reuse.Config{Port: reuse.On}, reuse.Config{Port: reuse.Off}, reuse.Port, false},
		"nothing is asked for":    {reuse.Config{Port: reuse.On}, reuse.Config{}, 0, true},
		"Prefer":                  {reuse.Config{}, reuse.Config{Port: reuse.Prefer}, 0, true},
		"no Addr":                 {reuse.Config{}, reuse.Config{Addr: reuse.Off}, reuse.Addr, false}, // package net sets it
		"Exclusive":               {reuse.Config{Exclusive: reuse.On}, reuse.Config{Exclusive: reuse.On}, 0, true},
		"shared is not Exclusive": {reuse.Config{Port: reuse.On}, reuse.Config{Exclusive: reuse.On}, reuse.Exclusive, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := reuse.Port.Supported(); err != nil {
				t.Skip("no SO_REUSEPORT: ", err)
			}
			if err := reuse.Exclusive.Supported(); err != nil && tt.next.Exclusive == reuse.On {
				t.Skip("no Exclusive: ", err)
			}
			c := Config{Name: "web", Dir: folder(t)}
			require.NoError(t, os.Chmod(c.Dir, 0o755)) // a folder for this user is made in it
			old := begin(t, c)
			l := listen(t, old, tt.old, "tcp4", anyPort)
			ready(t, old)
			next := begin(t, c)
			l2, err := next.Listen(soon(t), tt.next, "tcp4", anyPort)
			if !tt.ok {
				var option *reuse.OptionError
				require.ErrorAs(t, err, &option)
				assert.Equal(t, tt.want, option.Option)
				var op *net.OpError
				require.ErrorAs(t, err, &op)
				l2, err = next.Listen(soon(t), tt.old, "tcp4", anyPort)
			}
			require.NoError(t, err)
			ready(t, next)
			assert.Equal(t, l.Addr(), l2.Addr())
			replaced(t, old)
			if tt.next.Exclusive == reuse.On && tt.ok {
				_, err := reuse.Config{Port: reuse.On}.Listen(soon(t), "tcp4", l2.Addr().String())
				assert.ErrorIs(t, err, unix.EADDRINUSE)
			}
		})
	}
}

// Each Listen of an address takes the next socket of it that was passed, and one more
// joins them. A process passes what it opens after Ready, and not what the caller has closed.
func TestListenTakesPassedSocketsInOrder(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		if err := reuse.PortLB.Supported(); err != nil {
			t.Skip("no PortLB: ", err)
		}
		open := func(p *Process, address string) net.Listener {
			return listen(t, p, reuse.Config{PortLB: reuse.On}, "tcp4", address)
		}
		old := begin(t, c)
		first := open(old, anyPort)
		address := first.Addr().String()
		closed, second := open(old, address), open(old, address)
		ready(t, old)
		third := open(old, address)
		require.NoError(t, closed.Close())
		next := begin(t, c)
		assert.Equal(t, inode(t, first), inode(t, open(next, anyPort))) // as it was asked for
		_, err := next.Listen(soon(t), reuse.Config{PortLB: reuse.Off}, "tcp4", address)
		require.Error(t, err, "the socket can be asked for again")
		assert.Equal(t, inode(t, second), inode(t, open(next, address)))
		assert.Equal(t, inode(t, third), inode(t, open(next, address)))
		ready(t, next)
		replaced(t, old)
		open(next, address)
		sockets := connect(t, c).receiveAll()
		require.Len(t, sockets, 4)
		assert.Equal(t, 4, sockets[3].ID)
	})
}

// An address is tried for a while if a process that may have held it has vanished, and
// otherwise not. The error names the place where no process was found.
func TestListenWaitsForAddressOfVanishedProcess(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		l, err := net.Listen("tcp4", anyPort)
		require.NoError(t, err)
		defer l.Close()
		p := begin(t, c)
		_, err = p.Listen(soon(t), reuse.Config{}, "tcp4", l.Addr().String())
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		require.ErrorContains(t, err, "no process that meets at "+c.meetingPlace())
		require.NoError(t, p.Close())

		r := claim(t, c)
		go func() {
			admit(t, r).die()
			r.close(true)
		}()
		tries := 0
		c.Control = func(string, string, syscall.RawConn) error {
			if tries++; tries == 4 { // package net may try twice, for Multipath TCP
				l.Close()
			}
			return nil
		}
		listen(t, begin(t, c), reuse.Config{}, "tcp4", l.Addr().String())
		assert.GreaterOrEqual(t, tries, 4)
	})
}

// Listen removes a Unix socket's file that refuses connections. One that does not is in
// use, as is a file of another kind.
func TestListenRemovesStaleFile(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		p := begin(t, c)
		for _, network := range []string{"unix", "unixgram"} {
			path := unixAddress(t)
			open := func(p *Process) (io.Closer, error) {
				if network == "unixgram" {
					return p.ListenPacket(soon(t), reuse.Config{}, network, path)
				}
				return p.Listen(soon(t), reuse.Config{}, network, path)
			}
			other, err := open(begin(t, Config{}))
			require.NoError(t, err)
			if l, ok := other.(*net.UnixListener); ok {
				l.SetUnlinkOnClose(false)
			}
			_, err = open(p)
			require.ErrorIs(t, err, syscall.EADDRINUSE, network)
			require.FileExists(t, path)
			require.NoError(t, other.Close())
			var l io.Closer
			require.Eventually(t, func() bool { // a process that another test starts has the socket until its exec
				l, err = open(p)
				return err == nil
			}, 10*time.Second, time.Millisecond, network)
			require.NoError(t, l.Close())
		}
		file := unixAddress(t)
		require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
		_, err := p.Listen(soon(t), reuse.Config{}, "unix", file)
		assert.ErrorIs(t, err, syscall.EADDRINUSE)
		assert.FileExists(t, file)
	})
}

// Process never closes a packet socket that the caller has.
func TestPacketSocketsArePassedAndNotClosed(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		gram := address{"unixgram", unixAddress(t)}
		open := func(p *Process, network, address string) net.PacketConn {
			pc, err := p.ListenPacket(soon(t), reuse.Config{}, network, address)
			require.NoError(t, err)
			t.Cleanup(func() { pc.Close() })
			return pc
		}
		old := begin(t, c)
		udp, unixgram := open(old, "udp4", anyPort), open(old, gram.network, gram.address)
		ready(t, old)
		client := dial(t, udp.LocalAddr())
		_, err := io.WriteString(client, "queued")
		require.NoError(t, err)
		next := begin(t, c)
		udp2, unixgram2 := open(next, "udp4", anyPort), open(next, gram.network, gram.address)
		assert.Equal(t, inode(t, udp), inode(t, udp2)) // with what is queued, and its options
		assert.IsType(t, &net.UDPConn{}, udp2)
		assert.IsType(t, &net.UnixConn{}, unixgram2)
		ready(t, next)
		replaced(t, old)
		_, err = udp.WriteTo([]byte("last answer"), client.LocalAddr())
		assert.NoError(t, err)
		require.NoError(t, unixgram.Close())
		b := make([]byte, 99)
		n, from, err := udp2.ReadFrom(b)
		require.NoError(t, err)
		assert.Equal(t, "queued", string(b[:n]))
		assert.Equal(t, client.LocalAddr().String(), from.String())
		require.NoError(t, next.Drain(soon(t)))
		_, err = udp2.WriteTo([]byte("x"), client.LocalAddr())
		assert.NoError(t, err)
		_, err = io.WriteString(dial(t, gram), "x")
		require.NoError(t, err)
		n, _, err = unixgram2.ReadFrom(b)
		require.NoError(t, err)
		assert.Equal(t, "x", string(b[:n]))
	})
}

// Sockets of a parent are used if they are what a new socket would be, stay as they are,
// and are passed on with the mark.
func TestFilesAreUsedAndPassedOn(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		var files []*os.File
		parent := func(network, address string) net.Listener {
			l, err := net.Listen(network, address)
			require.NoError(t, err)
			f, err := l.(interface{ File() (*os.File, error) }).File()
			require.NoError(t, err)
			t.Cleanup(func() { f.Close(); l.Close() })
			files = append(files, f)
			return l
		}
		lu, lw, unasked, l4 := parent("unix", unixAddress(t)), parent("tcp", ":0"), parent("tcp4", anyPort), parent("tcp4", anyPort)
		pc, err := net.ListenPacket("udp4", anyPort)
		require.NoError(t, err)
		defer pc.Close()
		fp, err := pc.(*net.UDPConn).File()
		require.NoError(t, err)
		defer fp.Close()
		port := ":" + strconv.Itoa(lw.Addr().(*net.TCPAddr).Port)
		c.Control = func(_, address string, _ syscall.RawConn) error { return fmt.Errorf("opened %s", address) }
		withFiles := c
		withFiles.Files = append([]*os.File{fp}, files...)
		p := begin(t, withFiles)
		opened := func(network, address, why string) {
			_, err := p.Listen(soon(t), reuse.Config{}, network, address)
			require.ErrorContains(t, err, "opened", why)
		}
		same := func(want net.Listener, p *Process, network, address string) net.Listener {
			got := listen(t, p, reuse.Config{}, network, address)
			assert.Equal(t, inode(t, want), inode(t, got))
			return got
		}
		got := same(l4, p, "tcp4", l4.Addr().String())
		same(lu, p, "unix", lu.Addr().String())
		if strings.HasPrefix(lw.Addr().String(), "[") {
			opened("tcp4", port, "it is dual-stack")
			opened("tcp6", port, "it is not for IPv6 only")
		}
		same(lw, p, "tcp", port)
		opened("tcp", port, "each is used once")
		packets, err := p.ListenPacket(soon(t), reuse.Config{}, "udp4", pc.LocalAddr().String())
		require.NoError(t, err)
		defer packets.Close()
		ready(t, p)
		for _, l := range []net.Listener{l4, lw, lu, unasked, got} {
			descriptor(t, l)
		}
		next := begin(t, c)
		same(l4, next, "tcp4", l4.Addr().String())
		ready(t, next) // those that it did not ask for are the parent's
		replaced(t, p)
		h := connect(t, c)
		sockets := h.receiveAll()
		require.Len(t, sockets, 1)
		assert.True(t, sockets[0].Files)
		h.die()
		detached(t, next)
		require.NoError(t, next.Drain(soon(t)))
		for _, l := range []net.Listener{l4, lu, unasked} { // neither hidden nor removed
			answerAll(l, "parent")
			answers(t, "parent", l.Addr())
		}
	})
}
