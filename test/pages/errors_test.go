//go:build !android && !ios

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each error text in the code of a package stands in the package's tables of
// docs/errors.md, and no other. A word in capitals on the page stands for a verb of
// the format.
func TestErrorsAreListed(t *testing.T) {
	t.Parallel()
	page := read(t, "docs/errors.md")
	for name, dir := range map[string]string{"reuse": ".", "handover": "handover", "handoverhttp": "handover/handoverhttp", "inuse": "inuse"} {
		_, section, found := strings.Cut(page, "\n## Package "+name+"\n")
		require.True(t, found, name)
		section, _, _ = strings.Cut(section, "\n## ")
		var listed []string
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
			listed = append(listed, row[1])
		}
		texts := errorTexts(t, filepath.Join(root, dir))
		require.NotEmpty(t, texts, name)
		for text, at := range texts {
			match := onPage(text).MatchString
			assert.True(t, slices.ContainsFunc(listed, match), "%s: docs/errors.md does not list %q under package %s", at, text, name)
			listed = slices.DeleteFunc(listed, match)
		}
		assert.Empty(t, listed, "docs/errors.md lists texts that package %s does not have", name)
	}
}

// neverReturned are the texts of errors that stay inside their package.
var neverReturned = []string{"probed", "a second listener is refused", "not opened", "another process has the lock", "not bound"}

// errorTexts returns the error texts in a folder, and where each stands: what is passed to
// errors.New, fmt.Errorf, unsupportedReason and probeSecond, a field or constant called
// reason, and what a method Error returns. A format loses the errors that it wraps at its
// ends.
func errorTexts(t *testing.T, dir string) map[string]token.Position {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	texts, fset := map[string]token.Position{}, token.NewFileSet()
	add := func(e ast.Expr) {
		text := strings.TrimPrefix(format(e), "%w: ")
		for strings.HasSuffix(text, ": %w") {
			text = strings.TrimSuffix(text, ": %w")
		}
		if verbs.ReplaceAllString(text, "") != "" && text != "%v: %v" && !slices.Contains(neverReturned, text) {
			texts[text] = fset.Position(e.Pos())
		}
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		inError := false
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				inError = n.Name.Name == "Error"
			case *ast.ReturnStmt:
				if inError {
					add(n.Results[0])
				}
			case *ast.CallExpr:
				switch types.ExprString(n.Fun) {
				case "errors.New", "fmt.Errorf", "unsupportedReason", "probeSecond":
					add(n.Args[0])
				}
			case *ast.KeyValueExpr:
				if types.ExprString(n.Key) == "reason" {
					add(n.Value)
				}
			case *ast.ValueSpec:
				if n.Values != nil && (n.Names[0].Name == "reason" || n.Names[0].Name == "noOptions") {
					add(n.Values[0])
				}
			}
			return true
		})
	}
	return texts
}

// format returns a string expression as a format: what is no literal is %v.
func format(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return format(e.X) + format(e.Y)
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil {
			return text
		}
	}
	return "%v"
}

var verbs = regexp.MustCompile(`%\w+`)

// onPage matches a format as the page has it.
func onPage(format string) *regexp.Regexp {
	text := strings.ReplaceAll(regexp.QuoteMeta(format), "%q", `"[A-Z]+"`)
	text = regexp.MustCompile(`^%w ([a-z])`).ReplaceAllString(text, "unsupported operation $1")
	return regexp.MustCompile("^" + verbs.ReplaceAllString(text, "[A-Z]+") + "$")
}
