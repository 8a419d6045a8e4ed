//go:build !android && !ios

// Command pictures draws those of docs: go generate. A test compares the committed
// files with what it draws.
//
// They are SVG, so that they stay sharp, follow the reader's colors, and show in a
// diff what has changed.
package main

import (
	"log"
	"os"
	"path/filepath"
)

//go:generate go run . ../../docs

// pictures are the files by name.
var pictures = map[string]func() []byte{
	"naive.svg":  naive,
	"spread.svg": spread,
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("pictures: ")
	if len(os.Args) != 2 {
		log.Fatal("the folder to write to is wanted, as in: go run ./internal/pictures docs")
	}
	for name, draw := range pictures {
		if err := os.WriteFile(filepath.Join(os.Args[1], name), draw(), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
