package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideEnv tells a process that it is in a network namespace of its own.
const insideEnv = "REUSE_SOAK_INSIDE"

const nobody = 65534

// self is this program. Unlike its path it can be run by a user who may not enter
// the folder that it is in.
func self() string { return "/proc/self/exe" }

// asNobody returns true if the soak shall run in this process. For root, who needs
// no right to hand over, it runs in another one: user nobody's, with a network
// namespace of its own that has default settings.
func asNobody(ctx context.Context) (inside bool, err error) {
	if os.Geteuid() != 0 {
		return true, nil
	}
	if os.Getenv(insideEnv) == "" {
		cmd := exec.Command(self(), os.Args[1:]...)
		cmd.Env = append(os.Environ(), insideEnv+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
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
	}
	if err := loopbackUp(); err != nil {
		return false, fmt.Errorf("loopback: %w", err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return false, os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
		return false, os.NewSyscallError("setresgid", err)
	}
	return true, os.NewSyscallError("setresuid", syscall.Setresuid(nobody, nobody, nobody))
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}
