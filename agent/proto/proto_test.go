package proto

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// messages is every message there is.
var messages = []Message{
	&Hello{}, &Setup{}, &SetupDone{}, &SetupError{}, &Ping{}, &Pong{}, &Shutdown{}, &ShutdownDone{}, &Fault{},
	&Exec{}, &Started{}, &StartError{}, &Exited{}, &StdinCredit{}, &StdinError{}, &Signal{}, &Resize{},
	&Dial{}, &Dialed{}, &DialError{}, &DialEnd{},
}

// fill sets every field of a structure, down to the last, to something else.
func fill(v reflect.Value, next *int) {
	*next++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), next)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range 2 { // the third stays zero
			fill(v.Index(i), next)
		}
	case reflect.String:
		v.SetString(strings.Repeat("x", *next))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(int64(-*next))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*next))
	default:
		panic("a field of a kind that the codec does not know: " + v.Kind().String())
	}
}

func fresh(m Message) Message { return reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message) }

// TestMessages proves that each message's list of fields is complete.
func TestMessages(t *testing.T) {
	types := map[Type]bool{}
	for _, m := range messages {
		if types[m.Type()] {
			t.Errorf("%T: type %d is taken", m, m.Type())
		}
		types[m.Type()] = true
		want := fresh(m)
		next := 0
		fill(reflect.ValueOf(want).Elem(), &next)
		for _, want := range []Message{want, m} { // all set, and all zero
			frame, err := AppendFrame([]byte("before"), want)
			if err != nil {
				t.Fatalf("%T: %v", m, err)
			}
			r := NewReader(iotest.OneByteReader(bytes.NewReader(frame[len("before"):])))
			typ, payload, err := r.Next()
			if err != nil || typ != m.Type() {
				t.Fatalf("%T: type %d, %v", m, typ, err)
			}
			got := fresh(m)
			if err := Unmarshal(payload, got); err != nil {
				t.Fatalf("%T: %v", m, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%T (-want +got):\n%s", m, diff)
			}
			if len(payload) > 0 {
				if err := Unmarshal(payload[:len(payload)-1], fresh(m)); !errors.Is(err, ErrMalformed) && !onlyFlagsCut(m, payload) {
					t.Errorf("%T cut short: %v", m, err)
				}
			}
			if err := Unmarshal(append(payload, 99), fresh(m)); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T with an unknown field: %v", m, err)
			}
			if _, _, err := r.Next(); err != io.EOF {
				t.Errorf("%T: after the frame: %v", m, err)
			}
		}
	}
}

// onlyFlagsCut says that a message without its last byte is a valid message,
// because that byte is a flag.
func onlyFlagsCut(m Message, payload []byte) bool {
	got := fresh(m)
	if Unmarshal(payload[:len(payload)-1], got) != nil {
		return false
	}
	frame, err := AppendFrame(nil, got)
	return err == nil && bytes.Equal(frame[FrameHeaderSize:], payload[:len(payload)-1])
}

func TestUnmarshalHostile(t *testing.T) {
	for _, tt := range []struct {
		name, payload string
		m             Message
		want          error
	}{
		{"string beyond the end", "\x03\xff\x00\x00\x00abc", &Exec{}, ErrMalformed},
		{"huge string", "\x03\xff\xff\xff\xffabc", &Exec{}, ErrTooLarge},
		{"list beyond the end", "\x01\x03\x00\x00\x00\x00\x00\x00\x00", &Exec{}, ErrMalformed},
		{"huge list", "\x01\xff\xff\xff\xff", &Exec{}, ErrTooLarge},
		{"huge list of structures", "\x05\x00\x00\x10\x00", &Exec{}, ErrTooLarge},
		{"number cut short", "\x01\x01\x02", &Started{}, ErrMalformed},
		{"number too large for its field", "\x01\x00\x01\x00\x00\x00\x00\x00\x00", &Signal{}, ErrMalformed},
		{"field twice", "\x06\x06", &Exec{}, ErrMalformed},
		{"fields out of order", "\x07\x06", &Exec{}, ErrMalformed},
		{"unknown field in a structure", "\x05\x01\x00\x00\x00\x01\x00\x00\x00\x09", &Exec{}, ErrMalformed},
	} {
		if err := Unmarshal([]byte(tt.payload), tt.m); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestAppendFrameTooLarge(t *testing.T) {
	before := []byte("x")
	got, err := AppendFrame(before, &Exec{Env: []string{strings.Repeat("x", MaxMessage)}})
	if !errors.Is(err, ErrTooLarge) || !bytes.Equal(got, before) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := AppendFrame(nil, &Fault{Message: strings.Repeat("x", MaxData)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a small message that is large: %v", err)
	}
	big := &Exec{Env: []string{strings.Repeat("x", MaxMessage-100)}}
	if _, err := AppendFrame(nil, big); err != nil {
		t.Errorf("just below the bound: %v", err)
	}
}

func TestReaderBounds(t *testing.T) {
	for _, tt := range []struct {
		typ Type
		n   uint32
		ok  bool
	}{
		{TypeStdout, MaxData, true}, {TypeStdout, MaxData + 1, false}, {TypeExec, MaxMessage, true},
		{TypeExec, MaxMessage + 1, false}, {TypeStdinClose, 1, false}, {200, MaxData, true}, {200, 1 << 31, false},
	} {
		b := make([]byte, FrameHeaderSize+min(int(tt.n), MaxMessage+1))
		putUint32(b, tt.n)
		b[4] = byte(tt.typ)
		_, payload, err := NewReader(bytes.NewReader(b)).Next()
		if tt.ok != (err == nil) || !tt.ok && !errors.Is(err, ErrTooLarge) || tt.ok && len(payload) != int(tt.n) {
			t.Errorf("type %d, %d bytes: %v", tt.typ, tt.n, err)
		}
	}
}

// A length alone must not make the reader allocate.
func TestReaderGrowsWithWhatArrives(t *testing.T) {
	b := make([]byte, FrameHeaderSize+10)
	PutHeader(b, TypeExec, MaxMessage)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := NewReader(bytes.NewReader(b))
	if _, _, err := r.Next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
		t.Errorf("allocated %d bytes for 15", got)
	}
}

func TestReaderStream(t *testing.T) {
	var in bytes.Buffer
	var want []int
	for i := range 300 {
		n := i * 7919 % (MaxData + 1)
		b := make([]byte, FrameHeaderSize+n)
		PutHeader(b, TypeStdout, n)
		for j := range n {
			b[FrameHeaderSize+j] = byte(i)
		}
		in.Write(b)
		want = append(want, n)
	}
	for _, r := range []*Reader{NewReader(bytes.NewReader(in.Bytes())), NewReader(iotest.HalfReader(bytes.NewReader(in.Bytes())))} {
		var kept []byte
		for i, n := range want {
			_, payload, err := r.Next()
			if err != nil || len(payload) != n || bytes.Count(payload, []byte{byte(i)}) != n {
				t.Fatalf("frame %d: %d bytes, %v", i, len(payload), err)
			}
			if i == 100 {
				r.Detach()
				kept = payload
			}
		}
		if bytes.Count(kept, []byte{100}) != want[100] {
			t.Error("a detached payload changed")
		}
		if len(r.buf) > largeBuffer {
			t.Errorf("buffer of %d bytes", len(r.buf))
		}
	}
}

func TestHandshake(t *testing.T) {
	ok := AppendHandshake(nil)
	if len(ok) != HandshakeSize {
		t.Fatalf("%d bytes", len(ok))
	}
	if err := NewReader(bytes.NewReader(ok)).Handshake(); err != nil {
		t.Error(err)
	}
	for i := range ok {
		bad := bytes.Clone(ok)
		bad[i]++
		if err := NewReader(bytes.NewReader(bad)).Handshake(); !errors.Is(err, ErrVersion) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if err := NewReader(bytes.NewReader(ok[:5])).Handshake(); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}

func TestReaderDoesNotAllocate(t *testing.T) {
	b := make([]byte, FrameHeaderSize+MaxData)
	PutHeader(b, TypeStdout, MaxData)
	in := bytes.NewReader(b)
	r := NewReader(in)
	next := func() {
		in.Reset(b)
		if _, _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		next() // the buffer grows
	}
	if n := testing.AllocsPerRun(100, next); n > 0 {
		t.Errorf("%v allocations for a data frame", n)
	}
}
