//go:build !android && !ios

package main

// Where things are in a picture of a restart. Time goes down. A process is a lane, from
// when it listens until it closes.
const (
	clients = 32
	older   = 178
	newer   = 296
	notes   = 332
	lane    = 18 // wide
)

// A restart is a picture of one.
type restart struct {
	canvas
	lanes []func() // drawn last, over the arrows
}

func newRestart() *restart {
	r := &restart{}
	r.text("h m", clients+16, 20, "clients")
	r.text("h m", older, 20, "old process")
	r.text("h m", newer, 20, "new process")
	return r
}

func (r *restart) lane(class string, x, from, to int) {
	r.lanes = append(r.lanes, func() { r.box(class, x-lane/2, from, lane, to-from) })
}

// connect is a connection that a lane gets.
func (r *restart) connect(class string, lane, y int) { r.arrow(class, clients, y, lane-11, y) }

func (r *restart) note(class string, y int, s string) { r.text(class, notes, y, s) }

func (r *restart) file(height int, title string) []byte {
	for _, draw := range r.lanes {
		draw()
	}
	return r.canvas.file(height, title)
}

func naive() []byte {
	r := newRestart()
	r.lane("o", older, 38, 216)
	r.lane("n", newer, 100, 322)
	r.connect("c", older, 58)
	r.connect("c", older, 82)
	r.note("h", 104, "Listen")
	r.note("", 124, "both share the port")
	r.connect("c", newer, 124)
	r.connect("c", older, 146)
	r.connect("late", older, 170)
	r.note("", 170, "a slow handshake begins")
	r.connect("c", older, 194)
	r.queue("q", older-22, 182, 3)
	r.line("cut", older-20, 216, older+20, 216)
	r.note("h", 216, "Close")
	r.queue("x", older+17, 240, 3)
	r.arrow("x", older-22, 240, clients, 240)
	r.note("lost", 240, "the queue (squares) is reset,")
	r.arrow("x late", older-22, 264, clients, 264)
	r.note("lost", 260, "and the handshake lost")
	r.connect("c", newer, 288)
	r.connect("c", newer, 312)
	r.note("", 300, "the rest goes on")
	return r.file(334, "A restart without a hand-over: when the old process closes, what it had queued is reset")
}
