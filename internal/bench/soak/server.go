//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/handover"
	"example.com/reuse/handover/handoverhttp"
)

// serverEnv makes this program a server. It contains the service as JSON.
const serverEnv = "REUSE_SOAK_SERVER"

// A service is what the servers of one Name do.
type service struct {
	Name, Network, Address string
	Listeners              int
	Option                 int           // of TCP, set to 100 on new listeners
	Patience               time.Duration // the most that anything may take
	Hold                   bool          // wait for a line before Ready, which then has little time
}

type server struct {
	service
	lines chan struct{} // of standard input
}

// serve takes the sockets over for each line of standard input, and serves until
// a successor has them. It reports each step as a line of standard output, and "+" for
// each connection or datagram that it accepts. At the end of standard input it drains.
func serve(text string) error {
	// A terminal sends Ctrl-C to all processes, but the parent decides.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)
	s := &server{lines: make(chan struct{})}
	if err := json.Unmarshal([]byte(text), &s.service); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(s.lines)
		defer cancel()
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			s.lines <- struct{}{}
		}
	}()
	for range s.lines {
		if err := s.generation(ctx); err != nil {
			fmt.Println("failed", err)
		}
	}
	return nil
}

// generation is a handover.Process, from Start until it is replaced.
func (s *server) generation(ctx context.Context) error {
	starting, cancel := context.WithTimeout(ctx, s.Patience)
	defer cancel()
	fmt.Println("starting")
	p, err := handover.Config{Name: s.Name, Control: s.control}.Start(starting)
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
		if s.Network != "udp" {
			l, err := p.Listen(starting, c, s.Network, s.Address)
			if err != nil {
				return err
			}
			listeners = append(listeners, l)
			continue
		}
		conn, err := p.ListenPacket(starting, c, s.Network, s.Address)
		if err != nil {
			return err
		}
		defer conn.Close()
		conns = append(conns, conn.(*net.UDPConn))
	}
	fmt.Println("listening")
	if s.Hold {
		<-s.lines
		starting, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
	}
	if err := p.Ready(starting); err != nil {
		return err
	}
	fmt.Println("current")
	if s.Network == "udp" {
		err = answer(ctx, p, conns)
	} else {
		err = handoverhttp.Serve(ctx, p, &http.Server{
			Handler:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) }),
			ConnState: accepted,
		}, s.Patience, listeners...)
	}
	if err == nil {
		err = p.Close()
	}
	if err == nil {
		fmt.Println("done", usage())
	}
	return err
}

// accepted reports a connection before Accept is called for the next one.
func accepted(_ net.Conn, state http.ConnState) {
	if state == http.StateNew {
		fmt.Println("+")
	}
}

// answer answers each datagram with its own text and the process id.
func answer(ctx context.Context, p *handover.Process, conns []*net.UDPConn) error {
	var loops sync.WaitGroup
	for _, c := range conns {
		loops.Go(func() {
			b := make([]byte, 100)
			for {
				n, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return // the deadline
				}
				fmt.Println("+")
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

func (s *server) control(_, _ string, rc syscall.RawConn) (err error) {
	if s.Option == 0 {
		return nil
	}
	if e := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, s.Option, 100) }); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt", err)
}

// resources are what a process uses: goroutines, descriptors, and kB that are reachable
// on the heap and resident.
type resources [4]int

func (r resources) String() string { return strings.Trim(fmt.Sprint([4]int(r)), "[]") }

func usage() (r resources) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, _ := os.ReadDir("/proc/self/fd")
	statm, _ := os.ReadFile("/proc/self/statm")
	var pages int
	_, _ = fmt.Sscan(string(statm), new(int), &pages)
	return resources{runtime.NumGoroutine(), len(files), int(m.HeapAlloc >> 10), pages * os.Getpagesize() >> 10}
}
