package servers

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/assert"

	"example.com/reuse/handover"
)

func serveHTTP3(ctx context.Context, p *handover.Process, conn net.PacketConn, srv *http3.Server) error {
	if err := p.Ready(ctx); err != nil { // before the first read
		return err
	}
	context.AfterFunc(left(ctx, p), func() { _ = srv.Close() }) // clients are told, and connect again
	if err := srv.Serve(conn); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return conn.Close()
}

// serveHTTP3Forward is the same with sessions that outlive the hand-over. Clients see GOAWAY.
func serveHTTP3Forward(ctx context.Context, p *handover.Process, s sockets) error {
	f, err := newForwarder(s.udp[0].(*net.UDPConn), os.Getenv(dirEnv))
	if err != nil {
		return err
	}
	if err := p.Ready(ctx); err != nil {
		return err
	}
	tr := &quic.Transport{Conn: f, ConnectionIDGenerator: f}
	l, err := tr.ListenEarly(http3.ConfigureTLSConfig(serverTLS()), nil)
	if err != nil {
		return err
	}
	srv := &http3.Server{Handler: hello()}
	go func() { _ = srv.ServeListener(l) }()
	select {
	case <-ctx.Done():
	case <-p.Replaced():
		if err := f.retire(); err != nil {
			return err
		}
		time.Sleep(handshakes) // those that have begun
	}
	end, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return errors.Join(srv.Shutdown(end), tr.Close(), f.Close())
}

func TestHTTP3(t *testing.T) {
	t.Parallel()
	for row, server := range map[string]string{"quic-go/http3": "http3", "http3 with forwarding": "http3forward"} {
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			s := start(t, server, dirEnv+"="+t.TempDir())
			var again atomic.Int64
			underLoad(t, s, row, func() func() error {
				client := &http.Client{Timeout: patience, Transport: &http3.Transport{TLSClientConfig: clientTLS()}}
				return func() (err error) {
					for range 3 { // a client whose session ends connects again
						if err = postOnce(client, "https://"+s.udp, "hello"); err == nil || errors.Is(err, errAnswer) {
							return err
						}
						again.Add(1)
					}
					return err
				}
			})
			t.Logf("%s: %d requests were sent again", row, again.Load())
			if server == "http3forward" {
				assert.Zero(t, again.Load())
			}
		})
	}
}
