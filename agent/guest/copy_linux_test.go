package guest

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAwaitSize(t *testing.T) {
	file := filepath.Join(t.TempDir(), "size")
	if err := os.WriteFile(file, []byte("8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := awaitSize(file, 8); err != nil {
		t.Error(err)
	}
	later := time.AfterFunc(20*time.Millisecond, func() { os.WriteFile(file, []byte("16\n"), 0o600) })
	defer later.Stop()
	if err := awaitSize(file, 16); err != nil {
		t.Error(err)
	}
	if err := awaitSize(file+"x", 16); !os.IsNotExist(err) {
		t.Errorf("no such disk: %v", err)
	}
}
