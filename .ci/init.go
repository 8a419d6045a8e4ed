// Init is the first process of a machine that exists to run test binaries. The
// stage kernels puts it into an initramfs with test2json and
//
//	/modules/NAME.ko      kernel modules, loaded with those that they depend on
//	/tests/N/IMPORT/PATH  test binaries, run one after the other
//	/arguments            what each of them is given
//
// It writes to the machine's second serial line the kernel's version, what test2json
// prints, and a closing line, and ends the machine.
package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is for an empty machine only")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Println("init:", err)
	}
	unix.Sync()
	// QEMU runs with -no-reboot: it ends, with or without a power button.
	fmt.Println("init: restart:", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}

func run() error {
	for _, m := range []struct{ kind, dir, data string }{
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", "ptmxmode=0666"},
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"tmpfs", "/tmp", "mode=1777"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.data); err != nil {
			return &fs.PathError{Op: "mount", Path: m.dir, Err: err}
		}
	}
	out, err := serial("/dev/ttyS1")
	if err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	fmt.Fprintln(out, unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]))
	if err := loopback(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := load(m); err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
	}
	if err := os.Chmod("/", 0o755); err != nil { // the tests are other users too
		return err
	}
	for _, dir := range []string{"/root", "/etc"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost\n::1 localhost\n"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile("/etc/passwd", []byte("root:x:0:0::/root:/\nnobody:x:65534:65534::/:/\n"), 0o644); err != nil {
		return err
	}
	args, err := os.ReadFile("/arguments")
	if err != nil {
		return err
	}
	n, begin := 0, time.Now()
	err = filepath.WalkDir("/tests", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		return test(out, path, strings.Fields(string(args)))
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ran %d test binaries in %d s\n", n, int(time.Since(begin).Seconds()))
	return out.Close()
}

func test(out io.Writer, path string, args []string) error {
	parts := strings.SplitN(path, "/", 4) // "", tests, N, import path
	run := func(more ...string) (output bytes.Buffer, err error) {
		cmd := exec.Command("/test2json", slices.Concat([]string{"-t", "-p", parts[3], path, "-test.v=test2json"}, args, more)...)
		cmd.Dir = filepath.Dir(path)
		cmd.Env = []string{"HOME=/root", "TMPDIR=/tmp", "PATH=/"}
		cmd.Stdout, cmd.Stderr = io.MultiWriter(out, &output), os.Stdout
		err = cmd.Run()
		if errors.As(err, new(*exec.ExitError)) { // the output says what failed
			err = nil
		}
		return output, err
	}
	output, err := run()
	if err != nil {
		return err
	}
	// An emulated processor may stand still for longer than a test has patience. What
	// fails is written down, and has a second chance, with the machine to itself.
	var failed []string
	for line := range bytes.Lines(output.Bytes()) {
		var event struct{ Action, Test string }
		if json.Unmarshal(line, &event) == nil && event.Action == "fail" && event.Test != "" && !strings.Contains(event.Test, "/") {
			failed = append(failed, event.Test)
		}
	}
	if failed == nil {
		return nil
	}
	fmt.Fprintln(out, "once more:", strings.Join(failed, " "))
	_, err = run("-test.run=^(" + strings.Join(failed, "|") + ")$")
	return err
}

// serial opens a serial line that passes on bytes as they are.
func serial(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ICANON
	t.Cflag = t.Cflag&^unix.CBAUD | unix.B115200
	return f, unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

// load loads a module after those it depends on, which its file names.
func load(path string) error {
	image, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return err
	}
	info, err := file.Section(".modinfo").Data()
	if err != nil {
		return err
	}
	for _, field := range strings.Split(string(info), "\x00") {
		names, ok := strings.CutPrefix(field, "depends=")
		if !ok || names == "" {
			continue
		}
		for _, name := range strings.Split(names, ",") {
			if err := load(filepath.Join(filepath.Dir(path), name+".ko")); err != nil {
				return err
			}
		}
	}
	if err := unix.InitModule(image, ""); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
