package envelope

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// frame returns a message as it is sent.
func frame(flags byte, content string) string {
	return string(Head{flags, uint32(len(content))}.Append(nil)) + content //nolint:gosec // a test's contents are short
}

type message struct {
	flags   byte
	content string
}

// readAll returns the messages of a body, and the error that they end with; nil is its proper end.
func readAll(r *Reader) (all []message, err error) {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return all, err
		}
		all = append(all, message{h.Flags, string(b)})
	}
}

func protocol(t testing.TB, mediaType string) Protocol {
	t.Helper()
	p, ok := Of(mediaType)
	if !ok {
		t.Fatalf("%s is not known", mediaType)
	}
	return p
}

func TestMediaTypes(t *testing.T) {
	for typ, want := range map[string]Protocol{
		"application/grpc":                 {Name: "gRPC", Codec: "proto"},
		"application/grpc+json":            {Name: "gRPC", Codec: "json"},
		"application/grpc-web":             {Name: "gRPC-Web", Codec: "proto", End: 0x80},
		"application/grpc-web+proto":       {Name: "gRPC-Web", Codec: "proto", End: 0x80},
		"application/grpc-web-text+thrift": {Name: "gRPC-Web", Codec: "thrift", End: 0x80, Text: true},
		"application/connect+proto":        {Name: "Connect", Codec: "proto", End: 0x02},
	} {
		p := protocol(t, typ)
		if p.Name != want.Name || p.Codec != want.Codec || p.End != want.End || p.Text != want.Text || p.Encoding == "" || p.Accept == "" {
			t.Errorf("%s is %+v", typ, p)
		}
	}
	for _, typ := range []string{"", "application/grpcx", "application/connect", "application/proto", "application/json", "application/grpc-webtext"} {
		if p, ok := Of(typ); ok {
			t.Errorf("%s is %+v", typ, p)
		}
	}
}

func TestMessagesAreRead(t *testing.T) {
	want := []message{{0, "hello"}, {1, ""}, {1, "\x00\x01"}, {0, ""}}
	var body string
	for _, m := range want {
		body += frame(m.flags, m.content)
	}
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader([]byte(body)), "byte by byte": iotest.OneByteReader(bytes.NewReader([]byte(body))),
		"with its end": iotest.DataErrReader(bytes.NewReader([]byte(body))),
	} {
		got, err := readAll(NewReader(r, protocol(t, "application/grpc")))
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %q, %v", name, got, err)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: message %d is %q", name, i, got[i])
			}
		}
	}
	r := NewReader(bytes.NewReader([]byte(body)), protocol(t, "application/grpc"))
	for range want { // content that nobody reads is skipped
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
}

// TestBodiesThatBreakTheProtocol: each would leave it to the reader what is in it.
func TestBodiesThatBreakTheProtocol(t *testing.T) {
	for name, c := range map[string]struct{ typ, body string }{
		"no head":                 {"application/grpc", "\x00\x00"},
		"no content":              {"application/grpc", "\x00\x00\x00\x00\x01"},
		"half of it":              {"application/grpc", frame(0, "ab") + frame(0, "abcd")[:7]},
		"4 GiB":                   {"application/grpc", "\x00\xff\xff\xff\xffx"},
		"reserved flags":          {"application/grpc", frame(2, "")},
		"the end of gRPC-Web":     {"application/grpc", frame(0x80, "")},
		"the end of Connect":      {"application/grpc-web", frame(0x02, "")},
		"behind the end":          {"application/grpc-web", frame(0x80, "grpc-status: 0\r\n") + frame(0, "")},
		"behind Connect's end":    {"application/connect+json", frame(0x03, "{}") + "\x00\x00\x00\x00\x00"},
		"no base64":               {"application/grpc-web-text", "AAAA*AAB"},
		"base64 with lines":       {"application/grpc-web-text", "AAAA\nAAA=AAAA"},
		"half a group":            {"application/grpc-web-text", "AAAAAAAA" + "A"},
		"padding within a group":  {"application/grpc-web-text", "A=AAAAAA"},
		"base64 without the rest": {"application/grpc-web-text", base64.StdEncoding.EncodeToString([]byte(frame(0, "abc")[:7]))},
	} {
		_, err := readAll(NewReader(bytes.NewReader([]byte(c.body)), protocol(t, c.typ)))
		var broken *Error
		if !errors.As(err, &broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBodysOwnErrorIsUnchanged(t *testing.T) {
	gone := errors.New("gone")
	for _, err := range []error{gone, io.ErrUnexpectedEOF} {
		for _, body := range []string{"", "\x00", frame(0, "abc")[:6]} {
			if _, got := readAll(NewReader(io.MultiReader(bytes.NewReader([]byte(body)), iotest.ErrReader(err)), protocol(t, "application/grpc"))); !errors.Is(got, err) {
				t.Errorf("%q: %v, want %v", body, got, err)
			}
		}
	}
}

// TestTextIsReadAsItComes: pieces are padded wherever a sender flushes, within messages too.
func TestTextIsReadAsItComes(t *testing.T) {
	whole := frame(1, "hello") + frame(0x80, "grpc-status: 0\r\n")
	for cut := range len(whole) {
		pr, pw := io.Pipe()
		go func() {
			for _, piece := range []string{whole[:cut], whole[cut:]} {
				_, _ = io.WriteString(pw, base64.StdEncoding.EncodeToString([]byte(piece)))
			}
			_ = pw.Close()
		}()
		got, err := readAll(NewReader(pr, protocol(t, "application/grpc-web-text")))
		if err != nil || len(got) != 2 || got[0] != (message{1, "hello"}) || got[1] != (message{0x80, "grpc-status: 0\r\n"}) {
			t.Errorf("cut at %d: %q, %v", cut, got, err)
		}
	}
	pr, pw := io.Pipe()
	defer pw.Close()
	go func() { _, _ = io.WriteString(pw, base64.StdEncoding.EncodeToString([]byte(frame(0, "first")))) }()
	r := NewReader(pr, protocol(t, "application/grpc-web-text"))
	first := make([]byte, 5)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, first); err != nil || string(first) != "first" { // although the body goes on
		t.Errorf("%q, %v", first, err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(byte(0), []byte(frame(0, "hello")+frame(1, "x")))
	f.Add(byte(1), []byte(frame(0, "hello")+frame(0x80, "grpc-status: 0\r\n")))
	f.Add(byte(2), []byte(base64.StdEncoding.EncodeToString([]byte(frame(0, "hello")))))
	f.Add(byte(3), []byte(frame(0x02, "{}")))
	f.Add(byte(0), []byte("\x00\xff\xff\xff\xff"))
	types := []string{"application/grpc", "application/grpc-web", "application/grpc-web-text", "application/connect+json"}
	f.Fuzz(func(t *testing.T, which byte, body []byte) {
		p := protocol(t, types[int(which)%len(types)])
		got, err := readAll(NewReader(bytes.NewReader(body), p))
		slow, slowErr := readAll(NewReader(iotest.OneByteReader(bytes.NewReader(body)), p))
		if len(got) != len(slow) || (err == nil) != (slowErr == nil) {
			t.Fatalf("byte by byte it is %q, %v; at once %q, %v", slow, slowErr, got, err)
		}
		var again []byte
		for _, m := range got {
			again = append(binary.BigEndian.AppendUint32(append(again, m.flags), uint32(len(m.content))), m.content...) //nolint:gosec // shorter than body
		}
		if !p.Text && (!bytes.HasPrefix(body, again) || err == nil && len(again) != len(body)) {
			t.Fatalf("%q is read as %q, %v", body, got, err)
		}
		var broken *Error
		if err != nil && !errors.As(err, &broken) {
			t.Fatalf("the error is %v", err)
		}
	})
}
