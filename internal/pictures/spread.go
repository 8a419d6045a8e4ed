//go:build !android && !ios

package main

import "strconv"

// spread shows one port with four listeners, one of which accepts nothing.
func spread() []byte {
	const (
		workers = 4
		stalled = 3
		top     = 92 // of the queues
		bottom  = 196
		column  = width / workers
	)
	c := &canvas{}
	c.text("m", width/2, 16, "new connections")
	c.arrow("c", width/2, 28, width/2, 46)
	c.box("f", 60, 48, width-120, 30)
	c.text("m h", width/2, 63, "kernel: a hash of addresses and ports")
	for i := range workers {
		x := column*i + column/2
		c.arrow("c", x, 79, x, top+8)
		waiting, square, process := 1+i%2, "q", "n"
		if i == stalled-1 {
			waiting, square, process = 7, "x", "o"
		}
		for k := range waiting {
			c.box(square, x-5, bottom-15-12*k, 10, 9)
		}
		c.line("c", x-12, top+10, x-12, bottom-3)
		c.line("c", x+12, top+10, x+12, bottom-3)
		c.box(process, x-46, bottom, 92, 10)
		c.text("m", x, bottom+26, "worker "+strconv.Itoa(i+1))
		if i == stalled-1 {
			c.text("m lost", x, bottom+46, "does not accept,")
			c.text("m lost", x, bottom+64, "keeps its share")
		}
	}
	return c.file(272, "Each worker has a queue of its own; one that does not accept goes on getting its share")
}
