package agent

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forgetMemory makes memory count from here.
func forgetMemory(b *testing.B) {
	b.Helper()
	debug.FreeOSMemory()
	// The highest resident set begins anew (proc_pid_clear_refs(5)).
	must(b, "forgetting how much memory was used", os.WriteFile("/proc/self/clear_refs", []byte("5"), 0))
}

// memory returns what of the heap is in use, the resident set, and the most that it was,
// in MiB.
func memory(b *testing.B) (heap, resident, atMost float64) {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	must(b, "reading the memory of the process", err)
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			resident = kib / 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kib); err == nil {
			atMost = kib / 1024
		}
	}
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return mebibytes(stats.HeapAlloc), resident, atMost
}

func mebibytes(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// processorTime is that of this process, and of the programs that it has run and that
// have ended, nft above all.
func processorTime() time.Duration {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		// It fails only where an argument is wrong (getrusage(2)).
		_ = unix.Getrusage(who, &u)
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return time.Duration(sum)
}
