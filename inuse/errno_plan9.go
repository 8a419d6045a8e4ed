package inuse

// Network errors are texts here, and no errnos.
var failures []errnoFailure
