package inuse

// failureOf: errors are text here, which a program cannot compare.
func failureOf(error) failure { return other }
