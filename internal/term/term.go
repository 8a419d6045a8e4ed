// Package term is what the example programs have in common as their users meet
// them. A Screen shows progress: on a terminal in place, cut to its width; elsewhere
// only what is there to stay. Parse and Exit give all of them the same -h, errors
// and exit statuses.
package term

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Screen is where a program prints. One goroutine at a time may use it.
type Screen struct {
	out     io.Writer
	size    func() (columns, rows int) // 0 where unknown
	live    bool
	color   bool
	unicode bool

	drawn []string // what Draw shows; the cursor is behind the last line
	err   error
}

// New returns the screen for what a program prints to, such as os.Stdout. It draws
// only if that is a terminal that knows escape sequences, and has colors unless
// NO_COLOR is set.
func New(w io.Writer) *Screen {
	f, isFile := w.(*os.File)
	live := isFile && isTerminal(f) && os.Getenv("TERM") != "dumb"
	return &Screen{
		out: w,
		size: func() (int, int) {
			if !isFile {
				return 0, 0
			}
			return size(f)
		},
		live:    live,
		color:   live && os.Getenv("NO_COLOR") == "",
		unicode: live && showsUnicode(runtime.GOOS, os.Getenv),
	}
}

// showsUnicode tells whether the terminal shows more than ASCII, as far as the
// environment says. On Windows and Plan 9, where it says nothing, it does.
func showsUnicode(goos string, getenv func(string) string) bool {
	if goos == "windows" || goos == "plan9" {
		return true
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// Live tells whether Draw shows anything.
func (s *Screen) Live() bool { return s.live }

// Err returns the first error of writing to the screen.
func (s *Screen) Err() error { return s.err }

// Size returns the number of columns and rows. Where the system does not tell,
// there are COLUMNS columns, or else 80, and 24 rows.
func (s *Screen) Size() (columns, rows int) {
	columns, rows = s.size()
	if columns <= 0 {
		columns = 80
		if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
			columns = n
		}
	}
	if rows <= 0 {
		rows = 24
	}
	return columns, rows
}

// Printf prints text to stay, above what is drawn. The text ends in a newline.
func (s *Screen) Printf(format string, a ...any) {
	s.write(s.wipe() + fmt.Sprintf(format, a...) + strings.Join(s.drawn, "\n"))
}

// Textf prints a paragraph to stay, filled to the width of the screen but not
// to more than is good to read.
func (s *Screen) Textf(format string, a ...any) { s.Indentf("", format, a...) }

// Indentf is Textf with something before every line.
func (s *Screen) Indentf(indent, format string, a ...any) {
	columns, _ := s.Size()
	text := fill(fmt.Sprintf(format, a...), min(columns-1, 76)-len(indent))
	s.Printf("%s%s\n", indent, strings.ReplaceAll(text, "\n", "\n"+indent))
}

// Draw shows lines, each cut to the width of the screen, in place of those that
// are drawn. Without arguments it takes these away.
func (s *Screen) Draw(lines ...string) {
	if !s.live {
		return
	}
	wipe := s.wipe()
	columns, _ := s.Size()
	s.drawn = s.drawn[:0]
	for _, line := range lines {
		// A character in the last column would make some terminals wrap.
		s.drawn = append(s.drawn, cut(line, columns-1))
	}
	s.write(wipe + strings.Join(s.drawn, "\n"))
}

// wipe returns what takes the drawn lines off the screen.
func (s *Screen) wipe() string {
	switch n := len(s.drawn); n {
	case 0:
		return ""
	case 1:
		return "\r\x1b[J" // to the line's start, and clear from there
	default:
		return fmt.Sprintf("\r\x1b[%dA\x1b[J", n-1) // n-1 lines up
	}
}

func (s *Screen) write(text string) {
	if _, err := io.WriteString(s.out, text); err != nil && s.err == nil {
		s.err = err
	}
}

// A Color is the number of an escape sequence.
type Color int

// The colours that every terminal has.
const (
	Red    Color = 31
	Green  Color = 32
	Yellow Color = 33
	Cyan   Color = 36
)

// Paint returns text in a color, or as it is if the screen has no colors.
func (s *Screen) Paint(c Color, text string) string {
	if !s.color || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", int(c), text)
}

// Bar returns a bar of some columns, of which a part, from 0 to 1, is full.
func (s *Screen) Bar(columns int, part float64) string {
	columns = max(columns, 0)
	n := int(float64(columns)*min(max(part, 0), 1) + 0.5)
	full, empty := "#", "."
	if s.unicode {
		full, empty = "█", "░"
	}
	return s.Paint(Cyan, strings.Repeat(full, n)) + strings.Repeat(empty, columns-n)
}

// Number returns n with its digits in groups of three.
func Number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Count returns n and what is counted, in the plural unless n is 1.
func Count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return Number(n) + " " + noun
}

// cut returns the beginning of a line, at most columns wide, and the escape
// sequences of all of it.
func cut(line string, columns int) string {
	var b strings.Builder
	for line != "" {
		if n := escape(line); n > 0 {
			b.WriteString(line[:n])
			line = line[n:]
			continue
		}
		_, n := utf8.DecodeRuneInString(line)
		if columns > 0 {
			b.WriteString(line[:n])
			columns--
		}
		line = line[n:]
	}
	return b.String()
}

// escape returns the length of the escape sequence that s begins with, if any.
func escape(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	return strings.IndexByte(s, 'm') + 1
}

// fill breaks text into lines at most columns wide, between words.
func fill(text string, columns int) string {
	var b strings.Builder
	width := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case width == 0:
		case width+1+n > columns:
			b.WriteByte('\n')
			width = 0
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	return b.String()
}
