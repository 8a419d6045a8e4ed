//go:build !android

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// README's programs do what README says of them. They have port 8080 of a network
// namespace of their own.
func TestReadmePrograms(t *testing.T) {
	t.Parallel()
	all, _ := goBlocks(t)
	var files []block
	for _, b := range all {
		if strings.HasPrefix(b.at, "README.md:") {
			files = append(files, b)
		}
	}
	require.Len(t, files, 3)
	m := newModule(t, files) // fetches what it needs, which the namespace cannot
	if !testproc.Netns(t) {
		return
	}
	bin := t.TempDir()
	out, err := m.run("linux", "build", "-o", bin, "./...")
	require.NoError(t, err, "%s", out)
	start := func(t *testing.T, i int) *program {
		return startProgram(t, filepath.Join(bin, fmt.Sprintf("block%d", i)))
	}

	t.Run("hand-over", func(t *testing.T) {
		var old *program
		for range 3 {
			next := start(t, 0)
			require.Eventually(t, func() bool {
				return answer(t) == fmt.Sprintf("process %d\n", next.cmd.Process.Pid)
			}, 20*time.Second, time.Millisecond)
			if old != nil {
				require.NoError(t, old.cmd.Wait(), "it exits with 0")
			}
			old = next
		}
		require.NoError(t, old.cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, old.cmd.Wait())
	})
	t.Run("processes", func(t *testing.T) {
		want := map[string]bool{}
		for range 2 {
			want[fmt.Sprintf("process %d\n", start(t, 1).cmd.Process.Pid)] = true
		}
		require.Eventually(t, func() bool {
			delete(want, answer(t))
			return len(want) == 0
		}, 20*time.Second, time.Millisecond, "both serve")
	})
	t.Run("exclusive", func(t *testing.T) {
		start(t, 2)
		require.Eventually(t, func() bool { return answer(t) != "" }, 20*time.Second, time.Millisecond)
		for _, address := range []string{":8080", "127.0.0.1:8080"} {
			_, err := reuse.Config{Addr: reuse.On, Port: reuse.On}.Listen(t.Context(), "tcp", address)
			require.ErrorIs(t, err, syscall.EADDRINUSE)
		}
		start(t, 2).says("address already in use")
	})
}

// A program that runs until the test ends, or a minute is over.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *bufio.Scanner
	said string
}

func startProgram(t *testing.T, file string) *program {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, file)
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() }) // it is killed by then
	return &program{t: t, cmd: cmd, log: bufio.NewScanner(log)}
}

// says waits for a line that has a text, if there was none before.
func (p *program) says(text string) {
	p.t.Helper()
	for !strings.Contains(p.said, text) {
		require.True(p.t, p.log.Scan(), "it has ended, and not said %q:\n%s", text, p.said)
		p.said += p.log.Text() + "\n"
	}
}

// answer asks whoever has the port. It is empty while nobody has.
func answer(t *testing.T) string {
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
