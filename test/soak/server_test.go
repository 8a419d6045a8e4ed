//go:build linux

package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/handover"
	"example.com/reuse/handover/handoverhttp"
	"example.com/reuse/internal/sockopt"
)

// serverEnv makes the test binary a server. It contains the service as JSON.
const serverEnv = "REUSE_SOAK_SERVER"

// patience is the most that anything may take.
const patience = 30 * time.Second

// A service is what the servers of one Name do. A server answers with its process id.
type service struct {
	Name, Network, Address string
	Listeners              int
	DeferAccept            bool   // until the client sends its request
	Counts                 string // folder where each server has a file with a byte for each connection or datagram that it accepts
}

// serve takes the sockets over and serves until a successor has them, or drains when
// standard input ends. It reports each step as a line of standard output.
func serve(text string) error {
	var s service
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
		select {} // usage counts this goroutine
	}()
	count, err := os.OpenFile(filepath.Join(s.Counts, strconv.Itoa(os.Getpid())), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer count.Close()
	before := usage() // with the runtime's descriptors, which the file needs
	if err := s.generation(ctx, func() { _, _ = count.Write([]byte("+")) }); err != nil {
		return err
	}
	for begin := time.Now(); usage() > before; time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience/2 {
			return fmt.Errorf("%d goroutines and descriptors are left, of %d", usage(), before)
		}
	}
	return nil
}

// usage is the number of goroutines and descriptors.
func usage() int {
	files, _ := os.ReadDir("/proc/self/fd")
	return runtime.NumGoroutine() + len(files)
}

func (s service) control(_, _ string, rc syscall.RawConn) error {
	if !s.DeferAccept {
		return nil
	}
	return sockopt.Control(rc, func(fd uintptr) error { return sockopt.Set(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 100) })
}

// generation is a handover.Process, from Start until it is replaced.
func (s service) generation(ctx context.Context, accepted func()) error {
	p, err := handover.Config{Name: s.Name, Control: s.control}.Start(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	fmt.Println("sockets", p.Predecessor())
	c := reuse.Config{}
	if s.Network != "unix" {
		c.PortLB = reuse.On
	}
	var listeners []net.Listener
	var conns []*net.UDPConn
	for range s.Listeners {
		if s.Network == "udp" {
			conn, err := p.ListenPacket(ctx, c, s.Network, s.Address)
			if err != nil {
				return err
			}
			defer conn.Close()
			conns = append(conns, conn.(*net.UDPConn))
			continue
		}
		l, err := p.Listen(ctx, c, s.Network, s.Address)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	if err := p.Ready(ctx); err != nil {
		return err
	}
	fmt.Println("current")
	if s.Network == "udp" {
		return answer(ctx, p, conns, accepted)
	}
	return handoverhttp.Serve(ctx, p, &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) }),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew { // before the next Accept
				accepted()
			}
		},
	}, patience, listeners...)
}

// answer answers each datagram with its own text and the server.
func answer(ctx context.Context, p *handover.Process, conns []*net.UDPConn, accepted func()) error {
	var loops sync.WaitGroup
	for _, c := range conns {
		loops.Go(func() {
			b := make([]byte, 100)
			for {
				n, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return // the deadline
				}
				accepted()
				_, _ = c.WriteToUDPAddrPort(fmt.Appendf(b[:n:n], " %d", os.Getpid()), from)
			}
		})
	}
	select {
	case <-p.Replaced():
	case <-ctx.Done():
	}
	for _, c := range conns {
		if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
			return err
		}
	}
	loops.Wait()
	return nil
}

// A process is a server as the test sees it.
type process struct {
	service
	t     *testing.T
	cmd   *exec.Cmd
	in    io.Closer
	steps *bufio.Scanner
}

// start starts a server, which begins to take over.
func (s *soak) start(sv service) *process {
	text, err := json.Marshal(sv)
	require.NoError(s.t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), serverEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(s.t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, cmd.Start())
	s.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return &process{sv, s.t, cmd, in, bufio.NewScanner(out)}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// await waits until the server reports a step, and returns the rest of that line.
func (p *process) await(step string) string {
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	for p.steps.Scan() {
		if word, rest, _ := strings.Cut(p.steps.Text(), " "); word == step {
			return rest
		}
	}
	require.Fail(p.t, "a server ended before "+step)
	return ""
}

// wait waits until the server, which is replaced, ends by itself.
func (p *process) wait() {
	late := time.AfterFunc(2*patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	require.NoError(p.t, p.cmd.Wait())
}

// end makes a server drain, and waits for its end.
func (p *process) end() {
	p.in.Close()
	p.wait()
}

func (p *process) kill() {
	require.NoError(p.t, p.cmd.Process.Kill())
	_ = p.cmd.Wait() // nil if it was replaced and has ended
}

// accepted is how many connections or datagrams the server has accepted.
func (p *process) accepted() int {
	info, err := os.Stat(filepath.Join(p.Counts, strconv.Itoa(p.pid())))
	if err != nil { // killed before it began
		return 0
	}
	return int(info.Size())
}
