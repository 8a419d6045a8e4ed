package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"example.com/reuse/handover"
)

func serveGRPC(ctx context.Context, p *handover.Process, l net.Listener, s *grpc.Server) error {
	if err := p.Ready(ctx); err != nil {
		return err
	}
	left(ctx, p)
	err := s.Serve(l)                  // net.ErrClosed
	time.Sleep(100 * time.Millisecond) // GracefulStop closes connections that have not begun
	time.AfterFunc(grace, s.Stop)
	s.GracefulStop() // sends GOAWAY, and waits for the calls
	return err
}

// newGRPC has the unary calls of a health server, and streams that echo.
func newGRPC() *grpc.Server {
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "echo", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{echoStream}}, nil)
	return s
}

var echoStream = grpc.StreamDesc{StreamName: "echo", ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
	for m := new(wrapperspb.StringValue); ; {
		if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}}

func dialGRPC(t *testing.T, address string) *grpc.ClientConn {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// check is a unary call.
func check(conn *grpc.ClientConn) error {
	ctx, cancel := patient()
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

// talk is a stream of 10 messages in 50 ms.
func talk(conn *grpc.ClientConn) error {
	ctx, cancel := patient()
	defer cancel()
	s, err := conn.NewStream(ctx, &echoStream, "/echo/echo")
	if err != nil {
		return err
	}
	for range 10 {
		m := wrapperspb.String("hello")
		if err := s.SendMsg(m); err != nil {
			return err
		}
		m.Value = ""
		if err := s.RecvMsg(m); err != nil {
			return err
		}
		if err := expect("hello")([]byte(m.Value), nil); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream ends with %w", err)
	}
	return nil
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		row, server string
		call        func(*grpc.ClientConn) error
		kept        bool
	}{
		{"grpc, unary calls", "grpc", check, true},
		{"grpc, unary calls, a connection for each", "grpc", check, false},
		{"grpc, streams of 50 ms", "grpc", talk, true},
		{"grpc, streams of 50 ms, a connection for each", "grpc", talk, false},
		{"cmux, grpc, unary calls", "cmux", check, true},
		{"cmux, grpc, unary calls, a connection for each", "cmux", check, false},
	} {
		t.Run(c.row, func(t *testing.T) {
			t.Parallel()
			s := start(t, c.server)
			s.each = 5
			underLoad(t, s, c.row, func() func() error {
				conn := dialGRPC(t, s.tcp)
				return func() error {
					if !c.kept {
						conn = dialGRPC(t, s.tcp)
						defer conn.Close()
					}
					return c.call(conn)
				}
			})
		})
	}
}

// A stream stays with its process, while calls of its client go to the next one.
func TestGRPCStream(t *testing.T) {
	t.Parallel()
	s := start(t, "grpc")
	conn := dialGRPC(t, s.tcp)
	ctx, cancel := patient()
	defer cancel()
	stream, err := conn.NewStream(ctx, &echoStream, "/echo/echo")
	require.NoError(t, err)
	say := func() {
		m := wrapperspb.String("hello")
		require.NoError(t, stream.SendMsg(m))
		m.Value = ""
		require.NoError(t, stream.RecvMsg(m))
		require.Equal(t, "hello", m.Value)
	}
	say()
	old := s.succeed()
	say()
	require.NoError(t, check(conn))
	require.NoError(t, stream.CloseSend())
	require.ErrorIs(t, stream.RecvMsg(new(wrapperspb.StringValue)), io.EOF)
	old.mustExit(t)
}
