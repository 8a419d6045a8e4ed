//go:build darwin || freebsd || netbsd || openbsd

package group

// DirectoryName is the name of the directory with the claims of this user.
func DirectoryName() string { return directoryName() }
