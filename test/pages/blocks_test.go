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
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// elsewhere are the pages whose blocks import what this module does not require, with the
// module whose tests compile them.
var elsewhere = map[string]string{"docs/servers.md": "internal/servers"}

// A block is Go code in a page, by the page's name and a number.
type block struct{ at, text string }

// goBlocks returns the blocks in Go of all pages: complete files and fragments.
func goBlocks(t testing.TB) (files, fragments []block) {
	t.Helper()
	for page, text := range pages(t) {
		if dir, ok := elsewhere[page]; ok {
			assert.FileExists(t, filepath.Join(root, dir, "go.mod"))
			continue
		}
		for i, m := range fenced.FindAllStringSubmatch(text, -1) {
			b := block{fmt.Sprintf("%s, block %d", page, i+1), m[2]}
			if m[1] != "go" {
				continue
			}
			if _, err := parser.ParseFile(token.NewFileSet(), "", b.text, parser.PackageClauseOnly); err == nil {
				files = append(files, b)
			} else {
				fragments = append(fragments, b)
			}
		}
	}
	return files, fragments
}

// write writes a block to a file of its own.
func (b block) write(t testing.TB) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "block.go")
	require.NoError(t, os.WriteFile(file, []byte(b.text), 0o600))
	return file
}

// goTool runs the go command in the tree. Only root, who may not skip, fetches what is
// missing: a user without modules has no compiled packages either, and would be minutes at
// it.
func goTool(goos string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+runtime.GOARCH, "CGO_ENABLED=0", "GOWORK=off",
		"GOFLAGS="+os.Getenv("GOFLAGS")+" -buildvcs=false")
	if os.Geteuid() != 0 {
		cmd.Env = append(cmd.Env, "GOPROXY=off")
	}
	return cmd.CombinedOutput()
}

// needModules skips the test if this user has not downloaded what the tree requires.
func needModules(t testing.TB) {
	t.Helper()
	if out, err := goTool(runtime.GOOS, "list", "-deps", "./handover/...", "./inuse"); err != nil {
		if os.Geteuid() == 0 {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Skipf("this user has not downloaded what the tree requires: %v\n%s", err, out)
	}
}

// Every complete file in the pages compiles and has nothing that go vet finds, here and on
// Windows.
func TestFilesCompile(t *testing.T) {
	t.Parallel()
	files, _ := goBlocks(t)
	require.NotEmpty(t, files)
	needModules(t)
	for _, b := range files {
		assert.NotContains(t, b.text, "//go:build", "%s: it would be compiled nowhere", b.at)
		for _, goos := range []string{runtime.GOOS, "windows"} {
			out, err := goTool(goos, "vet", b.write(t))
			assert.NoError(t, err, "%s, %s:\n%s", b.at, goos, out)
		}
	}
}

// A fragment stands word for word in a Go file of the tree, where it is compiled. It may be
// indented less; a line "// ..." in it stands for lines that were left out.
func TestFragmentsAreQuoted(t *testing.T) {
	t.Parallel()
	_, fragments := goBlocks(t)
	var sources strings.Builder
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".go" || strings.HasPrefix(name, ".ci/") {
			return err
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		sources.WriteString("\x00" + strings.ReplaceAll(string(text), "\r\n", "\n")) // no fragment continues in the next file
		return err
	}))
	for _, b := range fragments {
		assert.True(t, pattern(b.text).MatchString(sources.String()), "%s: it is in no Go file:\n%s", b.at, b.text)
	}
}

// pattern matches a fragment in a file.
func pattern(fragment string) *regexp.Regexp {
	var p strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(fragment, "\n"), "\n") {
		switch bare := strings.TrimLeft(line, "\t"); bare {
		case "":
			p.WriteString("\n")
		case "// ...":
			p.WriteString("(?:[^\x00\n]*\n)*?")
		default:
			p.WriteString("\t*" + regexp.QuoteMeta(bare) + "\n")
		}
	}
	return regexp.MustCompile("(?m)^" + p.String())
}
