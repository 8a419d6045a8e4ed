//go:build !android && !ios

// Command pages writes docs/semantics.md from semantics.md.tmpl and the rules in
// internal/semantics. Tests compare the committed page with what it writes, and check the
// other pages.
//
// go generate, in the root folder, runs it.
package main

import (
	_ "embed"
	"log"
	"os"
	"strings"
	"text/template"
)

//go:embed semantics.md.tmpl
var semanticsTemplate string

func semanticsPage() (string, error) {
	var page strings.Builder
	t, err := template.New("").Funcs(template.FuncMap{
		"options": options, "promises": promises, "traffic": traffic, "restart": restart, "portZero": portZero,
		"families": families, "multicast": multicast, "security": security, "facts": facts, "anchor": anchor,
	}).Parse(semanticsTemplate)
	if err == nil {
		err = t.Execute(&page, map[string]any{
			"systems": grouped(systemSection), "wildcard": wildcard, "dual": dual, "me": me, "other": other,
		})
	}
	return strings.TrimRight(page.String(), "\n") + "\n", err
}

func main() {
	page, err := semanticsPage()
	if err == nil {
		err = os.WriteFile("docs/semantics.md", []byte(page), 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
}
