//go:build !android && !ios

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every clause of a small rule has its mutants, and the source has all of them.
func TestMutate(t *testing.T) {
	t.Parallel()
	const source = `package p

func rule(a, b int) string {
	switch {
	case a == b && !(a > 1 || b > 1):
		return "EADDRINUSE"
	case newest(a):
		a = 7
	}
	return ""
}

func holds(a int) bool { return a > 1 }
`
	mutants, changed, err := mutate("p.go", []byte(source), 100)
	require.NoError(t, err)
	var names []string
	for _, m := range mutants {
		names = append(names, m.id+" "+m.name)
	}
	assert.Equal(t, []string{
		"100f p.go rule: a == b && !(a > 1 || b > 1) -> false",
		"100i p.go rule: a == b && !(a > 1 || b > 1) -> inverted",
		"100t p.go rule: a == b && !(a > 1 || b > 1) -> true",
		"101f p.go rule: a == b -> false",
		"101t p.go rule: a == b -> true",
		"102f p.go rule: !(a > 1 || b > 1) -> false",
		"102t p.go rule: !(a > 1 || b > 1) -> true",
		"103f p.go rule: a > 1 -> false",
		"103t p.go rule: a > 1 -> true",
		"104f p.go rule: b > 1 -> false",
		"104t p.go rule: b > 1 -> true",
		"105x p.go rule: \"EADDRINUSE\" -> another errno",
		"106f p.go rule: newest(a) -> false",
		"106i p.go rule: newest(a) -> inverted",
		"106t p.go rule: newest(a) -> true",
		"107p p.go rule: newest -> oldest",
		"108f p.go rule: a = 7 -> left out",
		"109f p.go holds: a > 1 -> false",
		"109i p.go holds: a > 1 -> inverted",
		"109t p.go holds: a > 1 -> true",
	}, names)
	text := strings.Join(strings.Fields(string(changed)), " ")
	for _, want := range []string{
		`case mutCond(100, mutCond(101, a == b) && mutCond(102, !(mutCond(103, a > 1) || mutCond(104, b > 1)))): return mutText(105, "EADDRINUSE")`,
		`case mutCond(106, mutPick(107, newest, oldest)(a)): if mutCond(108, true) { a = 7 }`,
		`return mutCond(109, a > 1) }`,
	} {
		assert.Contains(t, text, want)
	}
	_, _, err = mutate("p.go", []byte("package"), 0)
	assert.Error(t, err)
}

func TestSurvivors(t *testing.T) {
	t.Parallel()
	got, err := parseSurvivors("# comment\n\na: b -> true\tit is the same\n")
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a: b -> true": "it is the same"}, got)
	_, err = parseSurvivors("no reason\n")
	assert.Error(t, err)
	_, err = parseSurvivors("no reason\t \n")
	assert.Error(t, err)
	_, err = parseSurvivors(explained)
	assert.NoError(t, err)
}
