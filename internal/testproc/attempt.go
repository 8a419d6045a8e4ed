package testproc

import "fmt"

// Attempt sends a line and waits for the answer, and returns false if the child is gone:
// a test may kill it meanwhile.
func (p *Process) Attempt(line string) (answer string, ok bool) {
	if _, err := fmt.Fprintln(p.in, line); err != nil || !p.out.Scan() {
		return "", false
	}
	return p.out.Text(), true
}
