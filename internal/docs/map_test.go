//go:build !android && !ios

package main

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The map of CONTRIBUTING.md has every file of the tree in one line, and no other. A
// line names files, patterns of them, or folders, which end in a slash.
func TestMap(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "## Where things are\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	hits := map[string]int{}
	name := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, m := range name.FindAllStringSubmatch(cells[1], -1) {
			assert.NotContains(t, hits, m[1], "twice")
			hits[m[1]] = 0
		}
	}
	require.NotEmpty(t, hits)
	err = filepath.WalkDir(root, func(file string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case rel == ".git":
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil // a work tree's
		case d.IsDir(), path.Ext(rel) == ".test", path.Ext(rel) == ".prof": // .gitignore
			return nil
		}
		lines := 0
		for pattern := range hits {
			ok := strings.HasSuffix(pattern, "/") && strings.HasPrefix(rel, pattern)
			if !ok {
				if ok, err = path.Match(pattern, rel); err != nil {
					return err
				}
			}
			if ok {
				hits[pattern]++
				lines++
			}
		}
		assert.Equal(t, 1, lines, "%s is in that many lines of the map", rel)
		return nil
	})
	require.NoError(t, err)
	for pattern, n := range hits {
		assert.NotZero(t, n, "the map has %s, the tree has not", pattern)
	}
}
