package patch_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/hutchvm/hutch/rootfs/erofs"
	"github.com/hutchvm/hutch/rootfs/patch"
)

// A layer that adds a file to a directory of the host and hides another.
func ExampleBuild() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.WriteFile(dir+"/old", []byte("old"), 0o644)
	root, err := os.OpenRoot(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer root.Close()
	out, err := os.CreateTemp("", "*.erofs")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()

	err = patch.Build(context.Background(), patch.Directory(root), []patch.Patch{
		{Kind: patch.File, Path: "/etc/motd", Data: []byte("hello\n")},
		{Kind: patch.Remove, Path: "/old"},
	}, out)
	if err != nil {
		log.Fatal(err)
	}
	st, _ := out.Stat()
	image, err := erofs.OpenImage(out, st.Size())
	if err != nil {
		log.Fatal(err)
	}
	top, _ := image.File(image.Root())
	top.Entries(func(e erofs.Entry) bool {
		f, _ := image.File(e.Number)
		fmt.Printf("%s %o\n", e.Name, f.Mode)
		return true
	})
	// Output:
	// etc 40755
	// old 20000
}
