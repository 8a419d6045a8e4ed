//go:build !android && !ios

// Command docs writes docs/semantics.md and docs/claims.md from the rules in
// internal/semantics. A test compares the committed pages with what it writes.
//
// go generate, in the root folder, runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("dir", "docs", "the folder to write to")
	flag.Parse()
	if err := write(*dir); err != nil {
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
