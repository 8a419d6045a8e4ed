//go:build !unix

package inuse

const longestPath = 107 // sun_path of Windows

// uname is not needed: Go runs on no Windows whose rules are those of Windows 2000.
func uname() (release, version string) { return "", "" }

func writable(string) bool { return true }

func openFiles() (open, limit int) { return 0, 0 }
