package mixed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// readAll returns the parts of a body, each as its type, fields and content, and what its reading ended with.
func readAll(body io.Reader, boundary string) (all []string, err error) {
	r := NewReader(body, boundary)
	for {
		h, err := r.Next()
		if err != nil {
			return all, err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return all, err
		}
		s := h.Type
		for _, f := range h.Fields {
			s += "," + f.Name + "=" + f.Value
		}
		all = append(all, s+";"+string(b))
	}
}

const jpeg = "\xff\xd8\xff\xe0\x00\x10JFIF\r\n--frame\xff\n\r\n--\r\n\xff\xd9"

func TestParts(t *testing.T) {
	withLength := fmt.Sprintf("Content-Length: %d\r\n", len(jpeg))
	const typ = "Content-Type: image/jpeg\r\n"
	two := []string{"image/jpeg;" + jpeg, "image/jpeg;" + jpeg}
	for name, c := range map[string]struct {
		boundary, body string
		want           []string
	}{
		"by RFC 2046":          {"frame-x", "--frame-x\r\n" + typ + "\r\n" + jpeg + "\r\n--frame-x\r\n" + typ + "\r\n" + jpeg + "\r\n--frame-x--\r\n", two},
		"with lengths":         {"frame-x", "--frame-x\r\n" + typ + withLength + "\r\n" + jpeg + "\r\n--frame-x\r\n" + withLength + typ + "\r\n" + jpeg + "\r\n--frame-x--\r\n", two},
		"no line end behind":   {"frame-x", "--frame-x\r\n" + typ + withLength + "\r\n" + jpeg + "--frame-x\r\n" + withLength + typ + "\r\n" + jpeg + "--frame-x--\r\n", two},
		"dashes in it":         {"--frame-x", "--frame-x\r\n" + typ + "\r\n" + jpeg + "\r\n--frame-x\r\n" + typ + "\r\n" + jpeg + "\r\n--frame-x--\r\n", two},
		"dashes twice":         {"--frame-x", "----frame-x\r\n" + typ + "\r\n" + jpeg + "\r\n----frame-x\r\n" + typ + "\r\n" + jpeg + "\r\n----frame-x--\r\n", two},
		"LF alone":             {"b", "--b\nContent-Type: a/b\n\none\n--b\n\ntwo\n--b--\n", []string{"a/b;one", ";two"}},
		"no end":               {"frame-x", "--frame-x\r\n" + typ + withLength + "\r\n" + jpeg + "\r\n--frame-x\r\n" + withLength + typ + "\r\n" + jpeg, two},
		"no end, no length":    {"b", "--b\r\n\r\none\r\n--b\r\n\r\ntwo", []string{";one", ";two"}},
		"ends in a delimiter":  {"b", "--b\r\n\r\none\r\n--b\r\n", []string{";one"}},
		"preamble, epilogue":   {"b", "hello\r\n--bo\r\n\r\n--b\r\n\r\none\r\n--b--\r\n\r\n--b\r\n\r\nmore", []string{";one"}},
		"empty parts":          {"b", "--b\r\n\r\n\r\n--b\r\n--b\r\nContent-Length: 0\r\n\r\n\r\n--b--", []string{";", ";"}},
		"padding":              {"b", "--b \t\r\n\r\none\r\n--b  \r\n\r\ntwo\r\n--b-- \r\n", []string{";one", ";two"}},
		"delimiter is a line":  {"b", "--b\r\n\r\n--bb\r\n--b-\r\nx--b\r\n --b\r\n--b x\r\n--b---\r\n--b--\r\n", []string{";--bb\r\n--b-\r\nx--b\r\n --b\r\n--b x\r\n--b---"}},
		"length too large":     {"b", "--b\r\nContent-Length: 500\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n", []string{";one", ";two"}},
		"line ends":            {"b", "--b\r\n\r\n\r\n\n\r\n\r\r\n--b--\r\n", []string{";\r\n\n\r\n\r"}},
		"fields":               {"b", "--b\r\nx-timestamp:  17.5 \r\nSet-Cookie: a=b\r\nX-Long: " + strings.Repeat("x", 129) + "\r\nX-B\xe4d: 1\r\nX-Bad: \x01\r\nX-Other: a(b)\r\nX-Spa ce: 1\r\nno colon\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\none\r\n--b--", []string{"a/b,x-timestamp=17.5;one"}},
		"many fields":          {"b", "--b\r\n" + strings.Repeat("X-A: 1\r\n", 9) + "\r\none\r\n--b--", []string{strings.Repeat(",X-A=1", 8) + ";one"}},
		"type with parameters": {"b", "--b\r\nContent-Type: text/HTML; x=\"$%@\"; charset=\"utf-8\"\r\n\r\none\r\n--b--", []string{"text/html; charset=utf-8;one"}},
		"type that is none":    {"b", "--b\r\nContent-Type: a/b@\r\n\r\none\r\n--b\r\nContent-Type: text/plain; charset=a\r\n\r\n\r\n--b--", []string{";one", "text/plain; charset=a;"}},
		"odd type":             {"b", "--b\r\nContent-Type: a/\x00b\r\n\r\none\r\n--b--", []string{";one"}},
		"odd length":           {"b", "--b\r\nContent-Length: -3\r\n\r\none\r\n--b\r\nContent-Length: x\r\n\r\ntwo\r\n--b--", []string{";one", ";two"}},
		"nothing":              {"b", "", nil},
		"the end alone":        {"b", "--b--\r\n", nil},
		"the end instead":      {"b", "--b\r\n\r\none\r\n--b\r\nContent-Type: x/y\r\n--b--\r\n", []string{";one"}},
		"long lines, one part": {"b", "--b\r\n\r\n" + strings.Repeat("x", 100_000) + "\r\n--b--", []string{";" + strings.Repeat("x", 100_000)}},
	} {
		for _, slow := range []bool{false, true} {
			r := io.Reader(strings.NewReader(c.body))
			if slow {
				r = iotest.OneByteReader(r)
			}
			if got, err := readAll(r, c.boundary); !slices.Equal(got, c.want) || !errors.Is(err, io.EOF) {
				t.Errorf("%s (slowly: %v): %.300q, %v", name, slow, got, err)
			}
		}
	}
}

func TestBrokenForm(t *testing.T) {
	for name, body := range map[string]string{
		"no part":                  "hello",
		"a long preamble":          strings.Repeat("hello\r\n", 2000) + "--b\r\n\r\none\r\n--b--",
		"something behind length":  "--b\r\nContent-Length: 3\r\n\r\none more\r\n--b\r\n\r\ntwo\r\n--b--",
		"ends within a length":     "--b\r\nContent-Length: 30\r\n\r\none",
		"ends within a head":       "--b\r\nContent-Type: x/y\r\n",
		"a large head":             "--b\r\n" + strings.Repeat("X-A: 1\r\n", 1200) + "\r\none\r\n--b--",
		"a large line in the head": "--b\r\nX: " + strings.Repeat("x", 40_000) + "\r\n\r\none\r\n--b--",
	} {
		for _, slow := range []bool{false, true} {
			r := io.Reader(strings.NewReader(body))
			if slow {
				r = iotest.OneByteReader(r)
			}
			var broken *Error
			if got, err := readAll(r, "b"); !errors.As(err, &broken) {
				t.Errorf("%s (slowly: %v): %.300q, %v", name, slow, got, err)
			}
		}
	}
	gone := errors.New("gone")
	for _, body := range []string{"", "--b", "--b\r\nContent-", "--b\r\n\r\none", "--b\r\n\r\none\r\n--b", "--b\r\nContent-Length: 3\r\n\r\none"} {
		if _, err := readAll(io.MultiReader(strings.NewReader(body), iotest.ErrReader(gone)), "b"); !errors.Is(err, gone) {
			t.Errorf("a body that breaks behind %q: %v", body, err)
		}
	}
}

// TestPartWithALengthIsNotLate has a camera say nothing more behind a picture until it has been read.
func TestPartWithALengthIsNotLate(t *testing.T) {
	pr, pw := io.Pipe()
	defer pr.Close()
	read := make(chan bool)
	go func() {
		_, _ = fmt.Fprintf(pw, "--b\r\nContent-Length: %d\r\n\r\n%s", len(jpeg), jpeg)
		<-read
		_, _ = io.WriteString(pw, "\r\n--b--\r\n")
	}()
	r := NewReader(pr, "b")
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); string(b) != jpeg || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	close(read)
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestBoundary(t *testing.T) {
	for typ, want := range map[string]string{
		"multipart/x-mixed-replace; boundary=b":                               "b",
		`multipart/x-mixed-replace;boundary="--my boundary"`:                  "--my boundary",
		"multipart/x-mixed-replace; boundary=--BoundaryString=":               "--BoundaryString=",
		"multipart/x-mixed-replace; Boundary = a:b ; x":                       "a:b",
		"multipart/x-mixed-replace":                                           "",
		"multipart/x-mixed-replace; boundary=":                                "",
		"multipart/x-mixed-replace; boundary=--":                              "",
		"multipart/x-mixed-replace; boundary=\"a\x00\"":                       "",
		"multipart/x-mixed-replace; boundary=" + strings.Repeat("x", 201):     "",
		"multipart/x-mixed-replace; boundary=\"" + strings.Repeat(" ", 9):     "",
		"multipart/x-mixed-replace; x=boundary=c; boundary=\"d\"; boundary=e": "d",
	} {
		if got := Boundary(typ); got != want {
			t.Errorf("%q: %q, want %q", typ, got, want)
		}
	}
}

// written returns parts as a Writer has them.
func written(w *Writer, parts [][]byte) string {
	b := w.Begin()
	for _, p := range parts {
		b += w.Head(Head{Type: "image/jpeg", Fields: []Field{{"X-Timestamp", "1"}}}, int64(len(p))) + string(p) + w.Foot()
	}
	return b + w.End()
}

// FuzzReader has the same parts come out of whatever pieces, and go through a Writer unchanged, as two readers see it.
func FuzzReader(f *testing.F) {
	f.Add([]byte("--b\r\nContent-Length: 3\r\n\r\none\r\n--b\r\n\r\n\r\ntwo\r\n--b--\r\n"), "b")
	f.Add([]byte("x\n----b\n\n--b\r\n\r\r\n--b  \n\nthree"), "--b")
	f.Fuzz(func(t *testing.T, body []byte, boundary string) {
		if Boundary(`x/y; boundary="`+boundary+`"`) != boundary {
			return
		}
		all, err := readAll(bytes.NewReader(body), boundary)
		slow, slowErr := readAll(iotest.OneByteReader(bytes.NewReader(body)), boundary)
		if !slices.Equal(all, slow) || fmt.Sprint(err) != fmt.Sprint(slowErr) {
			t.Fatalf("%q: %q, %v at once, and %q, %v byte by byte", body, all, err, slow, slowErr)
		}
		var parts [][]byte
		for _, p := range all {
			parts = append(parts, []byte(p))
		}
		w := NewWriter()
		out := written(w, parts)
		again, err := readAll(strings.NewReader(out), Boundary(w.Type()))
		if !errors.Is(err, io.EOF) || len(again) != len(parts) {
			t.Fatalf("%q is read as %q, %v", out, again, err)
		}
		_, params, err := mime.ParseMediaType(w.Type())
		if err != nil {
			t.Fatal(err)
		}
		other := multipart.NewReader(strings.NewReader(out), params["boundary"])
		for i, p := range parts {
			part, err := other.NextRawPart()
			if err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			if b, err := io.ReadAll(part); err != nil || !bytes.Equal(b, p) || again[i] != "image/jpeg,X-Timestamp=1;"+string(p) {
				t.Fatalf("%q is read as %q and %q, %v", p, again[i], b, err)
			}
		}
		if len(parts) > 0 {
			if _, err := other.NextRawPart(); !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
	})
}
