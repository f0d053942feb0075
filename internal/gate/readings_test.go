package gate

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"lazaret/internal/content"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// A verdict of bytes as text must not be taken for one of the same bytes as a multipart: they are read in another way.
func TestCleanUnderOneTypeIsNotCleanUnderAnother(t *testing.T) {
	f := newFixture(t, nil)
	body := "A text comes first.\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString(scan.EICAR()) + "\r\n--b--\r\n"
	if d, _, _ := f.pass(t, strings.NewReader(body), Intake{Type: "text/plain"}); d.Action != policy.Pass {
		t.Fatalf("as text it is %v: nothing to look at", d)
	}
	if d, n, _ := f.pass(t, strings.NewReader(body), Intake{Type: "multipart/mixed; boundary=b"}); d.Action == policy.Pass || n.Verdict.Outcome != scan.Infected {
		t.Errorf("%v %v", d, n.Verdict)
	}
	quoted := "before " + strings.Replace(string(scan.EICAR()), "E", "=45", 1)
	if d, _, _ := f.pass(t, strings.NewReader(quoted), Intake{Type: "text/plain"}); d.Action != policy.Pass {
		t.Fatalf("as text it is %v: nothing to look at", d)
	}
	if d, n, _ := f.pass(t, strings.NewReader(quoted), Intake{Type: "text/plain", Transfer: "Quoted-Printable"}); d.Action == policy.Pass || n.Verdict.Outcome != scan.Infected {
		t.Errorf("%v %v", d, n.Verdict)
	}
}

// What is in base64 within gzip, or in gzip within base64, is found; what only looks a little like a coding passes.
func TestReadingsBelowEachOther(t *testing.T) {
	f := newFixture(t, nil)
	coded := base64.StdEncoding.EncodeToString(scan.EICAR())
	for name, body := range map[string]string{
		"base64 in gzip": string(gzipped(t, []byte(coded))), "gzip in base64": base64.StdEncoding.EncodeToString(gzipped(t, scan.EICAR())),
		"base64 in UTF-16": "\xff\xfe" + strings.Join(strings.Split(coded, ""), "\x00") + "\x00",
	} {
		if d, n, _ := f.pass(t, strings.NewReader(body), Intake{Type: "text/plain"}); d.Action == policy.Pass || n.Verdict.Outcome != scan.Infected {
			t.Errorf("%s: %v %v", name, d, n.Verdict)
		}
	}
	// gzip called text, with a NUL: without its NULs it is broken gzip, and that means nothing.
	body := gzipped(t, []byte("harmless"))
	if !strings.Contains(string(body), "\x00") {
		t.Fatal("no NUL to leave out")
	}
	if d, n, _ := f.pass(t, strings.NewReader(string(body)), Intake{Type: "text/plain"}); d.Action != policy.Pass {
		t.Errorf("gzip called text: %v %v", d, n.Verdict)
	}
}

// Nearly any run of one character is "br" in "deflate" in "br" and so on, and so is what comes out of base64 in base64: no reason to
// stop a test mail, a speed test, or a mail with a key in it.
func TestFillersAreNotTooDeep(t *testing.T) {
	f := newFixture(t, nil)
	bodies := map[string]string{}
	for _, c := range "AQaeq2360xzZ-=" {
		bodies[strings.Repeat(string(c), 20)] = strings.Repeat(string(c), 5000)
	}
	for i := range 60 {
		noise := make([]byte, 20+i*40)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(noise)
		once := base64.StdEncoding.EncodeToString(noise)
		bodies[fmt.Sprintf("base64 of %d bytes", len(noise))] = once
		bodies[fmt.Sprintf("base64 of base64 of %d bytes", len(noise))] = base64.StdEncoding.EncodeToString([]byte(once))
	}
	for name, body := range bodies {
		for typ, head := range map[string]string{"text/plain": "", "message/rfc822": mailHead + "\r\n"} {
			if d, n, _ := f.pass(t, strings.NewReader(head+body+"\r\n"), Intake{Type: typ}); d.Action != policy.Pass {
				t.Errorf("%s as %s: %v %v", name, typ, d, n.Verdict)
			}
		}
	}
}

func TestReadingsInStreams(t *testing.T) {
	coded := base64.StdEncoding.EncodeToString([]byte("some text before it: " + string(scan.EICAR()) + " and some behind"))
	for name, pieces := range map[string][]string{
		"base64 over a window's border": {"data: " + coded[:60], coded[60:] + "\n\n"},
		"base64 over an event's lines":  {"data: " + coded[:50] + "\ndata: ", coded[50:] + "\n\n"},
		"UTF-16 over a window's border": {"data: " + strings.Join(strings.Split(string(scan.EICAR()[:31]), ""), "\x00"), "\x00" + strings.Join(strings.Split(string(scan.EICAR()[31:]), ""), "\x00")},
		"gzip, undeclared":              {string(gzipped(t, scan.EICAR()))},
	} {
		f := newFixture(t, nil)
		pr, pw := io.Pipe()
		go func() {
			for _, p := range pieces {
				_, _ = io.WriteString(pw, p) // the reader may have stopped
			}
			_ = pw.Close() // it never fails
		}()
		_, err := io.ReadAll(f.Events(context.Background(), policy.Facts{Type: "text/event-stream"}, "event-stream", pr))
		_ = pr.Close() // it never fails
		var stopped *Stopped
		if !errors.As(err, &stopped) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := newFixture(t, nil)
	b, err := io.ReadAll(f.Events(context.Background(), policy.Facts{}, "event-stream", strings.NewReader("data: aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8=\n\n")))
	if err != nil || !strings.HasPrefix(string(b), "data: ") {
		t.Errorf("a harmless stream: %q %v", b, err)
	}
}

// Random bytes can be read as br, or as deflate, now and then, and what comes out of that again: that is no archive in an archive.
func TestRandomBytesPass(t *testing.T) {
	f := newFixture(t, nil)
	r := rand.NewChaCha8([32]byte{7})
	body := make([]byte, 7<<10)
	coded := 0
	for i := range 400 {
		_, _ = r.Read(body)
		mail := "Received: from a\r\nFrom: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n" +
			"Content-Transfer-Encoding: base64\r\n\r\n" + lines(base64.StdEncoding.EncodeToString(body))
		if d, n, _ := f.pass(t, strings.NewReader(mail), Intake{Type: "message/rfc822"}); d.Action != policy.Pass {
			t.Fatalf("mail %d: %v %v", i, d, n.Verdict)
		}
		if d, n, _ := f.pass(t, bytes.NewReader(body), Intake{}); d.Action != policy.Pass {
			t.Fatalf("body %d: %v %v", i, d, n.Verdict)
		}
		blob, err := f.pool.Of(body)
		if err != nil {
			t.Fatal(err)
		}
		content.Find(t.Context(), f.pool, content.Source{Blob: blob}, content.Default(), func(p content.Part) error {
			if p.Chance {
				coded++
			}
			return nil
		})
		_ = blob.Close()
	}
	if coded == 0 {
		t.Fatal("chance has made nothing: nothing was tested")
	}
}

// lines cuts base64 as mails have it.
func lines(s string) string {
	var b strings.Builder
	for len(s) > 76 {
		b.WriteString(s[:76] + "\r\n")
		s = s[76:]
	}
	return b.String() + s + "\r\n"
}
