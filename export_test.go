package reuse

// TupleErrno is what connect says here when the four-tuple exists already.
const TupleErrno = errTupleInUse

// Resolve is what Dial makes of a local address.
var Resolve = resolve
