//go:build !android && !ios

// Mutate shows that the tests of package semantics would notice if a clause of a
// rule were wrong. From the root of the module:
//
//	go run ./internal/semantics/mutate
//
// Every condition in the rules is made true, made false and inverted, every part
// of one made true and false, every assignment left out, every errno and every
// "newest" and "oldest" exchanged, one at a time, and the package's tests are run.
// A mutant that they pass has survived: the program lists those that the file
// survivors does not explain and ends with status 1, also if survivors explains one
// that there is not.
//
// All mutants are compiled into one test binary, from an overlay of the sources,
// and an environment variable says which of them is alive.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A line of survivors: the mutant's name, a tab, and why no test can tell it from
// the rule.
//
//go:embed survivors
var explained string

// support is what the mutants' source calls. A place has a number, and the letter
// after it says what is done there.
const support = `package semantics

import (
	"os"
	"strconv"
)

var mutPlace, mutKind = func() (int, string) {
	id := os.Getenv("SEMANTICS_MUTANT")
	if id == "" {
		return -1, ""
	}
	n, err := strconv.Atoi(id[:len(id)-1])
	if err != nil {
		panic(err)
	}
	return n, id[len(id)-1:]
}()

func mutCond(n int, c bool) bool {
	if n != mutPlace {
		return c
	}
	switch mutKind {
	case "t":
		return true
	case "f":
		return false
	}
	return !c
}

func mutText(n int, s string) string {
	if n == mutPlace {
		return "EMUTANT"
	}
	return s
}

func mutPick(n int, f, g func([]int) []int) func([]int) []int {
	if n == mutPlace {
		return g
	}
	return f
}
`

// A mutant is one change of one place.
type mutant struct {
	id   string // what the environment variable says
	name string // file, function, what is changed and how
}

func main() {
	jobs := flag.Int("j", runtime.NumCPU(), "how many to run at a time")
	list := flag.Bool("list", false, "list the mutants and run none")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "mutate changes each clause of the rules in internal/semantics and runs their tests.\nRun it from the root of the module. It works wherever the go command does.")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, max(1, *jobs), *list); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, jobs int, list bool) error {
	begin := time.Now()
	reasons, err := parseSurvivors(explained)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	mutants, overlay, err := prepare(dir, filepath.Join("internal", "semantics"))
	if err != nil {
		return err
	}
	if list {
		for _, m := range mutants {
			fmt.Fprintln(out, m.name)
		}
		return nil
	}
	binary := filepath.Join(dir, "semantics.test")
	if b, err := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", overlay, "-o", binary, "./internal/semantics").CombinedOutput(); err != nil {
		return fmt.Errorf("compile the mutants: %w\n%s", err, b)
	}
	if killed, err := try(ctx, binary, ""); err != nil {
		return err
	} else if killed {
		return errors.New("the tests fail without a mutant")
	}
	survived, err := tryAll(ctx, binary, jobs, mutants)
	if err != nil {
		return err
	}
	bad := 0
	for _, m := range mutants {
		_, ok := reasons[m.name]
		if survived[m.id] && !ok {
			bad++
			fmt.Fprintln(out, "survived:", m.name)
		}
		if !survived[m.id] && ok {
			bad++
			fmt.Fprintln(out, "explained, and killed:", m.name)
		}
		delete(reasons, m.name)
	}
	for name := range reasons {
		bad++
		fmt.Fprintln(out, "explained, and there is none:", name)
	}
	fmt.Fprintf(out, "%d mutants: %d killed, %d not; %d s\n", len(mutants), len(mutants)-len(survived), len(survived), int(time.Since(begin).Seconds()))
	if bad > 0 {
		return fmt.Errorf("%d mutants are not as they should be", bad)
	}
	return nil
}

// parseSurvivors reads the file.
func parseSurvivors(text string) (map[string]string, error) {
	reasons := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, why, ok := strings.Cut(line, "\t")
		if !ok || strings.TrimSpace(why) == "" {
			return nil, fmt.Errorf("survivors: no reason in %q", line)
		}
		reasons[name] = why
	}
	return reasons, nil
}

// tryAll returns the ids of the mutants that the tests do not notice.
func tryAll(ctx context.Context, binary string, jobs int, mutants []mutant) (map[string]bool, error) {
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		survived = map[string]bool{}
		errs     []error
		work     = make(chan mutant)
	)
	for range jobs {
		wg.Go(func() {
			for m := range work {
				killed, err := try(ctx, binary, m.id)
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
				} else if !killed {
					survived[m.id] = true
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range mutants {
		if ctx.Err() != nil {
			break
		}
		work <- m
	}
	close(work)
	wg.Wait()
	return survived, errors.Join(append(errs, ctx.Err())...)
}

// try runs the tests with one mutant and says whether they failed.
func try(ctx context.Context, binary, id string) (killed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.failfast")
	cmd.Env = append(os.Environ(), "SEMANTICS_MUTANT="+id)
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return true, nil
	}
	return false, err
}

// prepare writes the sources with all mutants in them to dir, and returns the
// mutants and the overlay's file.
func prepare(dir, pkg string) ([]mutant, string, error) {
	files, err := filepath.Glob(filepath.Join(pkg, "*.go"))
	if err != nil {
		return nil, "", err
	}
	var mutants []mutant
	replace := map[string]string{}
	write := func(name string, text []byte) error {
		original, err := filepath.Abs(filepath.Join(pkg, name))
		if err != nil {
			return err
		}
		replace[original] = filepath.Join(dir, name)
		return os.WriteFile(replace[original], text, 0o600)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasSuffix(name, "_test.go") || name == "system.go" {
			continue // no rules
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, "", err
		}
		more, changed, err := mutate(name, text, len(mutants))
		if err != nil {
			return nil, "", err
		}
		mutants = append(mutants, more...)
		if err := write(name, changed); err != nil {
			return nil, "", err
		}
	}
	if len(mutants) == 0 {
		return nil, "", fmt.Errorf("no rules in %s", pkg)
	}
	if err := write("mutants.go", []byte(support)); err != nil {
		return nil, "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return mutants, path, os.WriteFile(path, overlay, 0o600)
}

// An edit wraps a piece of source.
type edit struct {
	start, end    int
	before, after string
}

// mutate returns the mutants of a file, and its source with all of them.
func mutate(file string, text []byte, count int) ([]mutant, []byte, error) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, nil, err
	}
	var mutants []mutant
	var edits []edit // an outer one comes before those inside it
	seen := map[string]int{}
	offset := func(p token.Pos) int { return fset.Position(p).Offset }
	place := func(function string, n ast.Node, kinds map[string]string, before, after string) {
		source := strings.Join(strings.Fields(string(text[offset(n.Pos()):offset(n.End())])), " ")
		name := file + " " + function + ": " + source
		if seen[name]++; seen[name] > 1 {
			name += " #" + strconv.Itoa(seen[name])
		}
		id := strconv.Itoa(count + len(edits))
		for _, kind := range slices.Sorted(mapKeys(kinds)) {
			mutants = append(mutants, mutant{id + kind, name + " -> " + kinds[kind]})
		}
		edits = append(edits, edit{offset(n.Pos()), offset(n.End()), strings.ReplaceAll(before, "$", id), strings.ReplaceAll(after, "$", id)})
	}
	for _, d := range tree.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil || f.Name.Name == "String" || f.Name.Name == "valid" || f.Name.Name == "Subsets" || f.Name.Name == "List" {
			continue
		}
		var visit func(n ast.Node) bool
		condition := func(e ast.Expr, whole bool) {
			kinds := map[string]string{"t": "true", "f": "false"}
			if whole {
				kinds["i"] = "inverted"
			}
			place(f.Name.Name, e, kinds, "mutCond($, ", ")")
		}
		// boolean goes into the operands of a condition that has been wrapped.
		var boolean func(e ast.Expr, whole bool)
		boolean = func(e ast.Expr, whole bool) {
			condition(e, whole)
			for {
				p, ok := e.(*ast.ParenExpr)
				if !ok {
					break
				}
				e = p.X
			}
			if u, ok := e.(*ast.UnaryExpr); ok && u.Op == token.NOT {
				e = u.X
				for {
					p, ok := e.(*ast.ParenExpr)
					if !ok {
						break
					}
					e = p.X
				}
			}
			if b, ok := e.(*ast.BinaryExpr); ok && (b.Op == token.LAND || b.Op == token.LOR) {
				boolean(b.X, false)
				boolean(b.Y, false)
				return
			}
			ast.Inspect(e, visit)
		}
		returns := returnsBool(f.Type)
		visit = func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				outer := returns
				returns = returnsBool(n.Type)
				ast.Inspect(n.Body, visit)
				returns = outer
				return false
			case *ast.IfStmt:
				if n.Init != nil {
					ast.Inspect(n.Init, visit)
				}
				boolean(n.Cond, true)
				ast.Inspect(n.Body, visit)
				if n.Else != nil {
					ast.Inspect(n.Else, visit)
				}
				return false
			case *ast.SwitchStmt:
				for _, s := range n.Body.List {
					c := s.(*ast.CaseClause)
					for _, e := range c.List {
						if n.Tag == nil {
							boolean(e, true)
						}
					}
					for _, s := range c.Body {
						ast.Inspect(s, visit)
					}
				}
				return false
			case *ast.ReturnStmt:
				for _, e := range n.Results {
					if returns && !isConstant(e) {
						boolean(e, true)
						continue
					}
					ast.Inspect(e, visit)
				}
				return false
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					if _, field := n.Lhs[0].(*ast.SelectorExpr); !field || f.Name.Name != "linux38" && f.Name.Name != "freebsd14" {
						place(f.Name.Name, n, map[string]string{"f": "left out"}, "if mutCond($, true) {\n", "\n}")
					}
				}
				for _, e := range n.Rhs {
					if b, ok := e.(*ast.BinaryExpr); ok && (b.Op == token.LAND || b.Op == token.LOR) && n.Tok == token.DEFINE {
						boolean(e, true)
						continue
					}
					ast.Inspect(e, visit)
				}
				return false
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && isErrno(s) {
					place(f.Name.Name, n, map[string]string{"x": "another errno"}, "mutText($, ", ")")
				}
			case *ast.Ident:
				switch n.Name {
				case "newest":
					place(f.Name.Name, n, map[string]string{"p": "oldest"}, "mutPick($, ", ", oldest)")
				case "oldest":
					place(f.Name.Name, n, map[string]string{"p": "newest"}, "mutPick($, ", ", newest)")
				}
			}
			return true
		}
		ast.Inspect(f.Body, visit)
	}
	return mutants, apply(text, edits), nil
}

func mapKeys(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func returnsBool(t *ast.FuncType) bool {
	if t.Results == nil || len(t.Results.List) != 1 {
		return false
	}
	id, ok := t.Results.List[0].Type.(*ast.Ident)
	return ok && id.Name == "bool"
}

func isConstant(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && (id.Name == "true" || id.Name == "false")
}

func isErrno(s string) bool {
	s = strings.TrimPrefix(s, "WSA")
	return len(s) > 3 && s[0] == 'E' && strings.ToUpper(s) == s && !strings.ContainsAny(s, " _")
}

// apply wraps all pieces at once. Pieces are nested or apart, the outer first.
func apply(text []byte, edits []edit) []byte {
	type insertion struct {
		at    int
		order int // at one place: ends of inner pieces, then of outer, then starts of outer, then of inner
		text  string
	}
	var all []insertion
	for i, e := range edits {
		all = append(all, insertion{e.start, i, e.before}, insertion{e.end, -i - 1, e.after})
	}
	slices.SortFunc(all, func(a, b insertion) int {
		if a.at != b.at {
			return a.at - b.at
		}
		return a.order - b.order
	})
	var out bytes.Buffer
	last := 0
	for _, in := range all {
		out.Write(text[last:in.at])
		out.WriteString(in.text)
		last = in.at
	}
	out.Write(text[last:])
	return out.Bytes()
}
