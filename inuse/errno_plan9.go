package inuse

// failureOf: errors are text here, which nobody should compare.
func failureOf(error) failure { return other }
