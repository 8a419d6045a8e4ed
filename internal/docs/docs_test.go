//go:build !android && !ios

package main

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/implied"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) {
	testproc.Main(m, map[string]testproc.Child{"serve": serve})
}

// serve is a server that accepts one connection and waits for its end.
func serve(_ []string, in *bufio.Scanner, out io.Writer) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr())
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintln(out, "accepted")
	in.Scan()
	return in.Err()
}

// tree returns the root of the repository, or skips where the test binary runs
// without it.
func tree(t testing.TB) string {
	t.Helper()
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "doc.go")); err != nil {
		t.Skipf("this test reads the repository: %v", err)
	}
	return root
}

func TestFresh(t *testing.T) {
	t.Parallel()
	root := tree(t)
	for name, want := range pages() {
		got, err := os.ReadFile(filepath.Join(root, "docs", name))
		require.NoError(t, err)
		assert.Equal(t, want, strings.ReplaceAll(string(got), "\r\n", "\n"), "docs/%s is stale: run go generate", name)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, write(dir))
	for name, want := range pages() {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, want, string(got))
	}
	require.ErrorIs(t, write(filepath.Join(dir, "absent")), os.ErrNotExist)
}

// What the pages say is in tables whose rows are all as long, and no cell is
// empty but the first of a heading.
func TestTables(t *testing.T) {
	t.Parallel()
	for name, text := range pages() {
		columns, tables := 0, 0
		for line := range strings.SplitSeq(text, "\n") {
			if !strings.HasPrefix(line, "|") {
				columns = 0
				continue
			}
			cells := strings.Split(strings.Trim(line, "|"), "|")
			if columns == 0 {
				columns, cells = len(cells), cells[1:]
				tables++
			} else {
				require.Len(t, cells, columns, "%s: %s", name, line)
			}
			for _, c := range cells {
				require.NotEmpty(t, strings.TrimSpace(c), "%s: %s", name, line)
			}
		}
		assert.Positive(t, tables, name)
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	root := tree(t)
	all := pages()
	anchors := func(page string) []string {
		var list []string
		for line := range strings.SplitSeq(all[page], "\n") {
			if heading := strings.TrimLeft(line, "#"); heading != line {
				list = append(list, anchor(strings.TrimSpace(heading)))
			}
		}
		return list
	}
	target := regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)
	for name, text := range all {
		list := anchors(name)
		assert.Len(t, slices.Compact(slices.Sorted(slices.Values(list))), len(list), "%s: two headings have the same anchor", name)
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			if file := m[1]; file != "" {
				_, err := os.Stat(filepath.Join(root, "docs", file))
				assert.NoError(t, err, m[0])
				continue
			}
			assert.Contains(t, list, m[2], name)
		}
	}
}

// Every system has a section, and names the file that has its rules.
func TestEverySystem(t *testing.T) {
	t.Parallel()
	root := tree(t)
	all := sections()
	for _, s := range semantics.Systems() {
		assert.True(t, slices.ContainsFunc(all, func(sec section) bool { return slices.Contains(sec.titles, s.Title()) }), s.Name())
		text, err := os.ReadFile(filepath.Join(root, "internal", "semantics", rulesFile(s)))
		require.NoError(t, err)
		assert.Contains(t, string(text), `"`+s.Title()+`"`, s.Name())
	}
}

// A reader who goes through the columns, and takes the last one whose options
// both sockets have, finds what the rules say.
func TestLastColumnThatFits(t *testing.T) {
	t.Parallel()
	all := slices.Concat(pairs4(), pairs6())
	pairs := 0
	for _, s := range semantics.Systems() {
		for _, user := range []int{me, other} {
			list, _ := classes(s, all, user)
			list = ordered(list)
			for _, a := range sets(s) {
				for _, b := range sets(s) {
					var found class
					for _, c := range list {
						if slices.ContainsFunc(c.smallest(), func(q optionPair) bool { return q.within(optionPair{a, b}) }) {
							found = c
						}
					}
					require.NotNil(t, found.cells, "%s: %v, %v", s.Name(), a, b)
					for i, pl := range all {
						want, _ := cell(s, pl, a, b, user)
						assert.Equal(t, want, found.cells[i], "%s: %v, %v", s.Name(), a, b)
						pairs++
					}
				}
			}
		}
	}
	assert.Greater(t, pairs, 5000)
}

// Where both on does what neither does, there is a column for that.
func TestDivided(t *testing.T) {
	t.Parallel()
	a := semantics.Opts(semantics.Addr)
	list := ordered([]class{{members: []optionPair{{0, 0}, {a, a}}}, {members: []optionPair{{a, 0}, {0, a}}}})
	require.Len(t, list, 3)
	assert.Equal(t, "no option", list[0].name())
	assert.Equal(t, "ADDR on the first; ADDR on the second", list[1].name())
	assert.Equal(t, "ADDR on both", list[2].name())
}

func TestCell(t *testing.T) {
	t.Parallel()
	find := func(name string) semantics.System {
		s, err := semantics.Find(name)
		require.NoError(t, err)
		return s
	}
	addr, port := semantics.Opts(semantics.Addr), semantics.Opts(semantics.Port)
	for _, tt := range []struct {
		system string
		places [2]place
		a, b   semantics.Options
		user   int
		want   string
	}{
		{"linux", [2]place{specific(), specific()}, addr, addr, me, "unless listening\u00a0ᵐ"},
		{"linux", [2]place{specific(), wildcard()}, port, port, me, "yes\u00a0ᵐ"},
		{"linux", [2]place{specific(), wildcard()}, port, port, other, "no\u00a0ᵐ"},
		{"illumos", [2]place{specific(), specific()}, 0, addr, me, "UDP only\u00a0ˢ"},
		{"windows", [2]place{wildcard(), specific()}, 0, 0, other, "WSAEACCES\u00a0ᵛ"},
		{"darwin", [2]place{group(), group()}, addr, addr, me, "TCP EAFNOSUPPORT, UDP yes\u00a0ˢ"},
		{"plan9", [2]place{specific(), specific()}, 0, 0, me, "not known"},
		{"js", [2]place{specific(), specific()}, 0, 0, me, "no\u00a0ˢ"},
	} {
		got, known := cell(find(tt.system), tt.places, tt.a, tt.b, tt.user)
		assert.Equal(t, tt.want, got, "%s %v", tt.system, tt.places)
		assert.Len(t, known, 3)
	}
	assert.Equal(t, "with LB\u00a0ᵐ", taken(find("freebsd-14"), specific(), wildcard(), specific(), me))
	assert.Equal(t, "no\u00a0ᵐ", taken(find("linux"), wildcard(), specific(), specific(), me))
	assert.Equal(t, "with no option\u00a0ᵛ", taken(find("windows"), wildcard(), specific(), specific(), me))
	assert.Equal(t, "beside\u00a0ᵐ", taken(find("netbsd"), specific(), wildcard(), specific(), me))
	assert.Equal(t, "yes\u00a0ᵐ", leftovers(find("netbsd"), 0, addr))
	assert.Equal(t, "open: not known; TIME_WAIT: yes\u00a0ⁱ", leftovers(find("windows"), 0, 0))
}

// Each test that a claim names is in the tree, and runs where CI does.
func TestNamedTests(t *testing.T) {
	t.Parallel()
	root := tree(t)
	parsed := map[string][]string{}
	for _, c := range claims() {
		for _, name := range c.tests {
			dir, test, found := strings.Cut(name, ".Test")
			require.True(t, found, name)
			if parsed[dir] == nil {
				parsed[dir] = testsIn(t, filepath.Join(root, filepath.FromSlash(dir)))
			}
			assert.Contains(t, parsed[dir], "Test"+test, "%s: %s", c.title, name)
		}
	}
}

// testsIn lists the tests of the files of a folder that are built for Linux.
func testsIn(t *testing.T, dir string) []string {
	t.Helper()
	linux := build.Default
	linux.GOOS, linux.GOARCH = "linux", "amd64"
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		match, err := linux.MatchFile(dir, e.Name())
		require.NoError(t, err)
		if !match {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

// There are 21 claims, each with a verdict and a reason for every system that it
// is about. What is said of Linux names a test; what is known says whence.
func TestClaims(t *testing.T) {
	t.Parallel()
	all := claims()
	assert.Len(t, all, 21)
	for i, c := range all {
		assert.NotEmpty(t, c.says, c.title)
		judged := 0
		for _, s := range semantics.Systems() {
			if !c.about(s) {
				continue
			}
			judged++
			f := c.judge(s)
			assert.Contains(t, []verdict{holds, limits, wrong, unknown}, f.verdict, "%d, %s", i+1, s.Name())
			assert.NotEmpty(t, f.why, "%d, %s", i+1, s.Name())
			if f.verdict != unknown {
				assert.NotEmpty(t, f.from.all, "%d, %s", i+1, s.Name())
			}
			if strings.HasPrefix(s.Name(), "linux") {
				assert.NotEqual(t, unknown, f.verdict, "%d, %s", i+1, s.Name())
				assert.NotEmpty(t, c.tests, "%d, %s", i+1, s.Name())
			}
		}
		assert.Positive(t, judged, c.title)
	}
}

// Verdicts that are worked out, against what a reader of the notes would say.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		claim  int
		system string
		want   verdict
	}{
		{2, "linux", limits}, {2, "freebsd-14", holds}, {2, "netbsd", wrong}, {2, "dragonfly", wrong}, {2, "windows", wrong}, {2, "illumos", holds},
		{6, "linux", wrong}, {6, "freebsd-14", limits}, {6, "openbsd", limits},
		{7, "linux", wrong}, {7, "freebsd-14", limits}, {7, "windows", wrong},
		{8, "linux", limits}, {8, "openbsd", limits},
		{9, "linux", holds}, {9, "freebsd-14", wrong}, {9, "darwin", wrong},
		{10, "linux", wrong}, {10, "netbsd", holds}, {10, "illumos", unknown},
		{11, "linux", wrong}, {11, "darwin", wrong}, {11, "openbsd", limits}, {11, "netbsd", limits},
		{12, "netbsd", limits}, {13, "linux-3.8", holds}, {14, "linux", limits}, {15, "linux", holds}, {16, "android", holds},
		{17, "windows", limits}, {17, "windows-2000", holds}, {18, "illumos", limits}, {18, "solaris-11.4", wrong}, {19, "freebsd-14", limits},
		{21, "linux", holds}, {21, "netbsd", wrong}, {21, "dragonfly", unknown},
	} {
		s, err := semantics.Find(tt.system)
		require.NoError(t, err)
		c := claims()[tt.claim-1]
		require.True(t, c.about(s))
		f := c.judge(s)
		assert.Equal(t, tt.want, f.verdict, "%d, %s: %s", tt.claim, tt.system, f.why)
	}
}

// A judge's verdict follows from its checks.
func TestWeigh(t *testing.T) {
	t.Parallel()
	k := semantics.Known{How: semantics.Source, Where: "there"}
	agrees, differs := check{"", "a", "yes", "yes", k, false}, check{"", "b", "yes", "no", k, false}
	edge, missing := check{"", "c", "yes", "no", k, true}, check{"", "d", "yes", notKnown, semantics.Known{}, false}
	unsure := check{"", "e", "yes", "no", semantics.Known{How: semantics.Unsure}, false}
	for _, tt := range []struct {
		checks []check
		want   verdict
	}{
		{[]check{agrees}, holds}, {[]check{agrees, edge}, limits}, {[]check{agrees, edge, differs}, wrong},
		{[]check{agrees, missing}, unknown}, {[]check{differs, missing}, wrong},
		{[]check{agrees, unsure}, limits}, {[]check{edge}, unknown},
	} {
		f := weigh(tt.checks, "")
		assert.Equal(t, tt.want, f.verdict, "%v", tt.checks)
		assert.NotEmpty(t, f.why)
	}
	three := []check{{kind: "TCP bound", what: "a", got: "no"}, {kind: "TCP listening", what: "a", got: "no"}, {kind: "UDP", what: "a", got: "no"}}
	assert.Equal(t, "a: no", differences(three))
	assert.Equal(t, "TCP bound and TCP listening, a: no", differences(three[:2]))
}

// The table in the package comment says what the rules say.
func TestPackageComment(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(tree(t), "doc.go"))
	require.NoError(t, err)
	names := map[string][]string{
		"Linux, Android": {"linux", "android"}, "FreeBSD": {"freebsd", "freebsd-14"}, "DragonFly": {"dragonfly"},
		"OpenBSD, NetBSD": {"openbsd", "netbsd"}, "macOS, iOS": {"darwin", "ios"}, "Solaris": {"solaris", "solaris-11.4"},
		"illumos": {"illumos"}, "AIX": {"aix"}, "Windows": {"windows"}, "js, wasip1, Plan 9": {"js", "wasip1", "plan9"},
	}
	wide := regexp.MustCompile(`\s{2,}`)
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := wide.Split(strings.TrimSpace(strings.TrimPrefix(line, "//")), -1)
		systems := names[cells[0]]
		if systems == nil || len(cells) != 6 {
			continue
		}
		rows++
		// What one cell may say of all its systems: yes, no, or not everywhere.
		extent := func(has func(name string) (some, all bool)) string {
			var somewhere, everywhere = false, true
			for _, name := range systems {
				some, all := has(name)
				somewhere, everywhere = somewhere || some, everywhere && all
			}
			switch {
			case everywhere:
				return "yes"
			case somewhere:
				return "("
			}
			return "-"
		}
		option := func(o semantics.Option) string {
			return extent(func(name string) (bool, bool) {
				s, err := semantics.Find(name)
				require.NoError(t, err)
				return s.OptionName(o) != "", s.OptionName(o) != ""
			})
		}
		promise := func(holds func(semantics.System, semantics.Binding) bool) string {
			return extent(func(name string) (bool, bool) {
				s, err := semantics.Find(name)
				require.NoError(t, err)
				text := where(s, holds)
				return text != "nowhere", strings.HasPrefix(text, "every")
			})
		}
		for i, want := range []string{option(semantics.Addr), option(semantics.Port), promise(implied.Balances), promise(implied.Exclusive)} {
			assert.True(t, strings.HasPrefix(cells[i+1], want), "%s, column %d: %s, not %s", cells[0], i+1, cells[i+1], want)
		}
	}
	assert.Equal(t, len(names), rows)
}
