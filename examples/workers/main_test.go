//go:build !android && !ios

package main

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

// Each connection is got by one of the processes. Where the kernel spreads them, each
// process gets some.
func TestWorkers(t *testing.T) {
	t.Parallel()
	out, stderr, status := testproc.Run(t, testproc.Command(t, "-n=3", "-connections=1500"))
	if err := reuse.Port.Supported(); err != nil {
		assert.Equal(t, 2, status)
		assert.Contains(t, stderr, "cannot share a port here: "+err.Error())
		return
	}
	require.Equal(t, 0, status, "%s%s", out, stderr)
	rows := regexp.MustCompile(`(?m)^ +\d+ +(\d+) +[\d.]+%$`).FindAllStringSubmatch(out, -1)
	require.Len(t, rows, 3, out)
	sum := 0
	for _, row := range rows {
		n, err := strconv.Atoi(row[1])
		require.NoError(t, err)
		assert.True(t, n > 0 || reuse.PortLB.Supported() != nil, out)
		sum += n
	}
	assert.Equal(t, 1500, sum)
}

// A connection that no worker answers fails the example.
func TestNotAnswered(t *testing.T) {
	t.Parallel()
	assert.NoError(t, report([]int{1, 2}, 3, map[int]int{1: 2, 2: 1}, nil))
	assert.EqualError(t, report([]int{1, 2}, 3, map[int]int{1: 1, 3: 1}, map[string]int{"EOF": 1}), "2 of 3 connections were not answered by a worker")
}
