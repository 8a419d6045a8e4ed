//go:build !android && !ios

package main

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return testproc.Example(t, run, args...)
}

func TestBothReceiversGetAll(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"-group", "239.255.255.250"}} {
		stdout, stderr, status := example(t, args...)
		if err := reuse.Addr.Supported(); err != nil {
			assert.Equal(t, term.Failed, status)
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
			assert.Equal(t, term.Failed, status)
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, "multicast: ")
			assert.Contains(t, stderr, "\nFor help: go run ./examples/multicast -h\n")
		})
	}
	stdout, stderr, status := example(t, "-h")
	assert.Equal(t, term.OK, status)
	assert.Empty(t, stderr)
	testproc.Help(t, "multicast", stdout, "group address")
	testproc.Lost(t, run, "-h")
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t)
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	stdout, _, _ := testproc.Run(t, cmd)
	testproc.Narrow(t, 40, stdout)
}

func TestOutputLost(t *testing.T) {
	t.Parallel()
	if err := reuse.Addr.Supported(); err != nil {
		t.Skip(err)
	}
	testproc.Lost(t, run)
}
