//go:build !android && !ios

package main

import (
	"bytes"
	"fmt"
)

// width is that of every picture. It is small, so that the text can still be read
// when a telephone shrinks it.
const width = 600

// A canvas is an SVG file that is being drawn. What is drawn later covers what was
// drawn before.
type canvas struct{ body bytes.Buffer }

func (c *canvas) printf(format string, args ...any) {
	fmt.Fprintf(&c.body, format+"\n", args...)
}

func (c *canvas) text(class string, x, y int, s string) {
	c.printf(`<text class="%s" x="%d" y="%d">%s</text>`, class, x, y, s)
}

// box is a rectangle with its upper left corner at x and y.
func (c *canvas) box(class string, x, y, w, h int) {
	c.printf(`<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="3"/>`, class, x, y, w, h)
}

func (c *canvas) line(class string, x1, y1, x2, y2 int) {
	c.printf(`<path class="%s" d="M%d %dL%d %d"/>`, class, x1, y1, x2, y2)
}

// arrow is a level or an upright line with a head at its end.
func (c *canvas) arrow(class string, x1, y1, x2, y2 int) {
	c.line(class, x1, y1, x2, y2)
	const long, half = 8, 4
	switch {
	case x2 > x1:
		c.head(class, x2-long, y2-half, x2, y2, x2-long, y2+half)
	case x2 < x1:
		c.head(class, x2+long, y2-half, x2, y2, x2+long, y2+half)
	default:
		c.head(class, x2-half, y2-long, x2, y2, x2+half, y2-long)
	}
}

func (c *canvas) head(class string, x1, y1, x2, y2, x3, y3 int) {
	c.printf(`<path class="%s tip" d="M%d %dL%d %dL%d %d"/>`, class, x1, y1, x2, y2, x3, y3)
}

// queue is n squares side by side, from x to the left.
func (c *canvas) queue(class string, x, y, n int) {
	for i := range n {
		c.box(class, x-11*(i+1), y-4, 8, 8)
	}
}

// file returns the whole file.
func (c *canvas) file(height int, title string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%[1]d\" height=\"%[2]d\" role=\"img\">\n", width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>\n%s</style>\n", title, style)
	b.Write(c.body.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// style has the colors for a light and for a dark page: o is the old process, n the
// new one, x what is lost.
const style = `svg{background:#fff;fill:#1a1f26;font:14px system-ui,sans-serif}
text{dominant-baseline:central}
.h{font-weight:600}
.m{text-anchor:middle}
.lost{fill:#c0362c}
path{fill:none;stroke:#5b6672;stroke-width:1.5}
.late{stroke-dasharray:5 4}
.cut{stroke:#1a1f26;stroke-width:2}
path.x{stroke:#c0362c}
.tip{stroke-dasharray:none}
rect.o{fill:#a9b4c0}
rect.n{fill:#1f8a66}
rect.q{fill:#5b6672}
rect.x{fill:#c0362c}
rect.f{fill:none;stroke:#5b6672;stroke-width:1.5}
@media(prefers-color-scheme:dark){
svg{background:#14181d;fill:#e3e8ed}
.lost{fill:#ff8a7d}
path,rect.f{stroke:#98a4b0}
.cut{stroke:#e3e8ed}
path.x{stroke:#ff8a7d}
rect.o{fill:#4a5663}
rect.n{fill:#2fa37c}
rect.q{fill:#98a4b0}
rect.x{fill:#ff8a7d}
}
`
