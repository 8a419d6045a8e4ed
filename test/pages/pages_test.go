//go:build !android && !ios

package main

import (
	"cmp"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

// root is the root of the repository.
const root = "../.."

// read returns the text of a file, or skips where the test binary runs without the
// repository.
func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if os.IsNotExist(err) {
		t.Skipf("this test reads the repository: %v", err)
	}
	require.NoError(t, err)
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// pages returns the pages in the root folder and in docs.
func pages(t testing.TB) map[string]string {
	t.Helper()
	list := map[string]string{"README.md": read(t, "README.md")}
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		names, err := fs.Glob(os.DirFS(root), pattern)
		require.NoError(t, err)
		for _, name := range names {
			list[name] = read(t, name)
		}
	}
	return list
}

// What go generate writes is what is committed.
func TestPageIsFresh(t *testing.T) {
	t.Parallel()
	page, err := semanticsPage()
	require.NoError(t, err)
	assert.Equal(t, page, read(t, "docs/semantics.md"), "run go generate")
}

// The tables in the package comment and in README say what the rules say.
func TestTablesOfOptions(t *testing.T) {
	t.Parallel()
	// What the field of a column is on a system, "" for nothing, and whether it is for every
	// socket.
	field := func(s semantics.System, column int) (option string, all bool) {
		yes := func(is bool) string { return map[bool]string{true: "yes"}[is] }
		balances, exclusive := where(s, semantics.System.Balances), where(s, semantics.System.Exclusive)
		switch {
		case column == 0:
			return yes(s.Options().Has(addr)), true
		case column == 1:
			return yes(s.Options().Has(port)), true
		case column == 2 && balances != "nowhere":
			return cmp.Or(s.OptionName(semantics.LB), s.OptionName(semantics.Port)), strings.HasPrefix(balances, "every")
		case column == 3 && exclusive == "IPv4 address, IPv6 address":
			return "a specific address", false
		case column == 3 && exclusive != "nowhere":
			return cmp.Or(s.OptionName(semantics.Excl), "supported without an option"), strings.HasPrefix(exclusive, "every")
		case column == 4:
			name, _ := deferPort(s)
			return yes(name != ""), true
		}
		return "", false
	}
	systems := map[string]string{
		"Linux, Android": "linux android", "FreeBSD": "freebsd freebsd-14", "DragonFly": "dragonfly", "illumos": "illumos", "AIX": "aix",
		"OpenBSD, NetBSD": "openbsd netbsd", "macOS, iOS": "darwin ios", "OpenBSD, NetBSD, macOS, iOS": "openbsd netbsd darwin ios",
		"Solaris": "solaris solaris-11.4", "Solaris 11.4": "solaris-11.4", "Solaris before 11.4": "solaris",
		"Windows": "windows", "js, wasip1, Plan 9": "js wasip1 plan9",
	}
	for _, file := range []string{"doc.go", "README.md"} {
		count := 0
		for line := range strings.Lines(read(t, file)) {
			cells := regexp.MustCompile(`\s{2,}| \| `).Split(strings.Trim(line, "/| \t\n"), -1)
			if len(cells) != 6 || systems[cells[0]] == "" {
				continue
			}
			for column, cell := range cells[1:] {
				option, all := "", true
				for name := range strings.FieldsSeq(systems[cells[0]]) {
					s, err := semantics.Find(name)
					require.NoError(t, err)
					o, every := field(s, column)
					option, all = cmp.Or(o, option), all && every
				}
				want := option
				switch {
				case file == "doc.go":
					want = map[bool]string{true: "yes", false: "("}[all]
					if option == "" {
						want = "-"
					}
				case option == "":
					want = "–"
				case !all:
					want += nbsp + "[" // a note
				}
				assert.True(t, strings.HasPrefix(cell, want), "%s, %s, column %d: %s, not %s", file, cells[0], column+1, cell, want)
			}
			count += strings.Count(systems[cells[0]], " ") + 1
		}
		assert.Equal(t, len(semantics.Systems())-1, count, "%s: all systems but linux-3.8", file)
	}
}

// The tests that claims.md names are in the folders that it names.
func TestClaimsNameTests(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile("`(Test\\w+)` in ([\\w/]+)").FindAllStringSubmatch(read(t, "docs/claims.md"), -1)
	require.NotEmpty(t, named)
	for _, m := range named {
		files, err := filepath.Glob(filepath.Join(root, m[2], "*_test.go"))
		require.NoError(t, err)
		assert.True(t, slices.ContainsFunc(files, func(file string) bool {
			text, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(text), "\nfunc "+m[1]+"(t *testing.T) {")
		}), "no %s in %s", m[1], m[2])
	}
}

var (
	fenced  = regexp.MustCompile("(?ms)^[ ]*```([^\n]*)\n(.*?)^[ ]*```$")
	code    = regexp.MustCompile("(?s)<!--.*?-->|`[^`]+`")
	links   = regexp.MustCompile(`\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)\)|(?m:^\[[^\]]+\]: +(\S+))|(?:href|src)="([^"]*)"`)
	heading = regexp.MustCompile(`(?m)^#{1,6} (.*)$`)
	markup  = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)|[*` + "`" + `]+|<[^>]*>`)
)

// anchors returns the names of a page's headings.
func anchors(text string) (list []string) {
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		list = append(list, anchor(markup.ReplaceAllString(m[1], "$1")))
	}
	return list
}

// Every file and heading that a page links to is there, and every program that it tells to
// run. What is outside the tree is not fetched.
func TestLinksResolve(t *testing.T) {
	t.Parallel()
	all, headings := pages(t), map[string][]string{}
	for name, text := range all {
		headings[name] = anchors(text)
	}
	for name, text := range all {
		for _, m := range links.FindAllStringSubmatch(code.ReplaceAllString(fenced.ReplaceAllString(text, ""), "``"), -1) {
			link := m[1] + m[2] + m[3]
			assert.NotEmpty(t, link, name)
			if strings.HasPrefix(link, "https://") {
				continue
			}
			to, fragment, _ := strings.Cut(link, "#")
			if to = path.Join(path.Dir(name), to); strings.HasPrefix(link, "#") {
				to = name
			}
			_, err := os.Stat(filepath.Join(root, to))
			assert.NoError(t, err, name)
			if fragment != "" {
				assert.Contains(t, headings[to], fragment, name)
			}
		}
		for _, m := range regexp.MustCompile(`go run \./(examples/\w+)`).FindAllStringSubmatch(text, -1) {
			assert.DirExists(t, filepath.Join(root, m[1]), name)
		}
	}
}
