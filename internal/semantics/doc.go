// Package semantics holds the kernels' rules for sharing addresses, as functions
// that are the same in every build, so that all can be read and tested on any
// system. The tests of package reuse compare what it promises with them, inuse asks
// why a bind was refused; docs/semantics.md is written from them.
//
// A [System] is a kernel or a range of its versions: [Systems] returns all, [Find]
// one by its name, [On] the one that runs, from what uname says. Its rules are in
// a file of its own (linuxrules.go, freebsdrules.go, ...), each beginning with what
// the kernel asks and where that stands in its source.
//
// [System.Second] is the question that everything else comes down to. A [Binding]
// holds a port; what becomes of a second one?
//
//	linux, _ := semantics.Find("linux")
//	web := semantics.Binding{
//		Proto: semantics.TCP, State: semantics.Listening, User: 33,
//		Addr: netip.MustParseAddr("0.0.0.0"), Options: semantics.Opts(semantics.Addr),
//	}
//	mine := web
//	mine.User, mine.Addr = 1000, netip.MustParseAddr("127.0.0.1")
//	a := linux.Second(web, mine)
//	a.String()       // "bind:EADDRINUSE"
//	a.Rule.Text      // "Linux refuses any overlapping bind beside a listening socket unless ..."
//	a.Known.String() // "measured: 5.10.223, 6.1.170, 6.1.192, 6.12.117, 6.18.44"
//
// [System.Traffic] says who of several sockets gets what is sent to an address,
// [System.Listen] what listen adds to bind, [System.HandsOut] whether port 0 may return
// a port that is taken, [System.Connect] and [System.SameTuple] what becomes of
// a connect, [System.Closing] what becomes of a queue, and [System.Fact] the rest in
// words.
//
// Every answer says how it is known ([Known]), and "not known" is an answer: look
// at Known.How before Err. Measured beats what was read in a source, and that the
// vendor's documents.
//
// The tests compare the rules with all rows in testdata, which were measured on
// kernels or read in their sources, and package measure compares them with the
// kernel that the tests run on. The command mutate, beside, shows that the tests
// notice a change of any single clause.
//
// Package implied works out where the fields of package reuse can keep their promise.
// What an option is called and which number it has is in the root's reuse_*.go files.
package semantics
