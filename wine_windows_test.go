package reuse_test

import "syscall"

// onWine tells Wine from Windows. Its rules for binding are Linux's where a TCP
// socket listens and for UDP, so it cannot stand for Windows in those.
func onWine() bool {
	return syscall.NewLazyDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}
