package main

import (
	"strconv"

	"golang.org/x/sys/windows"
)

// uname returns the system's release.
func uname() (release, version string, err error) {
	major, minor, build := windows.RtlGetNtVersionNumbers()
	return strconv.Itoa(int(major)) + "." + strconv.Itoa(int(minor)), strconv.Itoa(int(build)), nil
}

// impostor names Wine, whose rules are Linux's where a TCP socket listens and for
// UDP.
func impostor() string {
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil {
		return " (Wine)"
	}
	return ""
}
