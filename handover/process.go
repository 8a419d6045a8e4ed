package handover

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// A Process is this process's part in a service. Its methods may be called from
// several goroutines.
type Process struct {
	config      Config
	id          string // tells the Processes of one process id apart
	predecessor int    // process id

	calls      chan func() // run by own
	ended      chan struct{}
	done       chan struct{}
	replaced   chan struct{}
	turn       chan struct{} // holds one element while a Ready is under way
	goroutines sync.WaitGroup
	drainErr   error // set before done is closed

	// The rest belongs to the goroutine that runs own. Each blocking step is outside.
	// If previous is nil, this process is the one that the rendezvous belongs to.
	previous   *link   // to the process that this one is about to succeed
	newcomer   []*link // to the process that is about to succeed this one, one for each Ready
	current    bool    // Ready has succeeded
	leaving    bool    // Drain or a hand-over has begun
	succeeded  bool    // by another process
	over       bool    // own ends
	vanished   bool    // a process that held sockets has died, perhaps just now
	rendezvous *rendezvous
	links      []*link       // that were accepted and not closed
	changed    chan struct{} // closed and replaced when an answer to waiting links may differ
	sockets    []*socket     // in use
	passed     []*socket     // not asked for yet
	files      []*socket     // from Config.Files, not asked for yet
	nextID     int
}

// own runs calls until over, then closes all that is left. Nothing else touches the state.
func (p *Process) own() {
	for !p.over {
		(<-p.calls)()
	}
	close(p.ended)
	// The rendezvous is closed last: a process that finds none opens the addresses again.
	if p.newcomer != nil {
		for _, s := range p.sockets {
			s.unlinkOnClose(false)
		}
	}
	closeListeners(p.sockets)
	if p.succeeded || p.leaving && p.newcomer != nil {
		close(p.replaced)
	}
	closeSockets(p.passed)
	closeSockets(p.files)
	p.rendezvous.close(p.previous == nil && p.newcomer == nil && !p.succeeded)
	if p.previous != nil {
		p.previous.conn.Close()
	}
	for _, l := range p.links {
		l.conn.Close()
	}
	p.goroutines.Wait()
	close(p.done)
}

// do runs f in the goroutine that owns the state.
func (p *Process) do(f func()) error {
	ran := make(chan struct{})
	select {
	case p.calls <- func() { defer close(ran); f() }:
		<-ran
		return nil
	case <-p.ended:
		return net.ErrClosed
	}
}

// doUnlessLeaving runs f as do does, and returns net.ErrClosed if this process leaves
// the service.
func (p *Process) doUnlessLeaving(f func()) error {
	err := net.ErrClosed
	_ = p.do(func() { // an error is the same one
		if !p.leaving {
			err = nil
			f()
		}
	})
	return err
}

// change makes the processes that wait ask again.
func (p *Process) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// A link is a connection between two processes.
type link struct {
	conn    *net.UnixConn
	process string // the id in the other's hello, and empty before that
	who     peer
	gave    []*socket     // what is sent to a newcomer
	sent    chan struct{} // closed when that is on its way, or cannot be

	// For the newcomer's end.
	sockets   []string      // that were received, as requested
	over      chan struct{} // closed when nothing more will be read
	sentReady bool
	gaveUp    bool // Ready's ctx has ended
}

func (l *link) send(m message) error {
	err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = l.conn.Write(m.encode())
	}
	return err
}

const writeTimeout = 5 * time.Second

// A peer is the process at the other end, as reported by the kernel or else by its hello.
type peer struct {
	pid   int    // 0 if unknown
	uid   int    // -1 if unknown
	state string // empty, or "," and a word
}

func (p peer) String() string {
	s := "a process that is not visible from here"
	if p.pid > 0 {
		s = fmt.Sprintf("pid %d", p.pid)
	}
	if p.uid < 0 {
		return s
	}
	return fmt.Sprintf("%s (uid %d%s)", s, p.uid, p.state)
}

// pause waits, and returns false if stop is closed before.
func pause(stop <-chan struct{}, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-stop:
		return false
	}
}
