package bench

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hutchvm/hutch/sandbox"
)

// BenchmarkMemoryOverhead is the host memory that a machine costs beyond what
// its guest touched: the growth of this process less that of guest memory.
func BenchmarkMemoryOverhead(b *testing.B) {
	home := warmHome(b)
	for b.Loop() {
		var all []*sandbox.Sandbox
		overhead := func() float64 {
			debug.FreeOSMemory()
			rest := resident(b)
			for _, sb := range all {
				n, err := sb.HostMemory()
				if err != nil {
					b.Fatal(err)
				}
				rest -= int64(n)
			}
			return float64(rest) / (1 << 20)
		}
		start := overhead()
		all = append(all, create(b, home))
		first := overhead()
		const more = 4
		for range more {
			all = append(all, create(b, home))
		}
		last := overhead()
		b.ReportMetric(start, "process-MiB")
		b.ReportMetric(first-start, "first-MiB")
		b.ReportMetric((last-first)/more, "further-MiB")
		for _, sb := range all {
			sb.Close()
		}
	}
}

// resident is this process' share of the host's memory: pages that are mapped
// several times, such as those of the kernel's text or of a template that
// machines only read, count once.
func resident(b *testing.B) int64 {
	b.Helper()
	rollup, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(rollup)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	b.Fatal("no Pss in smaps_rollup")
	return 0
}

// BenchmarkTwentyAtOnce boots 20 sandboxes at the same time in one process.
func BenchmarkTwentyAtOnce(b *testing.B) {
	home := warmHome(b)
	for b.Loop() {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var all []*sandbox.Sandbox
		begin := time.Now()
		var slowest time.Duration
		for range 20 {
			wg.Go(func() {
				sb, err := tryCreate(home)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					b.Error(err)
					return
				}
				all, slowest = append(all, sb), max(slowest, time.Since(begin))
			})
		}
		wg.Wait()
		b.ReportMetric(slowest.Seconds(), "slowest-s")
		for _, sb := range all {
			sb.Close()
		}
	}
}
