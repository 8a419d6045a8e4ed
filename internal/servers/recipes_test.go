package servers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/handover"
)

// left returns a context that ends when a successor has the listeners of p, or when ctx has
// ended and p is drained. Serve then returns net.ErrClosed.
func left(ctx context.Context, p *handover.Process) context.Context {
	left, done := context.WithCancel(context.Background())
	go func() {
		defer done()
		select {
		case <-p.Replaced():
		case <-ctx.Done():
			_ = p.Drain(context.Background())
		}
	}()
	return left
}

var servers = map[string]server{
	"http": {tcp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveHTTP(ctx, p, s.tcp[0], hello())
	}},
	"https": {tcp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveHTTPS(ctx, p, s.tcp[0], hello(), certificate())
	}},
	"events": {tcp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveEvents(ctx, p, s.tcp[0], func(w http.ResponseWriter) error {
			_, err := fmt.Fprintf(w, "data: %d\n\n", os.Getpid())
			return err
		})
	}},
	"websocket": {tcp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveWebSocket(ctx, p, s.tcp[0], echoMessages)
	}},
	"limit": {tcp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveLimited(ctx, p, s.tcp[0], &http.Server{Handler: hello()}, clients)
	}},
	"limit1": {tcp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveLimited(ctx, p, s.tcp[0], &http.Server{Handler: hello()}, 1)
	}},
	"tls": {tcp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveTLS(ctx, p, s.tcp[0], &http.Server{Handler: hello()}, serverTLS())
	}},
	"proxyproto": {tcp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveProxied(ctx, p, s.tcp[0], &http.Server{Handler: hello()})
	}},
	"cmux": {tcp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveMux(ctx, p, s.tcp[0], &http.Server{Handler: hello()}, newGRPC())
	}},
	"fasthttp": {tcp: 1, options: reuse.Config{PortLB: reuse.On}, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveFastHTTP(ctx, p, s.tcp[0], echoFast)
	}},
	"grpc": {tcp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveGRPC(ctx, p, s.tcp[0], newGRPC())
	}},
	"dns": {tcp: 1, udp: 1, address: ":0", serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveDNS(ctx, p, s.tcp[0], s.udp, dns.HandlerFunc(answerDNS))
	}},
	"dns4": {tcp: 1, udp: 4, address: ":0", options: reuse.Config{PortLB: reuse.On}, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveDNS(ctx, p, s.tcp[0], s.udp, dns.HandlerFunc(answerDNS))
	}},
	"http3": {udp: 1, serve: func(ctx context.Context, p *handover.Process, s sockets) error {
		return serveHTTP3(ctx, p, s.udp[0], &http3.Server{Handler: hello(), TLSConfig: serverTLS()})
	}},
	"http3forward": {udp: 1, serve: serveHTTP3Forward},
	"quicforward":  {udp: 1, serve: serveForward},
	"quicplain":    {udp: 1, serve: servePlain},
}

// A recipe in docs/servers.md is code of this package, and short.
func TestPage(t *testing.T) {
	t.Parallel()
	var sources strings.Builder
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		sources.Write(text)
	}
	page, err := os.ReadFile("../../docs/servers.md")
	require.NoError(t, err)
	blocks := strings.Split(string(page), "\n```go\n")[1:]
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		b, _, _ = strings.Cut(b, "```\n")
		assert.LessOrEqual(t, strings.Count(b, "\n"), 15, b)
		assert.True(t, strings.Contains(sources.String(), "\n"+b), "no test runs this code:\n%s", b)
	}
}
