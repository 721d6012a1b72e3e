package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	want := Command{
		Path: "/bin/x", Args: []string{"x", "ä\x01 b", ""}, Env: []string{"A=1"}, Stdin: Pipe, Stderr: AsStdout,
		Window: Window{24, 80}, NoFile: [2]uint64{1, 1<<64 - 1}, Seed: []byte{0, 1, 255}, Clock: 1 << 60,
	}
	var b bytes.Buffer
	if err := errors.Join(Write(&b, Start, want), Write(&b, Heartbeat, nil)); err != nil {
		t.Fatal(err)
	}
	f, err := Read(&b)
	if err != nil || f.Type != Start {
		t.Fatalf("frame %c, %v", f.Type, err)
	}
	var got Command
	if err := f.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
	if f, err = Read(&b); err != nil || f.Type != Heartbeat || len(f.Body) != 0 {
		t.Errorf("second frame %+v, %v", f, err)
	}
	if _, err := Read(&b); err != io.EOF {
		t.Errorf("at the end %v, want io.EOF", err)
	}
}

// TestRawBytes shows that arguments and environment may hold any bytes: Linux
// promises no encoding for them.
func TestRawBytes(t *testing.T) {
	want := Command{Args: []string{"\xff\xfe\x80"}, Env: []string{"X=\xc3"}, Dir: "/a\xffb", Path: "/b\xff"}
	var b bytes.Buffer
	if err := Write(&b, Start, want); err != nil {
		t.Fatal(err)
	}
	f, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	var got Command
	if err := f.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
}

func TestReadErrors(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"empty":         {"", io.EOF},
		"half a header": {"b\x00", io.ErrUnexpectedEOF},
		"half a body":   {"b\x05\x00\x00\x00ab", io.ErrUnexpectedEOF},
		"huge":          {"b\xff\xff\xff\xff", ErrFrame},
	} {
		if _, err := Read(bytes.NewReader([]byte(c.in))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := (Frame{Type: Exit, Body: []byte("no")}).Decode(new(Status)); !errors.Is(err, ErrFrame) {
		t.Errorf("decoding garbage: %v, want ErrFrame", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("b\x00\x00\x00\x00"))
	var seed bytes.Buffer
	if err := Write(&seed, Exit, Status{Code: 1, Error: "x"}); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		frame, err := Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		var s Status
		frame.Decode(&s)
	})
}
