//go:build !android && !ios

package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/reuse"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain is the example itself in the processes that the tests start.
func TestMain(m *testing.M) {
	if os.Getenv("REUSE_EXAMPLE") == "1" {
		main()
	}
	if os.Getenv("GORACE") == "" { // a process built with -race ends with a second's sleep
		os.Setenv("GORACE", "atexit_sleep_ms=1")
	}
	os.Exit(m.Run())
}

// example runs the example in a process of its own, if there are processes.
func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		status = run(args, &out, &errs)
		return out.String(), errs.String(), status
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "REUSE_EXAMPLE=1")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestBothReceiversGetAll(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"-group", "239.255.255.250"}} {
		stdout, stderr, status := example(t, args...)
		if err := reuse.Addr.Supported(); err != nil {
			assert.Equal(t, 1, status)
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, "reuse: set Addr on "+runtime.GOOS+": unsupported")
			continue
		}
		require.Equal(t, 0, status, "%s%s", stdout, stderr)
		assert.Empty(t, stderr)
		ports := regexp.MustCompile(`Receiver \d is bound to 0\.0\.0\.0:(\d+), Addr=On`).FindAllStringSubmatch(stdout, -1)
		require.Len(t, ports, 2, stdout)
		assert.Equal(t, ports[0][1], ports[1][1], "the receivers' ports")
		for r := 1; r <= 2; r++ {
			got := regexp.MustCompile(fmt.Sprintf(`Receiver %d gets "(.*)"`, r)).FindAllStringSubmatch(stdout, -1)
			require.Len(t, got, datagrams, stdout)
			for i := range datagrams {
				assert.Equal(t, fmt.Sprintf("datagram %d of %d", i+1, datagrams), got[i][1])
			}
		}
	}
}

// A receiver on the same port gets its own group only.
func TestOtherGroupsStayOut(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("some systems give a socket the groups that others have joined")
	}
	one, two := netip.MustParseAddr("239.86.21.8"), netip.MustParseAddr("239.86.21.9")
	first, err := receive(netip.AddrPortFrom(one, 0))
	require.NoError(t, err)
	defer first.Close()
	port := first.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	second, err := receive(netip.AddrPortFrom(two, port))
	require.NoError(t, err)
	defer second.Close()
	sender, err := send()
	require.NoError(t, err)
	defer sender.Close()
	from := sender.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, group := range []netip.Addr{one, two} {
		_, err := sender.WriteToUDPAddrPort([]byte(group.String()), netip.AddrPortFrom(group, port))
		require.NoError(t, err)
	}
	// Datagrams keep their order here, so the other group's would come first.
	require.NoError(t, second.SetReadDeadline(time.Now().Add(patience)))
	got, err := next(second, from)
	require.NoError(t, err)
	assert.Equal(t, two.String(), got)
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-nonsense"},
		{"nonsense"},
		{"-group"},
		{"-group", "nonsense"},
		{"-group", "127.0.0.1"},
		{"-group", "ff02::1"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			stdout, stderr, status := example(t, args...)
			assert.Equal(t, 2, status)
			assert.Empty(t, stdout)
			assert.NotEmpty(t, stderr)
		})
	}
	stdout, stderr, status := example(t, "-h")
	assert.Equal(t, 0, status)
	assert.Contains(t, stdout+stderr, "IPv4 multicast group")
}
