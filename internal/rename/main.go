//go:build !android && !ios

// Command rename gives the module and the modules below it a public path in place of
// example.com/reuse: in every go.mod, import and page. From the root of a clone:
//
//	go run ./internal/rename github.com/you/reuse
//
// It removes itself.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

var (
	public      = regexp.MustCompile(`^[a-z0-9.-]+\.[a-z]+(/[A-Za-z0-9._~-]+)*$`)
	path        = regexp.MustCompile(`example\.com/reuse\b`)
	placeholder = regexp.MustCompile(`(?s)<!-- placeholder -->.*?<!-- /placeholder -->`)
)

func main() {
	if len(os.Args) != 2 || !public.MatchString(os.Args[1]) {
		fmt.Fprintln(os.Stderr, "usage: go run ./internal/rename github.com/you/reuse")
		os.Exit(2)
	}
	n, err := rename(".", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "rename:", err)
		os.Exit(1)
	}
	fmt.Println("renamed in", n, "files")
}

// rename returns how many files below dir it changed. It removes this program.
func rename(dir, to string) (n int, err error) {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return 0, err
	}
	if !path.Match(mod) {
		return 0, fmt.Errorf("%s has a path already: %s", dir, bytes.SplitN(mod, []byte("\n"), 2)[0])
	}
	if err := os.RemoveAll(filepath.Join(dir, "internal", "rename")); err != nil {
		return 0, err
	}
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		old, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		text := placeholder.ReplaceAll(old, []byte("```sh\ngo get example.com/reuse\n```"))
		text = path.ReplaceAllLiteral(text, []byte(to))
		if bytes.Equal(text, old) {
			return nil
		}
		if filepath.Ext(name) == ".go" {
			if text, err = format.Source(text); err != nil { // the imports' order
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		n++
		return os.WriteFile(name, text, 0) // it keeps its mode
	})
	return n, err
}
