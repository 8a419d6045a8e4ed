// Package servers runs servers that people use on package handover, in tests under load
// with restarts. Their recipes are in docs/servers.md. It also has a prototype that keeps
// QUIC sessions at a hand-over.
package servers

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// A tag names a process in the connection IDs that it issues. It is random, so a client,
// which chooses its first connection ID itself, hits one only by intent.
type tag [4]byte

// idLen is the length of a connection ID: a tag, and as much that is random.
const idLen = len(tag{}) + 8

// A forwarder is the UDP socket of one process, for the Conn and ConnectionIDGenerator of
// a quic.Transport. Processes that hold the socket forward datagrams to the one
// that issued the connection ID, at a Unix datagram socket named after the tag. All
// answer on the UDP socket.
//
// The current process reads the UDP socket. After retire a process reads its Unix socket.
type forwarder struct {
	*net.UDPConn
	batch   *ipv4.PacketConn
	dir     string // of the Unix sockets
	own     tag
	inbox   *net.UnixConn
	buf     []byte // of the reader, which is one goroutine of quic.Transport
	rest    []byte // of buf
	peers   map[tag]*peer
	retired atomic.Bool
	writers sync.WaitGroup

	forwarded, dropped atomic.Int64
}

// A peer is another process. Its queue keeps a slow one from delaying the reader.
type peer struct {
	conn  *net.UnixConn
	queue chan []byte
	gone  atomic.Bool
}

const (
	peerQueue  = 1024    // datagrams
	maxMessage = 1 << 15 // bytes; a message has several datagrams
)

func newForwarder(conn *net.UDPConn, dir string) (*forwarder, error) {
	f := &forwarder{UDPConn: conn, batch: ipv4.NewPacketConn(conn), dir: dir, buf: make([]byte, maxMessage), peers: map[tag]*peer{}}
	if _, err := rand.Read(f.own[:]); err != nil {
		return nil, err
	}
	var err error
	if f.inbox, err = net.ListenUnixgram("unixgram", f.address(f.own)); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *forwarder) address(t tag) *net.UnixAddr {
	return &net.UnixAddr{Name: filepath.Join(f.dir, hex.EncodeToString(t[:])), Net: "unixgram"}
}

// ConnectionIDLen is for quic.ConnectionIDGenerator.
func (f *forwarder) ConnectionIDLen() int { return idLen }

// GenerateConnectionID is for quic.ConnectionIDGenerator.
func (f *forwarder) GenerateConnectionID() (quic.ConnectionID, error) {
	id := append(make([]byte, 0, idLen), f.own[:]...)
	id = id[:idLen]
	_, err := rand.Read(id[len(f.own):])
	return quic.ConnectionIDFromBytes(id), err
}

// tagOf returns the tag in a datagram's first connection ID (RFC 9000, 17.2 and 17.3).
func tagOf(b []byte) (t tag, ok bool) {
	at := 1
	if len(b) > 0 && b[0]&0x80 != 0 { // a long header has the ID's length
		if at = 6; len(b) < at || int(b[5]) != idLen {
			return t, false
		}
	}
	if len(b) < at+idLen {
		return t, false
	}
	return tag(b[at:]), true
}

// retire ends the reading of the UDP socket. Sessions continue by what is forwarded.
func (f *forwarder) retire() error {
	f.retired.Store(true)
	return f.UDPConn.SetReadDeadline(time.Unix(1, 0))
}

// SetReadDeadline is how quic.Transport ends its reading.
func (f *forwarder) SetReadDeadline(t time.Time) error {
	if err := f.inbox.SetReadDeadline(t); err != nil || f.retired.Load() {
		return err
	}
	return f.UDPConn.SetReadDeadline(t)
}

// ReadBatch is how quic.Transport reads. It returns the datagrams for this process.
func (f *forwarder) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for !f.retired.Load() {
		n, err := f.batch.ReadBatch(ms, flags)
		if f.retired.Load() && err != nil {
			break
		} else if err != nil {
			return 0, err
		}
		kept := 0
		for i := range ms[:n] {
			if !f.forward(&ms[i]) {
				move(&ms[kept], &ms[i])
				kept++
			}
		}
		if kept > 0 {
			return kept, nil
		}
	}
	n := 0
	for n == 0 {
		if len(f.rest) == 0 {
			read, err := f.inbox.Read(f.buf)
			if err != nil {
				return 0, err
			}
			f.rest = f.buf[:read]
		}
		for n < len(ms) && len(f.rest) > 0 {
			var ok bool
			if f.rest, ok = unpack(f.rest, &ms[n]); ok {
				n++
			}
		}
	}
	return n, nil
}

// forward sends a datagram to the process that issued its connection ID. It returns false
// if that is this one, or none.
func (f *forwarder) forward(m *ipv4.Message) bool {
	t, ok := tagOf(m.Buffers[0][:m.N])
	if !ok || t == f.own {
		return false
	}
	p := f.peers[t]
	if p == nil {
		conn, err := net.DialUnix("unixgram", nil, f.address(t))
		if err != nil {
			return false
		}
		p = &peer{conn: conn, queue: make(chan []byte, peerQueue)}
		f.peers[t] = p
		f.writers.Go(func() {
			defer conn.Close()
			for b := range p.queue {
				for len(b) < maxMessage/2 && len(p.queue) > 0 { // this goroutine alone empties it
					b = append(b, <-p.queue...)
				}
				if _, err := conn.Write(b); err != nil { // it has exited
					p.gone.Store(true)
				}
			}
		})
	}
	if p.gone.Load() {
		close(p.queue)
		delete(f.peers, t)
		return false
	}
	select {
	case p.queue <- pack(m):
		f.forwarded.Add(1)
	default: // as a full socket buffer: QUIC sends it again
		f.dropped.Add(1)
	}
	return true
}

// Close ends what newForwarder began. The UDP socket stays open. The quic.Transport has
// ended before.
func (f *forwarder) Close() error {
	var err error
	for _, p := range f.peers {
		close(p.queue)
		err = errors.Join(err, p.conn.SetWriteDeadline(time.Now().Add(time.Second)))
	}
	f.writers.Wait()
	return errors.Join(err, f.inbox.Close(), os.Remove(f.address(f.own).Name))
}

// move copies a message. The buffers stay where they are, as quic.Transport has a list of
// them.
func move(to, from *ipv4.Message) {
	if to != from {
		to.Addr, to.NN, to.N = from.Addr, copy(to.OOB, from.OOB[:from.NN]), copy(to.Buffers[0], from.Buffers[0][:from.N])
	}
}

// pack writes a datagram with its source address and control messages, each after its
// length.
func pack(m *ipv4.Message) []byte {
	from, _ := m.Addr.(*net.UDPAddr).AddrPort().MarshalBinary() // never fails
	b := make([]byte, 0, 6+len(from)+m.NN+m.N)
	for _, field := range [][]byte{from, m.OOB[:m.NN], m.Buffers[0][:m.N]} {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
	}
	return b
}

// unpack is the inverse of pack. It returns what follows, or nothing if b is malformed.
func unpack(b []byte, m *ipv4.Message) (rest []byte, ok bool) {
	var fields [3][]byte
	for i := range fields {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return nil, false
		}
		n := 2 + binary.BigEndian.Uint16(b)
		fields[i], b = b[2:n], b[n:]
	}
	var from netip.AddrPort
	if from.UnmarshalBinary(fields[0]) != nil {
		return nil, false
	}
	m.Addr, m.NN, m.N = net.UDPAddrFromAddrPort(from), copy(m.OOB, fields[1]), copy(m.Buffers[0], fields[2])
	return b, true
}
