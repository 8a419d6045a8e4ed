//go:build !unix

package term

import "os"

func columns(*os.File) int { return 0 }
