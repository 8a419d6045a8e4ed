package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/reuse"
	"example.com/reuse/group"
)

// serverEnv tells a process that it is a server.
const serverEnv = "REUSE_SOAK_SERVER"

// patience is how long anything may take that should take no time.
const patience = 10 * time.Second

// A request is one byte, other than that of a group's probe. The answer is the
// server's generation, twice.
const request = 'q'

// The server's side

// A server does what it reads from standard input, and says when it has:
//
//	listen address      -> its address, and how long TakeOver took
//	takeover address n  -> the same, and it has called TakeOver for n members
//	replace address n   -> the same for a new group of n, to which it has handed over
//	                       by itself; how long its Drain took, and what the process uses
//	drain               -> how long that took, and what it has counted
//	close               -> the same, but it just closes
type server struct {
	network    string
	size       int
	generation uint32
	handlers   sync.WaitGroup
	answered   atomic.Int64
	odd        atomic.Int64 // connections without a request
}

func serve(args []string) error {
	// A terminal sends Ctrl-C to all processes. Only the parent shall act on it.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)

	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	generation, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	s := &server{network: args[0], size: size, generation: uint32(generation)}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	var now *listening
	for in.Scan() {
		command := strings.Fields(in.Text())
		switch command[0] {
		case "drain", "close":
			stop := now.drain
			if command[0] == "close" {
				stop = now.close
			}
			took, err := now.stop(stop)
			s.handlers.Wait() // what was accepted is answered
			fmt.Println(int64(took), s.answered.Load(), s.odd.Load(), err)
			return nil
		case "replace":
			if s.size, err = strconv.Atoi(command[2]); err != nil {
				return err
			}
			next, err := s.listen(command)
			if err != nil {
				return err
			}
			took, err := now.stop(now.drain)
			if err != nil {
				return err
			}
			now = next
			u, err := usage()
			if err != nil {
				return err
			}
			fmt.Println(now.addr, int64(now.took), int64(took), u[0], u[1], u[2], u[3])
		default:
			if now, err = s.listen(command); err != nil {
				return err
			}
			fmt.Println(now.addr, int64(now.took))
		}
	}
	return in.Err() // the parent is gone
}

// listening is what a server has open.
type listening struct {
	addr         net.Addr
	took         time.Duration // TakeOver
	drain, close func() error
	served       chan error
}

func (s *server) listen(command []string) (*listening, error) {
	ctx, address := context.Background(), command[1]
	now := &listening{served: make(chan error, 1)}
	if s.size == 0 {
		l, err := reuse.Config{PortLB: reuse.On}.Listen(ctx, s.network, address)
		if err != nil {
			return nil, err
		}
		go func() { now.served <- s.accept(l) }()
		now.addr = l.Addr()
		now.drain = func() error { return group.DrainListener(ctx, l) }
		now.close = l.Close
		return now, nil
	}
	g, err := group.Config{Size: s.size}.Listen(ctx, s.network, address)
	if err != nil {
		return nil, err
	}
	go func() { now.served <- g.Serve(s.accept) }()
	now.addr = g.Addr()
	now.drain = func() error { return g.Drain(ctx) }
	now.close = g.Close
	begin := time.Now()
	if command[0] != "listen" {
		members, err := strconv.Atoi(command[2])
		if err != nil {
			return nil, err
		}
		if err := g.TakeOver(ctx, members); err != nil {
			return nil, err
		}
	}
	now.took = time.Since(begin)
	return now, nil
}

// stop drains or closes, and waits until nobody accepts any more.
func (l *listening) stop(how func() error) (time.Duration, error) {
	begin := time.Now()
	err := how()
	took := time.Since(begin)
	if end := <-l.served; !errors.Is(end, net.ErrClosed) && end != nil {
		err = errors.Join(err, end)
	}
	return took, err
}

func (s *server) accept(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		s.handlers.Go(func() { s.answer(c) })
	}
}

func (s *server) answer(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 8)
	if _, err := io.ReadFull(c, b[:1]); err != nil || b[0] != request {
		s.odd.Add(1)
		return
	}
	binary.BigEndian.PutUint32(b, s.generation)
	binary.BigEndian.PutUint32(b[4:], s.generation)
	if _, err := c.Write(b); err == nil {
		s.answered.Add(1)
	}
	// The client ends it, with a reset. If the server did, each connection would
	// leave a TIME_WAIT.
	_, _ = c.Read(b)
}

// The parent's side

// A process is a server as its parent sees it.
type process struct {
	generation int
	size       int
	cmd        *exec.Cmd
	in         io.WriteCloser
	out        *bufio.Reader
	ended      bool

	answered, odd int
}

// start starts a server, which does not listen yet. Size 0 is a plain listener.
func start(network string, size, generation int) (*process, error) {
	cmd := exec.Command(self(), network, strconv.Itoa(size), strconv.Itoa(generation))
	cmd.Env = append(os.Environ(), serverEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{generation: generation, size: size, cmd: cmd, in: in, out: bufio.NewReader(out)}
	if _, err := p.read(); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// ask sends a command and returns the words of the answer.
func (p *process) ask(command string) ([]string, error) {
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		return nil, err
	}
	return p.read()
}

func (p *process) read() ([]string, error) {
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	line, err := p.out.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("server %d said nothing: %w", p.generation, err)
	}
	return strings.Fields(line), nil
}

func (p *process) listen(command ...string) (address string, took time.Duration, err error) {
	words, err := p.ask(strings.Join(command, " "))
	if err != nil {
		return "", 0, err
	}
	if len(words) != 2 {
		return "", 0, fmt.Errorf("server %d said %q", p.generation, words)
	}
	ns, err := strconv.Atoi(words[1])
	return words[0], time.Duration(ns), err
}

// replace has the server hand over to a group of its own process.
func (p *process) replace(address string, size int) (took, drained time.Duration, u resources, err error) {
	words, err := p.ask(fmt.Sprintf("replace %s %d", address, size))
	if err != nil {
		return 0, 0, u, err
	}
	if len(words) != 3+len(u) {
		return 0, 0, u, fmt.Errorf("server %d said %q", p.generation, words)
	}
	var n [2 + len(u)]int64
	for i := range n {
		if n[i], err = strconv.ParseInt(words[i+1], 10, 64); err != nil {
			return 0, 0, u, err
		}
	}
	return time.Duration(n[0]), time.Duration(n[1]), resources(n[2:]), nil
}

// stop has the server drain or close, and waits for its end.
func (p *process) stop(command string) (took time.Duration, err error) {
	defer func() {
		if err != nil {
			p.kill()
		}
	}()
	words, err := p.ask(command)
	if err != nil {
		return 0, err
	}
	if len(words) < 4 {
		return 0, fmt.Errorf("server %d said %q", p.generation, words)
	}
	ns, err1 := strconv.Atoi(words[0])
	answered, err2 := strconv.Atoi(words[1])
	odd, err3 := strconv.Atoi(words[2])
	p.answered, p.odd = answered, odd
	var err4 error
	if what := strings.Join(words[3:], " "); what != "<nil>" {
		err4 = fmt.Errorf("server %d: %s", p.generation, what)
	}
	p.in.Close()
	p.ended = true
	return time.Duration(ns), errors.Join(err1, err2, err3, err4, p.cmd.Wait())
}

// kill ends the process if it has not ended.
func (p *process) kill() {
	if p == nil || p.ended {
		return
	}
	p.ended = true
	p.in.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}
