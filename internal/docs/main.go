//go:build !android && !ios

// Command docs writes docs/semantics.md, docs/claims.md and the table in README.md
// from the rules in internal/semantics. A test compares the committed pages with what
// it writes.
//
// go generate, in the root folder, runs it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("dir", "docs", "the folder to write to")
	readme := flag.String("readme", "README.md", "the file whose table is replaced")
	flag.Parse()
	if err := errors.Join(write(*dir), writeTable(*readme)); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	for name, page := range pages() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(page), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pages returns the text of each page by its file's name.
func pages() map[string]string {
	return map[string]string{"semantics.md": semanticsPage(), "claims.md": claimsPage()}
}
