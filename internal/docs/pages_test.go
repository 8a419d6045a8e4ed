//go:build !android && !ios

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/implied"
	"example.com/reuse/internal/semantics"
)

// A mdPage is a page as the tests look at it.
type mdPage struct {
	name   string // from the root of the tree
	prose  string // without its fenced blocks and comments
	blocks []block
	names  []string // that a link may name
}

// A block is what stands between two fences.
type block struct {
	at   string // file and line
	lang string
	text string
}

// readPages reads README.md, CONTRIBUTING.md, CHANGELOG.md and the pages in docs.
func readPages(t testing.TB) []mdPage {
	t.Helper()
	root := tree(t)
	guides, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	require.NotEmpty(t, guides)
	var list []mdPage
	for _, file := range append(guides, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md"), filepath.Join(root, "CHANGELOG.md")) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		name, err := filepath.Rel(root, file)
		require.NoError(t, err)
		p, err := splitPage(filepath.ToSlash(name), strings.ReplaceAll(string(text), "\r\n", "\n"))
		require.NoError(t, err)
		list = append(list, p)
	}
	return list
}

var comment = regexp.MustCompile(`(?s)<!--.*?-->`)

// splitPage tells the blocks of a page from its prose.
func splitPage(name, text string) (mdPage, error) {
	p := mdPage{name: name}
	fence := ""
	var prose strings.Builder
	for i, line := range strings.Split(text, "\n") {
		bare := strings.TrimSpace(line)
		ticks := bare[:len(bare)-len(strings.TrimLeft(bare, "`"))]
		switch {
		case fence == "" && len(ticks) >= 3:
			fence = ticks
			p.blocks = append(p.blocks, block{at: fmt.Sprintf("%s:%d", name, i+1), lang: bare[len(ticks):]})
		case fence == "":
			prose.WriteString(line)
		case bare == fence:
			fence = ""
		default:
			p.blocks[len(p.blocks)-1].text += line + "\n"
		}
		prose.WriteString("\n")
	}
	if fence != "" {
		return p, fmt.Errorf("%s: a block does not end", p.blocks[len(p.blocks)-1].at)
	}
	p.prose = comment.ReplaceAllString(prose.String(), "")
	p.names = anchors(p.prose)
	return p, nil
}

var (
	codeSpan   = regexp.MustCompile("`[^`]+`")
	inlineLink = regexp.MustCompile(`\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+"[^"]*")?\)`)
	definition = regexp.MustCompile(`(?m)^ {0,3}\[[^\]]+\]: +(\S+)`)
	attribute  = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	markup     = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)|[*]+|<[^>]*>`)
	givenName  = regexp.MustCompile(`(?:id|name)="([^"]*)"`)
)

// links returns what a page links to.
func (p mdPage) links() (list []string) {
	text := codeSpan.ReplaceAllString(p.prose, "``")
	for _, form := range []*regexp.Regexp{inlineLink, definition, attribute} {
		for _, m := range form.FindAllStringSubmatch(text, -1) {
			list = append(list, m[1])
		}
	}
	return list
}

// anchors returns the names of a page's headings, as GitHub makes them: letters and
// digits of all languages, "-", "_", and "-" for a space; a name that is taken gets
// a number. Names that a page gives itself count, too.
func anchors(prose string) (list []string) {
	taken := map[string]int{}
	for line := range strings.SplitSeq(prose, "\n") {
		level := len(line) - len(strings.TrimLeft(line, "#"))
		if level == 0 || level > 6 || !strings.HasPrefix(line[level:], " ") {
			continue
		}
		heading := strings.ReplaceAll(markup.ReplaceAllString(line[level:], "$1"), "`", "")
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(heading))
		if n := taken[name]; n > 0 {
			list = append(list, fmt.Sprintf("%s-%d", name, n))
		} else {
			list = append(list, name)
		}
		taken[name]++
	}
	for _, m := range givenName.FindAllStringSubmatch(prose, -1) {
		list = append(list, m[1])
	}
	return list
}

// checkLink says what is wrong with a link of a page. What is outside the tree is
// not fetched.
func checkLink(root fs.FS, pages []mdPage, p mdPage, link string) error {
	u, err := url.Parse(link)
	if err != nil {
		return err
	}
	if u.Scheme != "" || u.Host != "" {
		if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
			return fmt.Errorf("no address of the web: %q", link)
		}
		return nil
	}
	to := p
	if u.Path != "" {
		name := path.Join(path.Dir(p.name), u.Path)
		if _, err := fs.Stat(root, name); err != nil {
			return err
		}
		if u.Fragment == "" {
			return nil
		}
		i := slices.IndexFunc(pages, func(o mdPage) bool { return o.name == name })
		if i < 0 {
			return fmt.Errorf("no page: %q", link)
		}
		to = pages[i]
	}
	if !slices.Contains(to.names, u.Fragment) {
		return fmt.Errorf("no such heading: %q", link)
	}
	return nil
}

// Every link in the pages, and every heading and picture that one names, is there.
func TestPageLinks(t *testing.T) {
	t.Parallel()
	all := readPages(t)
	root := os.DirFS(tree(t))
	links := 0
	for _, p := range all {
		for _, link := range p.links() {
			links++
			assert.NoError(t, checkLink(root, all, p, link), p.name)
		}
	}
	assert.Greater(t, links, 50)
}

// The test of the links finds what is broken.
func TestCheckLink(t *testing.T) {
	t.Parallel()
	p, err := splitPage("docs/a.md", "# `Go`, *the* [way](b.md)!\n## Ein Öl_x\n## Ein Öl_x\n<a id=\"here\"></a>\n```\n# no\n[x](none)\n```\n`[x](none)`<!-- [x](none) -->"+
		"![p](p.svg) [y](../README.md \"t\")\n[z]: https://go.dev/\n<img src=\"q.svg\">\n")
	require.NoError(t, err)
	assert.Equal(t, []string{"go-the-way", "ein-öl_x", "ein-öl_x-1", "here"}, p.names)
	assert.Equal(t, []string{"b.md", "p.svg", "../README.md", "https://go.dev/", "q.svg"}, p.links())
	require.Len(t, p.blocks, 1)
	assert.Equal(t, block{"docs/a.md:5", "", "# no\n[x](none)\n"}, p.blocks[0])

	readme, err := splitPage("README.md", "# One\n")
	require.NoError(t, err)
	all := []mdPage{p, readme}
	root := os.DirFS(tree(t))
	for link, good := range map[string]bool{
		"#here": true, "#ein-%C3%B6l_x-1": true, "#no": false, "#": false, "": false,
		"semantics.md": true, "../README.md#one": true, "../README.md#two": false, "README.md": false,
		"../internal/semantics": true, "../../go.mod": false, "../doc.go#L1": false,
		"https://go.dev": true, "htps://go.dev": false, "https:/go.dev": false, "mailto:x": false, "//go.dev": false,
	} {
		err := checkLink(root, all, p, link)
		assert.Equal(t, good, err == nil, "%q: %v", link, err)
	}
	_, err = splitPage("a.md", "```go\nx\n")
	assert.Error(t, err)
}

// A command is a line that a page tells its reader to type, and the folder that a
// "cd" before it names.
type command struct{ dir, line string }

var change = regexp.MustCompile(`(?:^|[;&(\s])cd +([^\s;&|)]+)`)

// commands returns the lines of the blocks that are not Go, and of what is indented,
// and the code spans.
func (p mdPage) commands() (list []command) {
	add := func(dir, line string) string {
		for {
			at := change.FindStringSubmatchIndex(line)
			if at == nil {
				break
			}
			list = append(list, command{dir, line[:at[0]]})
			dir, line = path.Join(dir, line[at[2]:at[3]]), line[at[1]:]
		}
		list = append(list, command{dir, line})
		return dir
	}
	for _, b := range p.blocks {
		if b.lang == "go" {
			continue
		}
		dir := ""
		for line := range strings.Lines(b.text) {
			dir = add(dir, strings.TrimSpace(line))
		}
	}
	dir := ""
	for line := range strings.SplitSeq(p.prose, "\n") {
		if bare := strings.TrimLeft(line, " \t"); len(line)-len(bare) >= 4 || strings.HasPrefix(line, "\t") {
			dir = add(dir, bare)
		} else {
			dir = ""
		}
	}
	for _, span := range codeSpan.FindAllString(p.prose, -1) {
		add("", strings.Join(strings.Fields(strings.Trim(span, "`")), " "))
	}
	return list
}

var (
	goRun  = regexp.MustCompile("\\bgo run ((?:-\\S+ )*)(\\.[^\\s`;|&)]*)([^`;|&#>)]*)")
	script = regexp.MustCompile(`\bbash (\.ci/[\w-]+)`)
)

// modules are the folders with a go.mod. A "go run" is meant for one of them, unless
// there is a cd before it.
var modules = []string{".", "internal/bench"}

// checkCommand says what is wrong with the programs and flags that a line names.
func checkCommand(root string, c command) (runs int, err error) {
	for _, m := range goRun.FindAllStringSubmatch(c.line, -1) {
		runs++
		dirs := modules
		if c.dir != "" {
			dirs = []string{c.dir}
		} else if m[2] == "." {
			return runs, fmt.Errorf("%q: in which folder?", c.line)
		}
		var known []string
		found := false
		for _, dir := range dirs {
			if flags, isProgram := programFlags(filepath.Join(root, dir, m[2])); isProgram {
				known, found = flags, true
				break
			}
		}
		if !found {
			return runs, fmt.Errorf("%q: no program %s", c.line, m[2])
		}
		for _, arg := range strings.Fields(m[3]) {
			name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
			if arg[0] == '-' && !slices.Contains(known, name) && name != "h" && name != "help" {
				return runs, fmt.Errorf("%q: %s has no flag -%s", c.line, m[2], name)
			}
		}
	}
	for _, m := range script.FindAllStringSubmatch(c.line, -1) {
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			return runs, err
		}
	}
	return runs, nil
}

// flagCalls are the functions of package flag that define one; its name is the first
// string that they are called with.
var flagCalls = regexp.MustCompile(`^(Bool|Int|Int64|Uint|Uint64|String|Float64|Duration|Text)?(Var)?$|^(Bool)?Func$`)

// programFlags returns the flags that the main package in a folder defines.
func programFlags(dir string) (names []string, isProgram bool) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.go")) // the pattern is a good one
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil || f.Name.Name != "main" {
			return nil, false
		}
		isProgram = true
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !flagCalls.MatchString(fun.Sel.Name) {
				return true
			}
			for _, arg := range call.Args[:min(2, len(call.Args))] {
				if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if name, err := strconv.Unquote(lit.Value); err == nil {
						names = append(names, name)
					}
					break
				}
			}
			return true
		})
	}
	return names, isProgram
}

// Every program and every flag that a page tells to run is there.
func TestPageCommands(t *testing.T) {
	t.Parallel()
	root := tree(t)
	runs := 0
	for _, p := range readPages(t) {
		for _, c := range p.commands() {
			n, err := checkCommand(root, c)
			assert.NoError(t, err, p.name)
			runs += n
		}
	}
	assert.Greater(t, runs, 10)
}

// The test of the commands finds what is wrong.
func TestCheckCommand(t *testing.T) {
	t.Parallel()
	root := tree(t)
	for line, good := range map[string]bool{
		"go run ./examples/restart -mode naive":                        true,
		"go run ./examples/restart -mode=naive | head":                 true,
		"go run ./examples/restart -mod naive":                         false,
		"go run ./examples/restart && go run ./examples/restart -mood": false,
		"go run -race ./examples/timewait -h # -x":                     true,
		"go run ./examples/absent":                                     false,
		"go run ./internal/semantics":                                  false,
		"go run ./examples/whoholds 127.0.0.1:80":                      true,
		"go run .":                                  false,
		"go run ./examples/whoholds -json :80":      true,
		"(cd internal/bench && go run . -rounds 1)": true,
		"cd examples; go run ./restart -clients 1":  true,
		"cd inuse && go run ./examples/restart":     false,
		"bash .ci/run":                              true,
		"bash .ci/absent":                           false,
	} {
		p, err := splitPage("a.md", "```sh\n"+line+"\n```\n")
		require.NoError(t, err)
		var failed error
		for _, c := range p.commands() {
			if _, err := checkCommand(root, c); err != nil {
				failed = err
			}
		}
		assert.Equal(t, good, failed == nil, "%s: %v", line, failed)
	}
	p, err := splitPage("a.md", "say `go run\n  ./x` now\n\n    cd inuse\n    go run ./y\n\n```go\ngo run ./z\n```\n")
	require.NoError(t, err)
	assert.Equal(t, []command{{"", ""}, {"inuse", ""}, {"inuse", "go run ./y"}, {"", "go run ./x"}}, p.commands())
}

// README's table is what the rules say.
func TestReadmeFresh(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(tree(t), "README.md"))
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "README.md")
	require.NoError(t, os.WriteFile(file, []byte("a\n"+tableBegins+"stale\n"+tableEnds+"z\n"), 0o600))
	require.NoError(t, writeTable(file))
	fresh, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "a\n"+tableBegins+optionTable()+tableEnds+"z\n", string(fresh))
	assert.Contains(t, strings.ReplaceAll(string(text), "\r\n", "\n"), tableBegins+optionTable()+tableEnds, "README.md is stale: run go generate")

	require.NoError(t, os.WriteFile(file, []byte(tableBegins), 0o600))
	assert.Error(t, writeTable(file))
	assert.ErrorIs(t, writeTable(file+".absent"), os.ErrNotExist)
}

// In README's table each cell is a dash exactly where the field can never be had.
func TestReadmeTable(t *testing.T) {
	t.Parallel()
	for _, s := range semantics.Systems() {
		if !current(s) {
			continue
		}
		var n notes
		for i, has := range []bool{
			s.OptionName(semantics.Addr) != "",
			s.OptionName(semantics.Port) != "",
			where(s, implied.Balances) != "nowhere",
			where(s, implied.Exclusive) != "nowhere",
			len(deferred(s)) > 0,
		} {
			cells := fieldCells(s, &n)
			require.Len(t, cells, 5)
			assert.Equal(t, has, cells[i] != "–", "%s, column %d: %s", s.Name(), i+1, cells[i])
		}
		for column, text := range map[int]string{2: where(s, implied.Balances), 3: where(s, implied.Exclusive)} {
			whole := text == "nowhere" || strings.HasPrefix(text, "every")
			assert.Equal(t, whole, !strings.Contains(fieldCells(s, &n)[column], "["), s.Name())
		}
	}
}

// The last column of the table in the package comment says where DeferPort is.
func TestPackageCommentDeferPort(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(tree(t), "doc.go"))
	require.NoError(t, err)
	var want []string
	for _, s := range semantics.Systems() {
		if current(s) && len(deferred(s)) > 0 {
			want = append(want, shortTitle(s))
		}
	}
	var got []string
	row := regexp.MustCompile(`(?m)^//\s+(\S.*?)\s{2,}yes\s.*\syes$`)
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		got = append(got, strings.Split(m[1], ", ")...)
	}
	assert.Equal(t, want, got)
}
