package semantics_test

import (
	"fmt"
	"net/netip"

	"example.com/reuse/internal/semantics"
)

// A web server listens on every address, and somebody else wants one of them.
func Example() {
	linux, err := semantics.Find("linux")
	if err != nil {
		fmt.Println(err)
		return
	}
	web := semantics.Binding{
		Proto: semantics.TCP, State: semantics.Listening, User: 33,
		Addr: netip.MustParseAddr("0.0.0.0"), Options: semantics.Opts(semantics.Addr),
	}
	mine := web
	mine.User, mine.Addr = 1000, netip.MustParseAddr("127.0.0.1")
	a := linux.Second(web, mine)
	fmt.Println(a)
	fmt.Println(a.Rule.Text)
	fmt.Println(a.Known)
	// Output:
	// bind:EADDRINUSE
	// Linux refuses any overlapping bind beside a listening socket unless both set SO_REUSEPORT under the same user.
	// measured: 5.10.223, 6.1.170, 6.1.192, 6.12.117, 6.18.44
}
