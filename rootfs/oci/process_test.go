package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/hutchvm/hutch/rootfs/layer"
)

// childVariable makes the test binary pull an image instead: it holds the home
// directory and the reference.
const (
	childVariable = "OCI_TEST_CHILD"
	realVariable  = "OCI_TEST_REAL" // with the real converter
)

func child() int {
	home, ref, _ := strings.Cut(os.Getenv(childVariable), " ")
	s, err := Open(home)
	if err == nil && os.Getenv(realVariable) == "" {
		s.convert = func(ctx context.Context, l []layer.Layer, out *os.File, o layer.Options) (layer.Stats, error) {
			fmt.Println("converting")
			return concat(ctx, l, out, o)
		}
	}
	if err == nil {
		_, err = s.Pull(context.Background(), ref, PullOptions{})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	status, _ := os.ReadFile("/proc/self/status")
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	peak, _, _ = strings.Cut(peak, "kB")
	fmt.Println("peak", strings.TrimSpace(peak)) // KiB
	return 0
}

func childCommand(t testing.TB, home, ref string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childVariable+"="+home+" "+ref)
	return cmd
}

// TestProcesses pulls one image from several processes at once: every layer is
// fetched once, and there is one conversion.
func TestProcesses(t *testing.T) {
	reg := newRegistry(t)
	first := randomTar(t, 2<<20)
	ref := reg.push(t, "app", imageOf(t, first, randomTar(t, 1<<20), randomTar(t, 1<<20)))
	home := t.TempDir()
	var out bytes.Buffer
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			b, err := childCommand(t, home, ref).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, b)
			}
			mu.Lock()
			out.Write(b)
			mu.Unlock()
		})
	}
	wg.Wait()
	if n := strings.Count(out.String(), "converting"); n != 1 {
		t.Errorf("%d conversions", n)
	}
	s := newStore(t, home)
	img, err := s.Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range img.Layers {
		if n := reg.count("/blobs/" + l.Digest); n != 1 {
			t.Errorf("layer fetched %d times", n)
		}
	}
	if left := leftovers(t, s); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// TestKill kills a process in the middle of a pull, again and again; others
// are not held up, and the last one finishes what is there.
func TestKill(t *testing.T) {
	layer := randomTar(t, 3<<20)
	packed := pack(t, "gzip", layer)
	img := imageOf(t, layer)
	reg := newRegistry(t)
	reg.Config.ErrorLog = nopLogger
	ref := reg.push(t, "app", img)
	reached := make(chan struct{})
	var limit atomic.Int64
	limit.Store(1 << 20)
	reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, digestOf(packed)) {
			return false
		}
		start := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(packed)-1, len(packed)))
			w.Header().Set("Content-Length", fmt.Sprint(len(packed)-start))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(len(packed)))
		}
		if end := int(limit.Load()); start < end {
			w.Write(packed[start:end])
			w.(http.Flusher).Flush()
			reached <- struct{}{}
			<-r.Context().Done() // the child is killed
			return true
		}
		w.Write(packed[start:])
		return true
	})
	home := t.TempDir()
	s := newStore(t, home)
	for ; limit.Load() <= 2<<20; limit.Add(1 << 20) {
		cmd := childCommand(t, home, ref)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-reached
		part := s.blobPath(digestOf(packed)) + partSuffix
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if st, err := os.Stat(part); err == nil && st.Size() == limit.Load() {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the layer does not arrive")
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		if roots, _ := filepath.Glob(s.path(rootsDir, "*"+partSuffix)); len(roots) != 1 {
			t.Errorf("expected a partial root: %v", roots)
		}
	}
	limit.Store(0)
	if _, err := s.Get(ref); err == nil {
		t.Error("half an image is found")
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Errorf("half an image is listed: %v, %v", list, err)
	}
	got, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, got), layer) {
		t.Error("wrong root")
	}
	if reg.count(fmt.Sprintf("bytes=%d-", 2<<20)) != 1 {
		t.Errorf("not resumed: %v", reg.requests)
	}
	if left := leftovers(t, s); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// TestPruneAfterKill: what a killed process leaves goes with Prune, but not what a
// living one works on.
func TestPruneAfterKill(t *testing.T) {
	s := newStore(t, t.TempDir())
	hex := strings.Repeat("a", 64)
	dead := []string{s.path(blobsDir, hex+partSuffix), s.path(rootsDir, hex+rootSuffix+partSuffix), s.path(blobsDir, hex), s.path(rootsDir, hex+rootSuffix)}
	for _, p := range dead {
		if err := os.WriteFile(p, make([]byte, 8192), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	temp := s.path(refsDir, tempPrefix+"1")
	if err := os.WriteFile(temp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(temp, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	alive, done, err := lockPart(t.Context(), s.blobPath("sha256:"+strings.Repeat("b", 64)), func() bool { return false })
	if err != nil || done {
		t.Fatal(err)
	}
	defer alive.Close()
	r, err := s.Prune(t.Context(), PruneOptions{})
	if err != nil || r.Bytes != 4*8192 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, p := range append(dead, temp) {
		if _, err := os.Stat(p); err == nil {
			t.Errorf("%s is still there", p)
		}
	}
	if !isAt(alive, alive.Name()) {
		t.Error("a living process' file is gone")
	}
	// A pull removes what is old by itself, and leaves the rest to be resumed.
	reg := newRegistry(t)
	for name, age := range map[string]time.Duration{"c": 25 * time.Hour, "d": time.Hour} {
		for _, suffix := range []string{"", partSuffix} {
			path := s.path(blobsDir, strings.Repeat(name, 64)+suffix)
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.Pull(t.Context(), reg.push(t, "app", imageOf(t, randomTar(t, 100))), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"c": 0, "d": 2} {
		if found, _ := filepath.Glob(s.path(blobsDir, strings.Repeat(name, 64)+"*")); len(found) != want {
			t.Errorf("%d files of %s are left, want %d", len(found), name, want)
		}
	}
	// A pull holds Prune up, until its context ends.
	lock, err := s.lockShared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Prune(ctx, PruneOptions{}); err == nil {
		t.Error("pruned during a pull")
	}
}

// TestMemory: a pull and its conversion take little memory, whatever the image:
// here many files, layers that need large windows, and one that is large.
func TestMemory(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes seconds, and more memory with the race detector")
	}
	const promise = 150 << 10 // KiB
	var many bytes.Buffer
	w := tar.NewWriter(&many)
	for i := range 100_000 {
		content := fmt.Sprintf("content of file %d", i)
		w.WriteHeader(&tar.Header{Name: fmt.Sprintf("usr/lib/modules/%d/a-file-with-a-name-%d.js", i/200, i), Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(int64(i), 0)})
		io.WriteString(w, content)
	}
	w.Close()
	img := imageOf(t, many.Bytes())
	for range 3 {
		img = appendLayer(t, img, layerOf(t, randomTar(t, 40<<20), "zstd -19", types.OCILayerZStd))
	}
	reg := newRegistry(t)
	cmd := childCommand(t, t.TempDir(), reg.push(t, "app", img))
	cmd.Env = append(cmd.Env, realVariable+"=1")
	out, err := cmd.CombinedOutput()
	peak := 0
	fmt.Sscanf(string(out), "peak %d", &peak)
	if err != nil || peak == 0 || peak > promise {
		t.Errorf("peak %d KiB, promised %d; %v: %s", peak, promise, err, out)
	}
	t.Logf("peak %d KiB", peak)
}
