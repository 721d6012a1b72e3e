package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/sandbox"
)

// memory is what every guest here has, as in the promises.
const memory = 256 << 20

var serial atomic.Int64

func tryCreate(home string) (*sandbox.Sandbox, error) {
	name := fmt.Sprintf("bench-%d", serial.Add(1))
	return sandbox.Create(context.Background(), name, sandbox.WithEphemeral(), sandbox.WithHome(home), sandbox.WithMemory(memory))
}

func create(b *testing.B, home string) *sandbox.Sandbox {
	b.Helper()
	sb, err := tryCreate(home)
	if err != nil {
		b.Fatal(err)
	}
	return sb
}

// warmHome is a home whose caches are filled.
func warmHome(b *testing.B) string {
	b.Helper()
	kvmtest.RequireLinux(b)
	home := b.TempDir()
	create(b, home).Close()
	return home
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// BenchmarkCreate is the time from Create to an agent that takes commands, and
// where it goes.
func BenchmarkCreate(b *testing.B) {
	home := warmHome(b)
	var total, machine, kernel, agent, setup []time.Duration
	for b.Loop() {
		sb := create(b, home)
		b.StopTimer()
		t := sb.Timings()
		total, machine, kernel = append(total, t.Total), append(machine, t.Machine), append(kernel, t.Kernel)
		agent, setup = append(agent, t.Agent), append(setup, t.Setup)
		sb.Close()
		b.StartTimer()
	}
	for name, d := range map[string][]time.Duration{"p50": total, "machine": machine, "kernel": kernel, "agent": agent, "setup": setup} {
		b.ReportMetric(ms(median(d)), name+"-ms")
	}
}

// BenchmarkExec is one round trip of a command that does nothing, once the
// guest has the command in its page cache.
func BenchmarkExec(b *testing.B) {
	sb := create(b, warmHome(b))
	defer sb.Close()
	round := func() {
		out, err := sb.Exec(context.Background(), "true", nil)
		if err != nil || !out.Success() {
			b.Fatal(out, err)
		}
	}
	for range 3 {
		round()
	}
	var took []time.Duration
	cpu := hostCPU(b)
	for b.Loop() {
		begin := time.Now()
		round()
		took = append(took, time.Since(begin))
	}
	cpu = hostCPU(b) - cpu
	b.ReportMetric(ms(median(took)), "p50-ms")
	b.ReportMetric(ms(cpu)/float64(len(took)), "host-ms/op")
}

// hostCPU is the CPU time of this process less that of its vCPU threads: what
// Hutch itself has used.
func hostCPU(b *testing.B) time.Duration {
	b.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		b.Fatal(err)
	}
	var sum time.Duration
	for _, task := range tasks {
		comm, err := os.ReadFile(task + "/comm")
		if err != nil || strings.HasPrefix(string(comm), "hutch-vcpu") {
			continue
		}
		stat, err := os.ReadFile(task + "/schedstat")
		if err != nil {
			continue
		}
		var ns int64
		if _, err := fmt.Sscan(string(stat), &ns); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// zeros is an endless reader; counter an endless writer.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

const streamSize = 64 << 20

// BenchmarkStdout streams a command's output to the host.
func BenchmarkStdout(b *testing.B) {
	sb := create(b, warmHome(b))
	defer sb.Close()
	b.SetBytes(streamSize)
	for b.Loop() {
		var out counter
		cmd := sb.Command(context.Background(), "dd", "if=/dev/zero", "bs=65536", fmt.Sprintf("count=%d", streamSize/65536))
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil || out.n != streamSize {
			b.Fatal(out.n, err)
		}
	}
}

// BenchmarkStdin streams from the host to a command.
func BenchmarkStdin(b *testing.B) {
	sb := create(b, warmHome(b))
	defer sb.Close()
	b.SetBytes(streamSize)
	for b.Loop() {
		cmd := sb.Command(context.Background(), "dd", "of=/dev/null", "bs=65536")
		cmd.Stdin = io.LimitReader(zeros{}, streamSize)
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
	}
}
