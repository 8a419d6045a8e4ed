//go:build mutants

package semantics_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mutantEnv = "REUSE_MUTANT"

// mutFunc is what the mutants' source calls. A mutant is the number of a place, and t or f
// for the value of its condition.
const mutFunc = `package semantics

import (
	"fmt"
	"os"
)

var mutPlace, mutKind = func() (place int, kind rune) {
	if _, err := fmt.Sscanf(os.Getenv("` + mutantEnv + `"), "%d%c", &place, &kind); err != nil {
		return -1, 0
	}
	return place, kind
}()

func mut(n int, c bool) bool {
	if n == mutPlace {
		return mutKind == 't'
	}
	return c
}
`

// The other tests fail if a clause of a rule is wrong. Every condition in the rules and
// every part of one is made true and false, every assignment is left out, every errno
// changed, and every "newest" and "oldest" exchanged, one at a time.
//
// All mutants are compiled into one test binary, from an overlay of the sources. An
// environment variable selects one. As this takes minutes, it needs a build tag:
//
//	go test -tags mutants -run TestEveryMutantIsKilled ./internal/semantics
func TestEveryMutantIsKilled(t *testing.T) {
	dir := t.TempDir()
	mutants := prepare(t, dir)
	require.Greater(t, len(mutants), 1000)
	binary := filepath.Join(dir, "semantics.test")
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary).CombinedOutput()
	require.NoError(t, err, "%s", out)
	fails := func(mutant string) bool {
		cmd := exec.CommandContext(t.Context(), binary, "-test.failfast", "-test.timeout=1m")
		cmd.Env = append(os.Environ(), mutantEnv+"="+mutant)
		err := cmd.Run()
		assert.True(t, err == nil || errors.As(err, new(*exec.ExitError)), "%v", err)
		return err != nil
	}
	require.False(t, fails(""), "without a mutant")
	var running sync.WaitGroup
	workers := runtime.NumCPU()
	for w := range workers {
		running.Go(func() {
			for i := w; i < len(mutants); i += workers {
				assert.True(t, fails(mutants[i].id), "survived: %s", mutants[i].name)
			}
		})
	}
	running.Wait()
	t.Log(len(mutants), "mutants")
}

// prepare writes the sources with all mutants in them to dir, and an overlay.
func prepare(t *testing.T, dir string) (mutants []mutant) {
	replace := map[string]string{}
	write := func(file string, text []byte) {
		abs, err := filepath.Abs(file)
		require.NoError(t, err)
		replace[abs] = filepath.Join(dir, file)
		require.NoError(t, os.WriteFile(replace[abs], text, 0o600))
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "system.go" || file == "promises.go" || strings.HasPrefix(file, "running_") {
			continue // no rules
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		more, changed := mutate(t, file, text, len(mutants))
		mutants = append(mutants, more...)
		write(file, changed)
	}
	write("mutants.go", []byte(mutFunc))
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	return mutants
}

// A mutant is one change of one place.
type mutant struct {
	id   string // what the environment variable says
	name string // file, line, what is changed and how
}

var (
	errno   = regexp.MustCompile(`^"(WSA)?E[A-Z0-9]{3,}"$`)
	noRules = []string{"String", "valid", "Subsets", "List"} // functions
)

// mutate returns the mutants of a file, and its source with all of them. The places are
// numbered from count on.
func mutate(t *testing.T, file string, text []byte, count int) (mutants []mutant, changed []byte) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, text, parser.SkipObjectResolution)
	require.NoError(t, err)
	before, after := map[int]string{}, map[int]string{} // what is inserted at an offset
	seen := map[ast.Node]bool{}
	// place wraps a node, of which those around it have been wrapped.
	place := func(n ast.Node, kinds, prefix, suffix string) {
		if seen[n] {
			return
		}
		seen[n] = true
		start, end := fset.Position(n.Pos()), fset.Position(n.End())
		for kind := range strings.SplitSeq(kinds, "|") {
			name := fmt.Sprintf("%s:%d: %s -> %s", file, start.Line, strings.Join(strings.Fields(string(text[start.Offset:end.Offset])), " "), kind)
			mutants = append(mutants, mutant{fmt.Sprintf("%d%c", count, kind[0]), name})
		}
		number := strings.NewReplacer("%d", strconv.Itoa(count))
		before[start.Offset] += number.Replace(prefix)
		after[end.Offset] = number.Replace(suffix) + after[end.Offset]
		count++
	}
	condition := func(e ast.Expr) {
		if name, ok := e.(*ast.Ident); !ok || name.Name != "true" && name.Name != "false" {
			place(e, "true|false", "mut(%d, ", ")")
		}
	}
	// returns wraps what a function returns, if that is one condition.
	returns := func(t *ast.FuncType, body *ast.BlockStmt) {
		if t.Results == nil || len(t.Results.List) != 1 || fmt.Sprint(t.Results.List[0].Type) != "bool" {
			return
		}
		ast.Inspect(body, func(n ast.Node) bool {
			if r, ok := n.(*ast.ReturnStmt); ok {
				condition(r.Results[0])
			}
			_, other := n.(*ast.FuncLit)
			return !other
		})
	}
	for _, d := range tree.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || slices.Contains(noRules, f.Name.Name) {
			continue
		}
		returns(f.Type, f.Body)
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				returns(n.Type, n.Body)
			case *ast.IfStmt:
				condition(n.Cond)
			case *ast.SwitchStmt:
				for _, c := range n.Body.List {
					for _, e := range c.(*ast.CaseClause).List {
						if n.Tag == nil {
							condition(e)
						}
					}
				}
			case *ast.BinaryExpr:
				if n.Op == token.LAND || n.Op == token.LOR {
					condition(n)
					condition(n.X)
					condition(n.Y)
				}
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					place(n, "f: left out", "if mut(%d, true) {\n", "\n}")
				}
			case *ast.BasicLit:
				if errno.MatchString(n.Value) {
					place(n, "f: another errno", `map[bool]string{false: "EMUTANT", true: `, "}[mut(%d, true)]")
				}
			case *ast.Ident:
				if other := map[string]string{"newest": "oldest", "oldest": "newest"}[n.Name]; other != "" {
					place(n, "f: "+other, "map[bool]func([]int) []int{false: "+other+", true: ", "}[mut(%d, true)]")
				}
			}
			return true
		})
	}
	var out bytes.Buffer
	for i := range len(text) + 1 {
		out.WriteString(after[i] + before[i])
		if i < len(text) {
			out.WriteByte(text[i])
		}
	}
	return mutants, out.Bytes()
}
