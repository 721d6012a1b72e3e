package sandbox

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// BenchmarkPrepare is the host's work for a sandbox of an image that is here,
// up to the building of the machine: the record, the image, the writable disk
// and all devices. It needs no KVM.
func BenchmarkPrepare(b *testing.B) {
	home := b.TempDir()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for i := range 1000 {
		if err := w.WriteHeader(&tar.Header{Name: "file" + string(rune('a'+i%26)) + time.Duration(i).String(), Size: 1000, Mode: 0o644}); err != nil {
			b.Fatal(err)
		}
		w.Write(make([]byte, 1000))
	}
	w.Close()
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		b.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		b.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		b.Fatal(err)
	}
	tag, err := name.NewTag("team/bench:1")
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(home, "image.tar")
	if err := tarball.WriteToFile(path, tag, img); err != nil {
		b.Fatal(err)
	}
	if _, err := LoadImages(b.Context(), path, LoadImageOptions{}, WithHome(home)); err != nil {
		b.Fatal(err)
	}
	c, err := resolve("bench", []Option{WithHome(home)})
	if err != nil {
		b.Fatal(err)
	}
	src, err := openSources(c) // unpacks the kernel
	if err != nil {
		b.Fatal(err)
	}
	src.close()
	for _, kept := range []bool{false, true} {
		label := map[bool]string{false: "ephemeral", true: "kept"}[kept]
		b.Run(label, func(b *testing.B) {
			for b.Loop() {
				opts := []Option{WithHome(home), WithImage("team/bench:1"), WithPullPolicy(PullNever)}
				if !kept {
					opts = append(opts, WithEphemeral())
				}
				c, err := resolve("bench", opts)
				if err != nil {
					b.Fatal(err)
				}
				s := newSandbox(c)
				s.info = &info{Version: infoVersion, Name: c.Name, Status: StatusCreated, PID: os.Getpid(), Created: time.Now(), Config: c}
				if s.record, err = claim(c.Home, s.info); err != nil {
					b.Fatal(err)
				}
				if s.root, err = openRoot(b.Context(), c, s.info.Root, s.record.dir); err != nil {
					b.Fatal(err)
				}
				src, err := openSources(c)
				if err != nil {
					b.Fatal(err)
				}
				if s.devices, err = openDevices(c, s.record.dir, s.root); err != nil {
					b.Fatal(err)
				}
				src.close()
				b.StopTimer()
				if err := s.devices.close(); err != nil {
					b.Fatal(err)
				}
				s.root.close()
				if err := s.record.remove(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
