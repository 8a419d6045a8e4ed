package servers

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/soheilhy/cmux"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"

	"example.com/reuse/handover"
	"example.com/reuse/handover/handoverhttp"
)

func serveLimited(ctx context.Context, p *handover.Process, l net.Listener, srv *http.Server, n int) error {
	return handoverhttp.Serve(ctx, p, srv, grace, netutil.LimitListener(l, n))
}

func serveTLS(ctx context.Context, p *handover.Process, l net.Listener, srv *http.Server, c *tls.Config) error {
	return handoverhttp.Serve(ctx, p, srv, grace, tls.NewListener(l, c))
}

func serveProxied(ctx context.Context, p *handover.Process, l net.Listener, srv *http.Server) error {
	return handoverhttp.Serve(ctx, p, srv, grace, &proxyproto.Listener{Listener: l, ReadHeaderTimeout: 5 * time.Second})
}

// A lateListener reports its end a second late. At the end cmux closes the connections
// that no server has accepted yet.
type lateListener struct{ net.Listener }

func (l lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		time.Sleep(time.Second)
	}
	return c, err
}

func serveMux(ctx context.Context, p *handover.Process, l net.Listener, web *http.Server, s *grpc.Server) error {
	m := cmux.New(lateListener{l})
	calls := m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc"))
	rest := m.Match(cmux.Any())
	go func() { _ = m.Serve() }()
	var other sync.WaitGroup
	defer other.Wait()
	other.Go(func() { _ = serveGRPC(ctx, p, calls, s) }) // its error is one of cmux
	return handoverhttp.Serve(ctx, p, web, grace, rest)
}

// dialProxy makes a client one behind a proxy that tells its address.
func dialProxy(tr *http.Transport) {
	tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			_, err = fmt.Fprintf(c, "PROXY TCP4 192.0.2.1 %s 1234 80\r\n", c.RemoteAddr().(*net.TCPAddr).IP)
		}
		return c, err
	}
}
