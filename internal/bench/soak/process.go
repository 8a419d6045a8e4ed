//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A process is a server as its parent sees it.
type process struct {
	service
	cmd      *exec.Cmd
	pid      int
	in       io.WriteCloser
	steps    chan []string // what it reports; closed at its end
	accepted atomic.Int64
}

// nobody is the user that root's servers run as.
const nobody = 65534

// start starts a server, which begins to take over.
func start(s service) (*process, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	// Unlike its path, the user may run this even without a right to the folder.
	p := &process{service: s, cmd: exec.Command("/proc/self/exe"), steps: make(chan []string, 100)}
	p.cmd.Env = append(os.Environ(), serverEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	if os.Geteuid() == 0 {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.pid = p.cmd.Process.Pid
	go func() {
		defer close(p.steps)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == "+" {
				p.accepted.Add(1)
			} else {
				p.steps <- strings.Fields(lines.Text())
			}
		}
	}()
	return p, p.tell()
}

// startTo starts a server, and waits until it reports a step.
func startTo(step string, s service) (*process, error) {
	p, err := start(s)
	if err == nil {
		_, err = p.await(step)
	}
	return p, err
}

// tell sends a line: take over, or call Ready.
func (p *process) tell() error {
	_, err := io.WriteString(p.in, "\n")
	return err
}

// await waits until the server reports a step, and returns what it says of it.
func (p *process) await(step string) ([]string, error) {
	for late := time.After(2 * p.Patience); ; {
		select {
		case words, ok := <-p.steps:
			switch {
			case !ok:
				return nil, fmt.Errorf("server %d ended before %q", p.pid, step)
			case words[0] == step:
				return words[1:], nil
			case words[0] == "failed":
				return nil, fmt.Errorf("server %d before %q: %s", p.pid, step, strings.Join(words[1:], " "))
			}
		case <-late:
			return nil, fmt.Errorf("server %d does not report %q", p.pid, step)
		}
	}
}

// replaced waits until a server has answered everything, and for its end.
func (p *process) replaced() error {
	_, err := p.await("done")
	return errors.Join(err, p.end())
}

// end has a server drain and waits for its end.
func (p *process) end() error {
	late := time.AfterFunc(2*p.Patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	return p.wait()
}

// kill ends a server by force, or waits if it has ended by itself.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.wait()
}

// wait waits for the end of a server, after which accepted is final.
func (p *process) wait() error {
	p.in.Close()
	for range p.steps { //nolint:revive // all that it reports
	}
	return p.cmd.Wait()
}

// freeze stops a server, and waits until all its threads have stopped.
func (p *process) freeze() error {
	if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		_, err := syscall.Wait4(p.pid, nil, syscall.WUNTRACED, nil)
		if err != syscall.EINTR {
			return os.NewSyscallError("wait4", err)
		}
	}
}
