//go:build !android && !ios

package main

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each exported function, type and method has an Example on its package's page. An
// Example of a type counts for the methods that any value has to have, as Error.
func TestEveryExample(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{".", "inuse"} {
		names, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
		require.NoError(t, err)
		var files []*ast.File
		set := token.NewFileSet()
		declared := map[string]bool{}
		for _, name := range names {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			file, err := parser.ParseFile(set, name, text, parser.ParseComments)
			require.NoError(t, err)
			files = append(files, file)
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Name.IsExported() {
					declared[exampleName(f)] = true
				}
			}
		}
		require.NotEmpty(t, declared, "no source in %s", dir)
		examples := map[string]bool{}
		for _, e := range doc.Examples(files...) {
			examples[e.Name] = true
			name, suffix, _ := strings.Cut(e.Name, "_")
			examples[name] = true // of a type, or with a suffix
			method, _, _ := strings.Cut(suffix, "_")
			examples[name+"_"+method] = true
		}
		for name := range declared {
			typ, method, _ := strings.Cut(name, "_")
			switch method {
			case "Error", "Unwrap", "Is", "String":
				name = typ
			}
			if typ != "" && ast.IsExported(typ) {
				assert.Contains(t, examples, name, "no Example in %s", dir)
			}
		}
	}
}

// exampleName is what the Example of a function is called, after Example.
func exampleName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	t := f.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	return t.(*ast.Ident).Name + "_" + f.Name.Name
}
