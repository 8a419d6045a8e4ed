package servers

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/handover"
)

// dirEnv is the folder of a forwarder's Unix sockets.
const dirEnv = "REUSE_SERVER_DIR"

// serveForward is a QUIC server whose sessions outlive a hand-over.
func serveForward(ctx context.Context, p *handover.Process, s sockets) error {
	f, err := newForwarder(s.udp[0].(*net.UDPConn), os.Getenv(dirEnv))
	if err != nil {
		return err
	}
	tr := &quic.Transport{Conn: f, ConnectionIDGenerator: f}
	return errors.Join(serveQUIC(ctx, p, tr, f.retire), tr.Close(), f.Close())
}

// servePlain is the same without forwarding, for comparison.
func servePlain(ctx context.Context, p *handover.Process, s sockets) error {
	tr := &quic.Transport{Conn: s.udp[0]}
	return errors.Join(serveQUIC(ctx, p, tr, func() error { return nil }), tr.Close())
}

// serveQUIC echoes each stream. After a hand-over it waits for the sessions to end.
func serveQUIC(ctx context.Context, p *handover.Process, tr *quic.Transport, retire func() error) error {
	if err := p.Ready(ctx); err != nil {
		return err
	}
	l, err := tr.Listen(serverTLS("echo"), &quic.Config{MaxIdleTimeout: patience, KeepAlivePeriod: time.Second})
	if err != nil {
		return err
	}
	var sessions sync.WaitGroup
	accepting, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		select {
		case <-ctx.Done():
		case <-p.Replaced():
			_ = retire() // an error says that the socket is closed
			time.Sleep(handshakes)
		}
		stop()
	}()
	for {
		conn, err := l.Accept(accepting)
		if err != nil {
			break
		}
		sessions.Go(func() { echoStreams(conn) })
	}
	sessions.Wait()
	return nil
}

// handshakes is how long a process that is replaced waits for handshakes that it has begun.
const handshakes = 500 * time.Millisecond

func echoStreams(conn *quic.Conn) {
	for {
		s, err := conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go func() {
			defer s.Close()
			b := make([]byte, 1)
			if _, err := io.ReadFull(s, b); err != nil {
				return
			}
			switch b[0] { // an error is the client's
			case 'e': // echo
				_, _ = io.Copy(s, s)
			case 'u': // upload
				_, _ = io.Copy(io.Discard, s)
			case 'd': // download
				_, _ = s.Write(make([]byte, transfer))
			}
		}()
	}
}

const transfer = 32 << 20

func dialQUIC(address string) (*quic.Conn, error) {
	ctx, cancel := patient()
	defer cancel()
	return quic.DialAddr(ctx, address, clientTLS("echo"), &quic.Config{MaxIdleTimeout: patience})
}

func hangUp(conn *quic.Conn) { _ = conn.CloseWithError(0, "") } // an error says that it has ended

// exchange sends b on a new stream, and returns the answer.
func exchange(conn *quic.Conn, b []byte) ([]byte, error) {
	ctx, cancel := patient()
	defer cancel()
	s, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := s.Write(b); err != nil {
		return nil, err
	}
	s.Close()
	return io.ReadAll(s)
}

// Sessions outlive hand-overs: those of the load one, and one of them all.
func TestQUICForward(t *testing.T) {
	t.Parallel()
	s := start(t, "quicforward", dirEnv+"="+t.TempDir())
	conn, err := dialQUIC(s.udp)
	require.NoError(t, err)
	first := s.succeed()
	s.each = 5
	underLoad(t, s, "quic-go sessions of 20 streams, with forwarding", func() func() error {
		return func() error {
			conn, err := dialQUIC(s.udp)
			if err != nil {
				return err
			}
			defer hangUp(conn)
			for range 20 {
				if err := expect("hello")(exchange(conn, []byte("ehello"))); err != nil {
					return err
				}
			}
			return nil
		}
	})
	assert.NoError(t, expect("hello")(exchange(conn, []byte("ehello"))))
	select {
	case <-first.exited:
		t.Error("the first process has exited with a session")
	default:
	}
	hangUp(conn)
	first.mustExit(t)
}

// BenchmarkQUICForward compares a session of a plain server with one of a server that tags
// its connection IDs, before and after a hand-over. The servers take turns.
func BenchmarkQUICForward(b *testing.B) {
	kinds := []string{"plain", "tagged", "forwarded"}
	measures := []struct {
		name  string
		times int
		send  []byte
	}{
		{"upload", 1, append([]byte("u"), make([]byte, transfer)...)},
		{"download", 1, []byte("d")},
		{"1000 short streams", 1000, []byte("ehello")},
	}
	took := map[string][]float64{}
	sent, lost := map[string]uint64{}, map[string]uint64{} // packets of the client
	for b.Loop() {
		for _, kind := range kinds {
			s := start(b, map[bool]string{true: "quicplain", false: "quicforward"}[kind == "plain"], dirEnv+"="+b.TempDir())
			conn, err := dialQUIC(s.udp)
			require.NoError(b, err)
			if kind == "forwarded" {
				s.succeed()
			}
			for _, m := range measures {
				begin := time.Now()
				for range m.times {
					_, err := exchange(conn, m.send)
					require.NoError(b, err)
				}
				took[kind+m.name] = append(took[kind+m.name], time.Since(begin).Seconds())
			}
			stats := conn.ConnectionStats()
			sent[kind] += stats.PacketsSent
			lost[kind] += stats.PacketsLost
			hangUp(conn)
		}
	}
	for _, kind := range kinds {
		b.Logf("%s: the client sent %d of %d packets again", kind, lost[kind], sent[kind])
		if kind == "plain" {
			continue
		}
		for _, m := range measures {
			var ratios []float64
			for i, plain := range took["plain"+m.name] {
				ratios = append(ratios, plain/took[kind+m.name][i])
			}
			slices.Sort(ratios)
			b.Logf("%s, %s: speed %.2f (%.2f to %.2f) of the plain server, %d rounds", kind, m.name, ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1], len(ratios))
		}
	}
}
