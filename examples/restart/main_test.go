//go:build !android && !ios

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

// A hand-over loses nothing. Every request in every mode is counted.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ mode, network string }{
		{"handover", "tcp4"}, {"handover", "tcp"}, {"handover", "tcp6"}, {"handover", "udp"},
		{"naive", "tcp4"}, {"naive", "udp"}, {"gap", "tcp4"}, {"gap", "udp"},
	} {
		t.Run(tt.mode+" "+tt.network, func(t *testing.T) {
			t.Parallel()
			if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
				l.Close()
			} else if tt.network == "tcp6" {
				t.Skip("no IPv6 here: ", err)
			}
			out, stderr, status := testproc.Run(t, testproc.Command(t, "-json", "-restarts=2", "-clients=4", "-mode", tt.mode, "-network", tt.network))
			require.Equal(t, 0, status, stderr)
			assert.Empty(t, stderr)
			var r result
			require.NoError(t, json.Unmarshal([]byte(out), &r), out)
			assert.Equal(t, result{possible(tt.mode), tt.network, 4, 2, r.Fresh, r.Kept}, r)
			for _, l := range []*load{r.Fresh, r.Kept} {
				answered, lost := 0, 0
				for _, n := range l.ByVersion {
					answered += n
				}
				for _, n := range l.Reasons {
					lost += n
				}
				assert.Len(t, l.ByVersion, 3, "a version answered nothing")
				assert.Equal(t, []int{answered + lost, answered, lost}, []int{l.Sent, l.Answered, l.Lost})
				if r.Mode == "handover" {
					assert.Zero(t, l.Lost, l.Reasons)
				}
			}
		})
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t, "-restarts=1", "-clients=2", "-mode=gap")
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	out, stderr, status := testproc.Run(t, cmd)
	assert.Equal(t, 0, status, stderr)
	testproc.Narrow(t, 40, out)
	assert.Regexp(t, `(?s)1 restarts of .*, mode gap.*\nversion 2 started, 1 exited\n.* sent +answered +lost\n +fresh .*\n +kept `, out)
}

// A server exits with the process that started it.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t)
	cmd.Stderr = new(bytes.Buffer) // the servers also have it, and Wait reads it to its end
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	testproc.ReadTo(t, bufio.NewReader(out), "version 2 started")
	require.NoError(t, cmd.Process.Kill())
	assert.Error(t, cmd.Wait()) // returns when the server has exited
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	for arg, says := range map[string]string{
		"-restarts=0":   "at least 1 for -restarts",
		"-clients=1":    "2 for -clients",
		"-network=unix": `-network "unix": give tcp, tcp4, tcp6 or udp`,
		"-mode=overlap": `-mode "overlap": give handover, naive or gap`,
	} {
		out, stderr, status := testproc.Run(t, testproc.Command(t, arg))
		assert.Equal(t, 2, status, arg)
		assert.Empty(t, out)
		assert.Contains(t, stderr, says)
	}
}
