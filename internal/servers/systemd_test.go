package servers

import (
	"context"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/handover"
	"example.com/reuse/handover/handoverhttp"
)

func serveActivated(ctx context.Context, name, address string, h http.Handler) error {
	p, err := handover.Config{Name: name, Files: activation.Files(true)}.Start(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := p.Listen(ctx, reuse.Config{}, "tcp", address) // systemd's, or the previous process's
	if err != nil {
		return err
	}
	return handoverhttp.Serve(ctx, p, &http.Server{Handler: h}, grace, l)
}

// This process is systemd: it has the socket, and passes it to the first process only.
func TestSystemd(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	defer file.Close()
	s := newService(t, "systemd", addressEnv+"="+l.Addr().String())
	s.tcp = l.Addr().String()
	s.files = []*os.File{file}
	s.env = append(s.env, "LISTEN_FDS=1")
	s.current = s.begin()
	s.files, s.env = nil, s.env[:1]
	client := post("http://"+s.tcp, "hello", fresh)
	require.NoError(t, client()())
	// A process that did not have the socket would find the address in use.
	underLoad(t, s, "systemd socket activation", client)

	require.NoError(t, s.current.Process.Signal(syscall.SIGTERM))
	s.current.mustExit(t)
	conn, err := net.DialTimeout("tcp", s.tcp, patience) // would be refused if the socket were hidden
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, l.(*net.TCPListener).SetDeadline(time.Now().Add(patience)))
	got, err := l.Accept()
	require.NoError(t, err)
	defer got.Close()
	assert.Equal(t, conn.LocalAddr().String(), got.RemoteAddr().String())
}
