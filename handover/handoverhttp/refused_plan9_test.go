package handoverhttp_test

import "errors"

var errRefused = errors.New("Plan 9 has no errno for this")
