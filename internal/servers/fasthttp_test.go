package servers

import (
	"context"
	"net"
	"time"

	"github.com/valyala/fasthttp"

	"example.com/reuse/handover"
)

func serveFastHTTP(ctx context.Context, p *handover.Process, l net.Listener, h fasthttp.RequestHandler) error {
	if err := p.Ready(ctx); err != nil {
		return err
	}
	left := left(ctx, p)
	s := &fasthttp.Server{Handler: func(r *fasthttp.RequestCtx) {
		if h(r); left.Err() != nil {
			r.SetConnectionClose()
		}
	}}
	err := s.Serve(l) // nil when l is closed
	awaitLast(s)
	return err
}

// awaitLast waits for the connections of s, at most for grace. Serve has returned.
func awaitLast(s *fasthttp.Server) {
	end := time.Now().Add(grace)
	for s.GetOpenConnectionsCount() >= 0 && time.Now().Before(end) { // -1 is none: it counts Serve, which has returned
		time.Sleep(10 * time.Millisecond)
	}
}

func echoFast(r *fasthttp.RequestCtx) { r.SetBody(r.PostBody()) }
