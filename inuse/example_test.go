package inuse_test

import (
	"fmt"
	"net/netip"

	"example.com/reuse/inuse"
)

// A Report can be printed as a whole, or a field of it, such as a Holder.
func ExampleReport_String() {
	nginx := inuse.Holder{
		Network: "tcp4",
		Local:   netip.MustParseAddrPort("0.0.0.0:8080"),
		State:   "LISTEN",
		UID:     33,
		PID:     4211001,
		Command: "nginx",
	}
	fmt.Println(nginx)
	r := &inuse.Report{
		Network: "tcp4",
		Address: "127.0.0.1:8080",
		Holders: []inuse.Holder{nginx},
		Reason:  "Another process listens there.",
		Advice:  []string{"Stop pid 4211001 (nginx).", "Choose another port."},
	}
	fmt.Print(r)
	// Output:
	// pid 4211001 (nginx), listening on 0.0.0.0:8080 (socket of uid 33)
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
