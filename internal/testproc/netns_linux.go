package testproc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const netnsEnv = "REUSE_TEST_NETNS"

// Netns runs the calling test again, alone in a process with its own network namespace
// whose loopback is up, and reports its result. It returns true in that process, where the
// test continues, and false in the first one, where the test is done. It skips the test if
// the user may not make a namespace. more are the clone flags of further namespaces.
func Netns(t *testing.T, more ...uintptr) bool {
	t.Helper()
	if os.Getenv(netnsEnv) == t.Name() {
		err := loopbackUp()
		if errors.Is(err, os.ErrPermission) { // namespaces that may do nothing
			t.Skipf("this user may not configure a network namespace: %v", err)
		}
		require.NoError(t, err)
		return true
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	pattern := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	cmd := exec.Command(exe, "-test.run="+pattern, "-test.v", "-test.count=1", fmt.Sprint("-test.short=", testing.Short()))
	cmd.Env = append(os.Environ(), netnsEnv+"="+t.Name(), "GORACE=atexit_sleep_ms=0 halt_on_error=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	for _, flag := range more {
		cmd.SysProcAttr.Cloneflags |= flag
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Start()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) {
		t.Skipf("this user may not make a network namespace: %v", err)
	}
	require.NoError(t, err)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("in its own network namespace: %v\n%s", err, out.String())
	}
	if strings.Contains(out.String(), "--- SKIP: "+t.Name()) {
		t.Skipf("in its own network namespace:\n%s", out.String())
	}
	require.Contains(t, out.String(), "--- PASS: "+t.Name(), "the test did not run in its namespace")
	return false
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
	err = unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
	if err == unix.ENOTTY { // gVisor, where it is up by now
		return nil
	}
	return err
}
