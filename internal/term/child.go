package term

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

const jobEnv = "REUSE_EXAMPLE_JOB"

// A Process is a child process that runs this program. Wait waits until it exits.
type Process struct {
	*exec.Cmd
	Line  string // the first one that it printed
	stdin io.Closer
}

// Start runs this program in another process, where Child does the job. It returns when
// the process has printed a line. The process exits at Stop or when this process exits, and
// is killed after a minute.
func Start(job any) (*Process, error) {
	exe, err := os.Executable()
	text, jsonErr := json.Marshal(job)
	p := &Process{Cmd: exec.Command(exe)}
	p.Env = append(os.Environ(), jobEnv+"="+string(text))
	p.Stderr = os.Stderr
	stdin, stdinErr := p.StdinPipe()
	stdout, stdoutErr := p.StdoutPipe()
	p.stdin = stdin
	if err = errors.Join(err, jsonErr, stdinErr, stdoutErr); err == nil {
		err = p.Cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start another process: %w", err)
	}
	time.AfterFunc(time.Minute, func() { _ = p.Process.Kill() }) // fails if it has exited
	if p.Line, err = bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("the other process did not start: %w", cmp.Or(p.Stop(), err))
	}
	p.Line = strings.TrimSpace(p.Line)
	return p, nil
}

// Stop ends the job's context, and waits until the process exits.
func (p *Process) Stop() error {
	p.stdin.Close()
	return p.Wait()
}

// Child does the job and exits if Start has started this process; otherwise it returns.
// The job's context ends at Stop, and when the process that called Start exits.
func Child[Job any](do func(context.Context, Job) error) {
	text := os.Getenv(jobEnv)
	if text == "" {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until Stop closes it, or its process exits
		cancel()
	}()
	var job Job
	err := json.Unmarshal([]byte(text), &job)
	if err == nil {
		err = do(ctx, job)
	}
	exit(err)
}
