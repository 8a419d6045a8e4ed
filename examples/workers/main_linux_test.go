//go:build !android

package main

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

// Where nothing can be reached the example fails, and says what to look at.
func TestNoNetwork(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	cmd := testproc.Command(t, "-connections=100")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET} // without loopback
	out, stderr, status := testproc.Run(t, cmd)
	assert.Equal(t, term.Failed, status)
	assert.Contains(t, stderr, "is the loopback interface up")
	r := parseReport(t, out)
	assert.Equal(t, []int{0, 100}, []int{r.all, r.failed})
}
