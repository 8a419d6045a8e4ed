//go:build !android && !ios

// Command pages writes docs/semantics.md from the rules in internal/semantics. Tests compare
// the committed page with what it writes, and check the other pages.
//
// go generate, in the root folder, runs it.
package main

import (
	"log"
	"os"
)

func main() {
	if err := os.WriteFile("docs/semantics.md", []byte(semanticsPage()), 0o644); err != nil {
		log.Fatal(err)
	}
}
