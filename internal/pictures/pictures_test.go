//go:build !android && !ios

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFresh(t *testing.T) {
	t.Parallel()
	docs := filepath.Join("..", "..", "docs")
	if _, err := os.Stat(docs); err != nil {
		t.Skipf("this test reads the repository: %v", err)
	}
	for name, draw := range pictures {
		committed, err := os.ReadFile(filepath.Join(docs, name))
		require.NoError(t, err)
		assert.Equal(t, string(draw()), strings.ReplaceAll(string(committed), "\r\n", "\n"),
			"docs/%s is not what this program draws: go generate ./internal/pictures", name)
	}
}

func TestWellFormed(t *testing.T) {
	t.Parallel()
	for name, draw := range pictures {
		d := xml.NewDecoder(strings.NewReader(string(draw())))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, name)
		}
	}
}
