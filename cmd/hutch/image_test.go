package main

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
)

// testImage has two layers, each with one file.
func testImage(t *testing.T, files ...string) v1.Image {
	t.Helper()
	img := empty.Image
	for _, f := range files {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Name: f, Mode: 0o644, Size: 5})
		io.WriteString(w, "hello")
		w.Close()
		var err error
		if img, err = mutate.AppendLayers(img, static.NewLayer(b.Bytes(), types.DockerUncompressedLayer)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	c.Created = v1.Time{Time: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)}
	c.Config = v1.Config{Entrypoint: []string{"/bin/sh"}}
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

// testRegistries start a registry with some images, and another way to it that
// wants credentials.
func testRegistries(t *testing.T) (open, private string) {
	t.Helper()
	h := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	a := httptest.NewServer(h)
	t.Cleanup(a.Close)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "me" || p != "the secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(b.Close)
	open, private = a.Listener.Addr().String(), b.Listener.Addr().String()
	for ref, img := range map[string]v1.Image{"app:v1": testImage(t, "etc/a", "etc/b"), "app:v2": testImage(t, "etc/a", "etc/c"), "other": testImage(t, "x")} {
		n, err := name.ParseReference(open + "/" + ref)
		if err == nil {
			err = remote.Write(n, img)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return open, private
}

// TestImageScripts runs the scripts of testdata/image, which need no KVM.
func TestImageScripts(t *testing.T) {
	open, private := testRegistries(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/image",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HUTCH_HOME", env.WorkDir+"/home")
			env.Setenv("REGISTRY", open)
			env.Setenv("PRIVATE", private)
			return nil
		},
	})
}

// TestPullBars pulls on a terminal.
func TestPullBars(t *testing.T) {
	open, _ := testRegistries(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "pull", open+"/app:v1", open+"/app:v2", open+"/app:v1")
	cmd.Args[0] = "hutch" // by this name the test binary is the command
	cmd.Env = append(os.Environ(), "HUTCH_HOME="+t.TempDir(), "TERM=vt100")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	s := &screen{}
	done := make(chan struct{})
	go func() { io.Copy(s, tty); close(done) }()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, s)
	}
	<-done
	if out := s.String(); strings.Count(out, "converting") < 2 || !strings.Contains(out, "100 %") || !strings.Contains(out, "[=") {
		t.Errorf("no bars: %q", out)
	}
}

// TestPullInterrupt: ctrl-C ends a pull as it ends other programs.
func TestPullInterrupt(t *testing.T) {
	began, hold := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hang := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(began) })
		<-hold
	}))
	defer hang.Close()
	defer close(hold)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "pull", "-q", hang.Listener.Addr().String()+"/app")
	cmd.Args[0] = "hutch"
	cmd.Env = append(os.Environ(), "HUTCH_HOME="+t.TempDir())
	s := &screen{}
	cmd.Stderr = s
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-began
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || s.String() != "" {
		t.Errorf("exit code %d, %q", code, s)
	}
}
