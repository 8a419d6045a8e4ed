package inuse_test

import (
	"fmt"
	"net/netip"

	"example.com/reuse/inuse"
)

var nginx = inuse.Holder{
	Network: "tcp4",
	Local:   netip.MustParseAddrPort("0.0.0.0:8080"),
	State:   "LISTEN",
	UID:     33,
	PID:     4211001,
	Command: "nginx",
}

func ExampleHolder_String() {
	fmt.Println(nginx)
	// Output: pid 4211001 (nginx), listening on 0.0.0.0:8080 (socket of uid 33)
}

// A Report is printed as it is, or what is needed of it.
func ExampleReport_String() {
	r := &inuse.Report{
		Network: "tcp4",
		Address: "127.0.0.1:8080",
		Holders: []inuse.Holder{nginx},
		Reason:  "Another process listens there.",
		Advice:  []string{"Stop pid 4211001 (nginx).", "Choose another port."},
	}
	fmt.Print(r)
	// Output:
	// tcp4 127.0.0.1:8080
	//
	// STATE   LOCAL         REMOTE  UID  PID      COMMAND
	// LISTEN  0.0.0.0:8080  -       33   4211001  nginx
	//
	// Another process listens there.
	//
	// - Stop pid 4211001 (nginx).
	// - Choose another port.
}
