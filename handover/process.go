package handover

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
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

func newID() string { return rand.Text() }

// own runs calls until over, then closes all that is left. It is the only one that
// touches the state.
func (p *Process) own() {
	for !p.over {
		(<-p.calls)()
	}
	close(p.ended)
	// The rendezvous is closed last: a process that finds none opens the addresses anew.
	if p.newcomer != nil {
		for _, s := range p.sockets {
			s.leavePath()
		}
	}
	closeListeners(p.sockets)
	if p.succeeded || p.leaving && p.newcomer != nil {
		close(p.replaced)
	}
	closeSockets(p.passed)
	closeSockets(p.files)
	if p.rendezvous != nil {
		mine := p.previous == nil && p.newcomer == nil && !p.succeeded
		p.rendezvous.close(mine)
	}
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

// change has the processes that wait ask again.
func (p *Process) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// A link is a connection between two processes.
type link struct {
	conn    *net.UnixConn
	process string // the other's id, from its hello
	who     peer
	greeted bool
	gave    []*socket     // what is sent to a newcomer
	sent    chan struct{} // closed when that is on its way, or cannot be

	// For the newcomer's end.
	sockets   []string      // that were received, as requested
	over      chan struct{} // closed when nothing more will be read
	sentReady bool
	gaveUp    bool // Ready's ctx has ended
}

// A peer is what the kernel, or else its hello, tells of the process at the other end.
type peer struct {
	pid   int // 0 if not known
	uid   int // -1 if not known
	state string
}

// correct replaces the id by the one that the process has sent, where the kernel tells
// none, or that of a thread (gVisor).
func (p *peer) correct(sent int) {
	thread := p.pid != sent && isThread(sent, p.pid)
	if thread || p.pid == 0 && p.uid < 0 {
		p.pid = sent
	}
}

func (p peer) String() string {
	var more []string
	if p.uid >= 0 {
		more = append(more, fmt.Sprintf("uid %d", p.uid))
	}
	if p.state != "" {
		more = append(more, p.state)
	}
	s := "a process that is not visible from here"
	if p.pid > 0 {
		s = fmt.Sprintf("pid %d", p.pid)
	}
	if len(more) > 0 {
		s += " (" + strings.Join(more, ", ") + ")"
	}
	return s
}

var errStopped = errors.New("stopped")

// pause waits, and returns an error if stop is closed before.
func pause(stop <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-stop:
		return errStopped
	}
}
