// Report reads what "go test -json" prints. It prints what "go test" prints
// without -v, then every skipped test with its reason, then a count. It fails if
// a test failed, if none passed, or, with -noskip, if one was skipped.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

type event struct{ Action, Package, Test, Output string }

type line struct{ test, text string }

func main() {
	noskip := flag.Bool("noskip", false, "fail if a test was skipped")
	flag.Parse()

	lines := map[string][]line{}               // by package
	verdicts := map[string]map[string]string{} // by package and test
	counts := map[string]int{}
	var skipped []string

	in := bufio.NewReader(os.Stdin)
	for {
		raw, err := in.ReadString('\n')
		if raw != "" {
			var e event
			switch {
			case json.Unmarshal([]byte(raw), &e) != nil:
				fmt.Print(raw) // what the go command itself says
			case e.Action == "build-output":
				fmt.Print(e.Output)
			case e.Action == "output":
				lines[e.Package] = append(lines[e.Package], line{e.Test, e.Output})
			case e.Action != "pass" && e.Action != "fail" && e.Action != "skip":
			case e.Test != "":
				if verdicts[e.Package] == nil {
					verdicts[e.Package] = map[string]string{}
				}
				verdicts[e.Package][e.Test] = e.Action // the last, if a test ran twice
				if e.Action == "skip" {
					skipped = append(skipped, fmt.Sprintf("SKIP %s %s: %s", e.Package, e.Test, reason(lines[e.Package], e.Test)))
				}
			default:
				counts["unfinished"] += printPackage(lines[e.Package], verdicts[e.Package], e.Action)
				delete(lines, e.Package)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	for p := range lines {
		counts["unfinished"] += printPackage(lines[p], verdicts[p], "fail") // cut off
	}
	for _, of := range verdicts {
		for _, v := range of {
			counts[v]++
		}
	}
	slices.Sort(skipped)
	for _, s := range skipped {
		fmt.Println(s)
	}
	fmt.Printf("tests: %d passed, %d failed, %d unfinished, %d skipped\n",
		counts["pass"], counts["fail"], counts["unfinished"], counts["skip"])
	switch {
	case counts["fail"]+counts["unfinished"] > 0:
		os.Exit(1)
	case counts["pass"] == 0:
		fmt.Println("no test passed")
		os.Exit(1)
	case *noskip && counts["skip"] > 0:
		fmt.Println("no test may be skipped here")
		os.Exit(1)
	}
}

// printPackage prints the closing line of a package, and if it failed all that
// its failed and unfinished tests wrote, test by test. It returns the number of
// the unfinished ones.
func printPackage(lines []line, verdicts map[string]string, action string) (unfinished int) {
	if action != "fail" {
		if len(lines) > 0 {
			fmt.Print(lines[len(lines)-1].text)
		}
		return 0
	}
	var tests []string
	heads, texts := map[string]string{}, map[string]string{}
	for _, l := range lines {
		if l.test != "" && !slices.Contains(tests, l.test) {
			tests = append(tests, l.test)
			heads[l.test] = "--- UNFINISHED: " + l.test + "\n"
		}
		switch {
		case strings.HasPrefix(l.text, "=== "):
		case strings.HasPrefix(strings.TrimSpace(l.text), "--- "):
			heads[l.test] = l.text
		default:
			texts[l.test] += l.text
		}
	}
	for _, t := range tests {
		if v := verdicts[t]; v != "pass" && v != "skip" {
			fmt.Print(heads[t], texts[t])
			if v == "" {
				unfinished++
			}
		}
	}
	fmt.Print(texts[""])
	return unfinished
}

// reason returns what a skipped test wrote.
func reason(lines []line, test string) string {
	var words []string
	for _, l := range lines {
		text := strings.TrimSpace(l.text)
		if l.test == test && !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- ") {
			words = append(words, text)
		}
	}
	if words == nil {
		return "no reason given"
	}
	return strings.Join(words, " ")
}
