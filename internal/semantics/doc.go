// Package semantics contains the kernels' rules for sharing addresses, as functions
// that are the same in every build, so that all rules are read and tested on any system.
// The tests of package reuse compare its promises with the rules. Package inuse explains
// with them why a bind failed. docs/semantics.md is generated from them.
//
// A [System] is a kernel or a range of its versions. [Systems] returns all, [Find]
// returns one by its name, and [On] returns the running one from the result of uname. Each
// system has a file (linuxrules.go, freebsdrules.go, ...), which names the kernel's source.
//
// [System.Bind] returns the result of a second bind to the port of a [Binding].
// [System.Traffic] returns which of several sockets get the traffic of an address.
// [System.AssignsPort] reports whether port 0 can return a port that a socket has.
// [System.Fact] returns the other facts in words.
//
// Every answer has an [Evidence], and "unverified" is an answer: look at Evidence.Kind
// before Err. A measurement overrides a source, and a source overrides a vendor's document.
//
// The tests compare the rules with all rows in testdata, which were measured on
// kernels or read in their sources. Package measure compares them with the kernel that
// the tests run on. TestEveryMutantIsKilled shows that the tests notice a change of any
// single clause. [System.Balances] and [System.Exclusive] derive from the rules where the
// fields of package reuse can keep their promise.
package semantics
