package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// resources are what a process uses: goroutines, descriptors, bytes of the heap that
// are reachable, and bytes of memory.
type resources [4]int64

// usage is what this process uses now.
func usage() (u resources, err error) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return u, err
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return u, err
	}
	pages, err := strconv.ParseInt(string(bytes.Fields(statm)[1]), 10, 64)
	if err != nil {
		return u, err
	}
	// One of the descriptors is that of the folder itself.
	return resources{int64(runtime.NumGoroutine()), int64(len(files)) - 1, int64(m.HeapAlloc), pages * int64(os.Getpagesize())}, nil
}

// growth compares the first and the last tenth of what a process used over time.
func growth(list []resources) string {
	if len(list) == 0 {
		return ""
	}
	tenth := max(len(list)/10, 1)
	var parts []string
	for i, what := range []struct {
		name string
		unit float64
	}{{"goroutines", 1}, {"descriptors", 1}, {"kB of heap", 1e3}, {"MB of memory", 1e6}} {
		median := func(list []resources) float64 {
			var values []time.Duration // for quantile
			for _, u := range list {
				values = append(values, time.Duration(u[i]))
			}
			return float64(quantile(values, 0.5)) / what.unit
		}
		parts = append(parts, fmt.Sprintf("%.4g then %.4g %s", median(list[:tenth]), median(list[len(list)-tenth:]), what.name))
	}
	return "medians of the first and the last tenth: " + strings.Join(parts, ", ")
}
