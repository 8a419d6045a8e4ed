package inuse

// Errors of the network are text here, which a program cannot compare.
var failures []errnoFailure
