//go:build !android && !ios

package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// isFile says that a block is a complete file: it has a package clause, and nothing
// but comments before it.
func (b block) isFile() bool {
	_, err := parser.ParseFile(token.NewFileSet(), "", b.text, parser.PackageClauseOnly)
	return err == nil
}

// goBlocks returns the blocks in Go of all pages: files and fragments.
func goBlocks(t testing.TB) (files, fragments []block) {
	for _, p := range readPages(t) {
		for _, b := range p.blocks {
			if b.lang != "go" {
				assert.NotEqual(t, "go", strings.ToLower(strings.Fields(b.lang + " -")[0]), "%s: write ```go", b.at)
				continue
			}
			if b.isFile() {
				files = append(files, b)
			} else {
				fragments = append(fragments, b)
			}
		}
	}
	return files, fragments
}

// A module is a temporary one in which this tree can be imported.
type module struct{ dir string }

// newModule writes a file for each block, in a folder of its own.
func newModule(t testing.TB, files []block) module {
	t.Helper()
	root, err := filepath.Abs(tree(t))
	require.NoError(t, err)
	m := module{t.TempDir()}
	mod := fmt.Sprintf("module pages\n\ngo 1.25.0\nrequire example.com/reuse v0.0.0\nreplace example.com/reuse => %q\n", root)
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	require.NoError(t, err)
	write := func(name string, text []byte) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(m.dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(m.dir, name), text, 0o600))
	}
	write("go.mod", []byte(mod))
	write("go.sum", sums)
	for i, b := range files {
		write(filepath.Join(fmt.Sprintf("block%d", i), "block.go"), []byte("//line "+b.at+"\n"+b.text))
	}
	if out, err := m.run(runtime.GOOS, "list", "-deps", "-f={{if .Error}}{{.Error}}{{end}}", "./..."); err != nil {
		if os.Geteuid() == 0 {
			t.Fatalf("%v\n%s", err, out)
		}
		// It is not for what the blocks import: see TestBlocks.
		t.Skipf("this user has not downloaded what the tree requires: %v\n%s", err, out)
	}
	return m
}

// run calls the go command. Only root, who may not skip, fetches what is missing: a
// user without modules has no compiled packages either, and would be minutes at it.
func (m module) run(goos string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+runtime.GOARCH, "CGO_ENABLED=0", "GOWORK=off",
		"GOFLAGS="+os.Getenv("GOFLAGS")+" -mod=mod -buildvcs=false")
	if os.Geteuid() != 0 {
		cmd.Env = append(cmd.Env, "GOPROXY=off")
	}
	return cmd.CombinedOutput()
}

// needGo skips where programs cannot be started, or there is no go command.
func needGo(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil && runtime.GOOS != "linux" {
		t.Skip(err)
	}
}

// Every complete file in the pages compiles and has nothing that go vet finds, here
// and on Windows.
func TestBlocks(t *testing.T) {
	t.Parallel()
	root := tree(t)
	files, _ := goBlocks(t)
	require.NotEmpty(t, files)
	for _, b := range files {
		f, err := parser.ParseFile(token.NewFileSet(), b.at, b.text, parser.ImportsOnly)
		require.NoError(t, err)
		assert.NotContains(t, b.text, "//go:build", "%s: it would be compiled nowhere", b.at)
		for _, spec := range f.Imports {
			name := strings.Trim(spec.Path.Value, `"`)
			if below, ours := strings.CutPrefix(name, "example.com/reuse"); ours {
				assert.DirExists(t, filepath.Join(root, filepath.FromSlash(below)), b.at)
			} else {
				first, _, _ := strings.Cut(name, "/")
				assert.NotContains(t, first, ".", "%s: imports %s, which the tree has not", b.at, name)
			}
		}
	}
	if t.Failed() {
		return
	}
	needGo(t)
	m := newModule(t, files)
	for _, goos := range []string{runtime.GOOS, "windows"} {
		out, err := m.run(goos, "vet", "./...")
		assert.NoError(t, err, "%s:\n%s", goos, out)
	}
}

// README's programs are short enough to be read at a glance.
func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	files, _ := goBlocks(t)
	programs := 0
	for _, b := range files {
		if strings.HasPrefix(b.at, "README.md:") {
			programs++
			assert.LessOrEqual(t, strings.Count(b.text, "\n"), 25, b.at)
		}
	}
	assert.Equal(t, 3, programs)
}

// A fragment stands word for word in a Go file of the tree, where it is compiled; it
// may be indented less. A line "// ..." in it stands for lines that were left out.
func TestFragments(t *testing.T) {
	t.Parallel()
	sources := goFiles(t)
	_, fragments := goBlocks(t)
	for _, b := range fragments {
		found := false
		for _, lines := range sources {
			found = found || quoted(lines, strings.Split(strings.TrimRight(b.text, "\n"), "\n"))
		}
		assert.True(t, found, "%s: is in no Go file:\n%s", b.at, b.text)
	}
}

// goFiles returns the lines of all Go files that the go command would compile.
func goFiles(t testing.TB) (list [][]string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(tree(t), func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git" || d.Name() == ".ci"):
			return fs.SkipDir
		case filepath.Ext(name) != ".go":
			return nil
		}
		text, err := os.ReadFile(name)
		if err == nil && !strings.Contains(string(text), "//go:build ignore") {
			list = append(list, strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n"))
		}
		return err
	}))
	return list
}

// quoted says that lines have the fragment, each part of it after the one before.
func quoted(lines, fragment []string) bool {
	for len(fragment) > 0 {
		part := fragment
		fragment = nil
		for i, line := range part {
			if strings.TrimSpace(line) == "// ..." {
				part, fragment = part[:i], part[i+1:]
				break
			}
		}
		at := 0
		for at+len(part) <= len(lines) && !sameIndented(lines[at:at+len(part)], part) {
			at++
		}
		if at+len(part) > len(lines) {
			return false
		}
		lines = lines[at+len(part):]
	}
	return true
}

// sameIndented says that lines are those of a part, all of them indented by as much
// more.
func sameIndented(lines, part []string) bool {
	more := ""
	for i, want := range part {
		if want == "" && lines[i] == "" {
			continue
		}
		if i == 0 {
			var ok bool
			if more, ok = strings.CutSuffix(lines[0], want); !ok || strings.Trim(more, "\t") != "" {
				return false
			}
		}
		if lines[i] != more+want {
			return false
		}
	}
	return true
}

// The test of the fragments finds one that is not there.
func TestQuoted(t *testing.T) {
	t.Parallel()
	lines := strings.Split("func f() {\n\tif a {\n\t\tb()\n\n\t\tc()\n\t}\n\t// a.B()\n}", "\n")
	for text, want := range map[string]bool{
		"if a {\n\tb()\n\n\tc()\n}":    true,
		"if a {\n\tb()\n\tc()\n}":      false,
		"if a {\nb()":                  false,
		"if a {\n\t// ...\n\tc()\n}":   true,
		"c()\n// ...\nb()":             false,
		"a.B()":                        false,
		"b()\n":                        true,
		"func f() {\n// ...\n}":        true,
		"func f() {\n// ...\n\tnone()": false,
	} {
		assert.Equal(t, want, quoted(lines, strings.Split(strings.TrimSuffix(text, "\n"), "\n")), text)
	}
	assert.True(t, block{text: "// Hello.\n\npackage x\n"}.isFile())
	assert.False(t, block{text: "x := 1\n"}.isFile())
}
