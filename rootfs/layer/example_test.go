package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/hutchvm/hutch/rootfs/erofs"
	"github.com/hutchvm/hutch/rootfs/layer"
)

// Two layers, of which the upper one hides a file of the lower one.
func ExampleConvert() {
	pack := func(name, data string) layer.Layer {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))})
		io.WriteString(w, data)
		w.Close()
		return layer.Layer{Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(&b), nil }}
	}
	out, err := os.CreateTemp("", "*.erofs")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	stats, err := layer.Convert(context.Background(), []layer.Layer{
		pack("etc/motd", "hello\n"),
		pack("etc/.wh.motd", ""),
	}, out, layer.Options{})
	if err != nil {
		log.Fatal(err)
	}
	image, err := erofs.OpenImage(out, stats.ImageBytes)
	if err != nil {
		log.Fatal(err)
	}
	root, _ := image.File(image.Root())
	etc, _, _ := root.Lookup("etc")
	_, found, _ := etc.Lookup("motd")
	fmt.Println(found)
	// Output: false
}
