//go:build !android && !ios

package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"example.com/reuse/internal/term"
)

//go:embed page.html
var page string

// A pageData is what page.html shows.
type pageData struct {
	*table
	Done             string // how it came about
	Summary, Verdict string
	Differences      int
	Options          []pageOption
	Legend           []pageLegend
	Filters          []pageFilter
	Addresses        []string
	Sections         []pageSection
	Why              []string // texts that cells refer to by number
}

type pageOption struct{ Letter, Name string }

type pageLegend struct{ Kind, Symbol, Text string }

// A pageFilter is boxes to check. Unchecked, what has the class c-VALUE is hidden.
type pageFilter struct{ Choices []pageChoice }

type pageChoice struct{ Value, Text string }

type pageSection struct {
	A, B    string
	Differs bool
	Grids   []pageGrid
}

type pageGrid struct {
	Class, Title string
	Columns      []pageCell
	Rows         []pageRow
}

type pageRow struct {
	pageCell
	Cells []pageCell
}

type pageCell struct {
	Class, Label string
	Symbol, Mark string
	Text         string // the options
	Why          int
}

// html returns the table as a page.
func (t *table) html() ([]byte, error) {
	text, err := template.New("page").Parse(page)
	if err != nil {
		return nil, err
	}
	d := &pageData{table: t, Done: sentence(t.How), Differences: t.differences()}
	d.Summary, d.Verdict = t.counts()
	for _, name := range t.Names {
		d.Options = append(d.Options, pageOption{letters[name], t.Option[name]})
	}
	for _, s := range append(t.symbols(), t.marks()...) {
		d.Legend = append(d.Legend, pageLegend{s.kind, s.symbol, s.text})
	}
	d.fill()
	var b bytes.Buffer
	err = text.Execute(&b, d)
	return b.Bytes(), err
}

// fill makes the grids and what filters them.
func (d *pageData) fill() {
	var kinds, options pageFilter
	whys := map[string]int{}
	for _, g := range groups(d.Rows) {
		s := pageSection{A: address(g.First), B: address(g.Second)}
		for _, a := range []string{s.A, s.B} {
			if !slices.Contains(d.Addresses, a) {
				d.Addresses = append(d.Addresses, a)
			}
		}
		for _, gr := range g.Grids {
			class := gr.Proto + "-" + gr.State
			if choice := (pageChoice{class, gr.title()}); !slices.Contains(kinds.Choices, choice) {
				kinds.Choices = append(kinds.Choices, choice)
			}
			pg := pageGrid{Class: class, Title: gr.title()}
			for i, opts := range gr.sets {
				head := pageCell{Class: classes(opts), Label: gr.Options[i], Text: "no option"}
				if len(opts) > 0 {
					head.Text = strings.Join(opts, "+")
				}
				pg.Columns = append(pg.Columns, head)
			}
			for i, cells := range gr.Cells {
				row := pageRow{pageCell: pg.Columns[i]}
				for j, r := range cells {
					c := pg.Columns[j]
					if r == nil {
						row.Cells = append(row.Cells, c)
						continue
					}
					c.Class = strings.TrimSpace(r.kind() + " " + c.Class)
					if r.differs() {
						c.Class += " differs"
						s.Differs = true
					}
					c.Symbol, c.Mark = r.symbol(), strings.TrimSpace(d.mark(r))
					why := d.why(r)
					n, found := whys[why]
					if !found {
						n = len(d.Why)
						whys[why] = n
						d.Why = append(d.Why, why)
					}
					c.Why = n
					row.Cells = append(row.Cells, c)
				}
				pg.Rows = append(pg.Rows, row)
			}
			s.Grids = append(s.Grids, pg)
		}
		d.Sections = append(d.Sections, s)
	}
	for _, name := range d.Names {
		options.Choices = append(options.Choices, pageChoice{name, d.Option[name]})
	}
	d.Filters = []pageFilter{kinds, options}
}

// classes are those by which the filters find a row or column.
func classes(opts []string) string {
	var list []string
	for _, o := range opts {
		list = append(list, "c-"+o)
	}
	return strings.Join(list, " ")
}

// why says what became of a pair, and what is known of it.
func (t *table) why(r *row) string {
	text := said(r.Outcome)
	switch {
	case !t.Measured && r.Outcome != "":
		text += " (" + r.basis + ")"
	case r.differs():
		text += " – the rules say: " + said(r.documented)
	case t.Measured && r.documented == "":
		text += " – the rules do not say for sure"
	}
	text += "."
	if r.rule != "" {
		text += " " + sentence(r.rule)
	}
	return text
}

// sentence returns text with a capital at its beginning and a stop at its end.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.TrimRight(strings.ToUpper(text[:1])+text[1:], ".") + "."
}

// replace writes a file anew. It is there whole, or as it was before, and nothing
// else is left, as Ctrl-C waits for the end.
func replace(name string, write func(io.Writer) error) (err error) {
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt, syscall.SIGTERM)
	defer func() {
		signal.Stop(interrupt)
		if len(interrupt) > 0 {
			err = errors.Join(err, term.ErrInterrupted)
		}
	}()

	// A rename would put a file in place of a device.
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return &fs.PathError{Op: "write", Path: name, Err: errors.New("not a regular file")}
	}
	dir, base := filepath.Split(name)
	temporary := filepath.Join(dir, fmt.Sprintf(".%s.%d", base, os.Getpid()))
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, errors.Unwrap(err))
	}
	if err = errors.Join(write(f), f.Close()); err == nil {
		err = os.Rename(temporary, name)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(temporary))
	}
	return err
}
