//go:build !android && !ios

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What cannot be imported is refused.
func TestPublicPath(t *testing.T) {
	t.Parallel()
	for path, ok := range map[string]bool{"github.com/you/reuse": true, "reuse.dev": true, "https://github.com/you/reuse": false, "Foo/": false, "-h": false} {
		assert.Equal(t, ok, public.MatchString(path), path)
	}
}

// A renamed copy builds, and has nothing of the placeholder left.
func TestRenamedCopyBuilds(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("../..")))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, ".git")))
	n, err := rename(dir, "github.com/you/reuse")
	require.NoError(t, err)
	assert.Greater(t, n, 100)
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	require.NoError(t, err)
	assert.Contains(t, string(readme), "go get github.com/you/reuse\n")
	assert.NotContains(t, string(readme), "placeholder")
	require.NoError(t, filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(name)
		assert.False(t, path.Match(text), name)
		return err
	}))
	command := func(args ...string) ([]byte, error) {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOPROXY=off", "GOFLAGS=-buildvcs=false")
		return cmd.CombinedOutput()
	}
	if out, err := command("mod", "download"); err != nil {
		t.Skipf("this user has not downloaded what the tree requires: %s", out)
	}
	out, err := command("build", "./handover/...", "./inuse")
	require.NoError(t, err, "%s", out)
	_, err = rename(dir, "github.com/them/reuse")
	assert.ErrorContains(t, err, "has a path already: module github.com/you/reuse")
}
