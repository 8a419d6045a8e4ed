package measure_test

import (
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/windows"
)

func uname(testing.TB) (release, version string) {
	major, minor, _ := windows.RtlGetNtVersionNumbers()
	return strconv.Itoa(int(major)) + "." + strconv.Itoa(int(minor)), ""
}

func onWine() bool {
	return syscall.NewLazyDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}
