// Package netns gives the programs of root a network namespace of their own.
package netns

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideEnv tells a process that it is in a network namespace of its own.
const insideEnv = "REUSE_BENCH_INSIDE"

// Own returns true if the calling process does the program's work. For root another
// process does, in a network namespace of its own with default settings: no other
// process takes a port there, and no firewall rule of the machine applies.
func Own(ctx context.Context) (inside bool, err error) {
	if os.Geteuid() != 0 {
		return true, nil
	}
	if os.Getenv(insideEnv) != "" {
		return true, loopbackUp()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("a network namespace: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() <= 0 {
		return false, err
	}
	os.Exit(cmd.ProcessState.ExitCode()) // it has said why
	return false, nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
		return os.NewSyscallError("ioctl", err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return os.NewSyscallError("ioctl", unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr))
}
