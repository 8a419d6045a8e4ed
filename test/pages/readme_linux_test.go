//go:build !android

package main

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/testproc"
)

// README's server does what README says of it. It has port 8080 of a network namespace of
// its own.
func TestReadmePrograms(t *testing.T) {
	t.Parallel()
	files, _ := goBlocks(t)
	files = slices.DeleteFunc(files, func(b block) bool { return !strings.HasPrefix(b.at, "README.md,") })
	require.Len(t, files, 1)
	needModules(t) // fetches them, which the namespace cannot
	if !testproc.Netns(t) {
		return
	}
	server := filepath.Join(t.TempDir(), "server")
	out, err := goTool("linux", "build", "-o", server, files[0].write(t))
	require.NoError(t, err, "%s", out)
	// start starts a server, and waits until it serves.
	start := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), server)
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool { return get(t) == fmt.Sprintf("process %d\n", cmd.Process.Pid) }, 20*time.Second, time.Millisecond)
		return cmd
	}
	old := start()
	for range 2 {
		next := start()
		require.NoError(t, old.Wait(), "it exits with 0")
		old = next
	}
	require.NoError(t, old.Process.Signal(syscall.SIGTERM))
	require.NoError(t, old.Wait())
}

// get returns what the server on the port answers, "" if nothing listens.
func get(t *testing.T) string {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://127.0.0.1:8080/")
	if err != nil {
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		return ""
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(text)
}
