package web

import (
	ziplib "archive/zip"
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"mime"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"
)

// frame returns a JPEG picture, the nth of a camera.
func frame(t *testing.T, n int) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 160, 120))
	for i := range 160 * 120 {
		m.Set(i%160, i/160, color.RGBA{uint8(i * n), uint8(i ^ n), uint8(i >> 3), 255}) //nolint:gosec // any colour will do
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// camera is how a camera writes its stream.
type camera struct {
	boundary, delimiter string
	length              bool
	eol                 string
	header              string // further lines of a part's head
}

// part returns the nth part. Where its head has no length the delimiter behind it ends it.
func (c camera) part(n int, typ string, b []byte) string {
	s := "Content-Type: " + typ + c.eol + c.header
	if c.length {
		return fmt.Sprintf("%s%s%sContent-Length: %d%s%s%s%s", c.delimiter, c.eol, s, len(b), c.eol, c.eol, b, c.eol)
	}
	if n == 0 {
		s = c.delimiter + c.eol + s
	}
	return s + c.eol + string(b) + c.eol + c.delimiter + c.eol
}

// cameraOrigin writes what comes over pieces, and ends when that is empty.
func cameraOrigin(boundary string, pieces chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary="+boundary)
		_ = http.NewResponseController(w).Flush()
		for s := range pieces {
			if s == "" {
				return
			}
			_, _ = io.WriteString(w, s)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// watched is a camera's stream as an application reads it that goes by lengths.
type watched struct {
	*http.Response
	br        *bufio.Reader
	delimiter string
}

func watch(t *testing.T, r *rig, u string) *watched {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Fatalf("%v, %v", err, resp.Header)
	}
	return &watched{resp, bufio.NewReader(resp.Body), "--" + params["boundary"]}
}

// next returns the next part, and the delimiter behind it is there then, but for the end of its line.
func (w *watched) next(n int) (textproto.MIMEHeader, []byte, error) {
	begin := make([]byte, len(w.delimiter))
	if n == 0 {
		if _, err := io.ReadFull(w.br, begin); err != nil || string(begin) != w.delimiter {
			return nil, nil, fmt.Errorf("%q, %w", begin, err)
		}
	}
	if line, err := w.br.ReadString('\n'); line != "\r\n" {
		return nil, nil, fmt.Errorf("%q, %w", line, err)
	}
	h, err := textproto.NewReader(w.br).ReadMIMEHeader()
	if err != nil {
		return nil, nil, err
	}
	size, err := strconv.Atoi(h.Get("Content-Length"))
	if err != nil {
		return nil, nil, err
	}
	b := make([]byte, size+2+len(w.delimiter))
	if _, err := io.ReadFull(w.br, b); err != nil || string(b[size:]) != "\r\n"+w.delimiter {
		return nil, nil, fmt.Errorf("behind a part comes %.100q, %w", b[min(size, len(b)):], err)
	}
	return h, b[:size], nil
}

// TestPicturesArriveAsTheyAreSent has each picture be sent when the one before has arrived.
func TestPicturesArriveAsTheyAreSent(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]camera{
		"by RFC 2046":            {boundary: "frame", delimiter: "--frame", eol: "\r\n"},
		"with lengths":           {boundary: "frame", delimiter: "--frame", eol: "\r\n", length: true},
		"dashes in the boundary": {boundary: "--frame", delimiter: "--frame", eol: "\r\n", length: true, header: "X-Timestamp: 17.250000\r\nSet-Cookie: a=b\r\n"},
		"LF alone":               {boundary: `"a frame"`, delimiter: "--a frame", eol: "\n"},
	} {
		pieces := make(chan string)
		for _, u := range []string{r.origin(cameraOrigin(c.boundary, pieces)).URL, r.tlsOrigin(cameraOrigin(c.boundary, pieces)).URL} {
			w := watch(t, r, u)
			for i := range 5 {
				pieces <- c.part(i, "image/jpeg", frame(t, i))
				h, b, err := w.next(i)
				if err != nil || !bytes.Equal(b, frame(t, i)) || h.Get("Content-Type") != "image/jpeg" {
					t.Fatalf("%s: picture %d came as %d bytes, %v, %v", name, i, len(b), h, err)
				}
				if (c.header != "") != (h.Get("X-Timestamp") == "17.250000") || h.Get("Set-Cookie") != "" {
					t.Errorf("%s: %v", name, h)
				}
			}
			pieces <- "" // the end
			if rest, err := io.ReadAll(w.br); string(rest) != "--\r\n" || err != nil {
				t.Errorf("%s: at the end came %q, %v", name, rest, err)
			}
		}
	}
	if x := r.audit.wait(t, "the stream", exempted(replacing)); x.Kind != "mixed-replace" || x.Decision.Rule != "policy.streamed" {
		t.Errorf("the record is %+v", x)
	}
}

// TestPartsAreObjects: a part that is not to pass ends the stream, whatever stands before it.
func TestPartsAreObjects(t *testing.T) {
	zip := func(b string) string {
		var out bytes.Buffer
		z := ziplib.NewWriter(&out)
		w, err := z.Create("a.com")
		if err == nil {
			_, err = io.WriteString(w, b)
		}
		if err = errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	long := strings.Repeat("long enough to be in several windows. ", 2000)
	const head = "--b\r\nContent-Type: image/jpeg\r\n\r\n"
	for name, x := range map[string]struct {
		body string
		kind notice.Kind
		why  scan.Reason
	}{
		"an archive":           {head + zip(long+eicarText()) + "\r\n--b--\r\n", notice.Infected, ""},
		"an archive, no end":   {head + zip(long+eicarText()), notice.Infected, ""},
		"base64":               {head + base64.StdEncoding.EncodeToString([]byte(long+eicarText())) + "\r\n--b\r\n", notice.Infected, ""},
		"a forbidden file":     {head + "\x7fELF\x02\x01\x01" + long + "\r\n--b\r\n", notice.NotAllowed, ""},
		"too large":            {head + strings.Repeat(long, 40), notice.NotScanned, scan.TooLarge},
		"a large head":         {"--b\r\n" + strings.Repeat("X-A: b\r\n", 2000) + "\r\nx\r\n--b--\r\n", notice.NotScanned, scan.Undecodable},
		"no part behind":       {strings.Repeat("x", 10_000), notice.NotScanned, scan.Undecodable},
		"an archive's members": {head + string(frame(t, 2)) + zip(long)[:300] + "\r\n--b\r\n\r\n" + zip(long)[300:] + "\r\n--b--\r\n", notice.NotScanned, scan.Undecodable},
		"an archive cut short": {head + zip(long)[:200] + "\r\n--b--\r\n", notice.NotScanned, scan.Undecodable},
	} {
		r := newRig(t, func(p *plan) {
			p.spool.MaxObject = 2 * units.MiB
			p.policy.Rules = []policy.Rule{{Name: "no-programs", FileTypes: []string{"executable"}}}
		})
		pieces := make(chan string)
		o := r.origin(cameraOrigin("b", pieces))
		w := watch(t, r, o.URL)
		first, n := head+string(frame(t, 1))+"\r\n", 1
		if strings.HasPrefix(x.body, "x") {
			first, n = "", 0
		}
		go func() {
			pieces <- first + x.body
			pieces <- ""
		}()
		for i := range n {
			if _, b, err := w.next(i); err != nil || !bytes.Equal(b, frame(t, 1)) {
				t.Errorf("%s: the picture before it: %d bytes, %v", name, len(b), err)
			}
		}
		if rest, err := io.ReadAll(w.br); err == nil || len(rest) > 0 {
			t.Errorf("%s: %d bytes came, %v", name, len(rest), err)
		}
		resp, body := get(t, r.client(), o.URL)
		wantPage(t, resp, body, 403, x.kind)
		rec := r.audit.wait(t, name, func(a audit.Record) bool { return a.Event == audit.Object })
		if rec.Kind != "mixed-replace" || rec.Verdict.Reason != x.why {
			t.Errorf("%s: %+v", name, rec)
		}
	}
}

// TestDeferredPartIsNotRemembered: the next one may pass.
func TestDeferredPartIsNotRemembered(t *testing.T) {
	var gone atomic.Bool
	gone.Store(true)
	r := newRig(t, func(p *plan) {
		p.engine = &scantest.Func{Judge: func(context.Context, *scan.Object) (scan.Verdict, error) {
			if gone.Load() {
				return scan.Verdict{}, errors.New("gone")
			}
			return scan.CleanVerdict(), nil
		}}
	})
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=b")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "--b\r\n\r\none\r\n--b--\r\n")
	})
	if rest, err := io.ReadAll(watch(t, r, o.URL).br); err == nil || len(rest) > 0 {
		t.Errorf("%q came, %v", rest, err)
	}
	gone.Store(false)
	if _, b, err := watch(t, r, o.URL).next(0); string(b) != "one" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// TestReplacingWithoutABoundaryIsHeld: nobody knows what its parts are.
func TestReplacingWithoutABoundaryIsHeld(t *testing.T) {
	r := newRig(t)
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "--b\r\n\r\n"+eicarText())
	})
	resp, body := get(t, r.client(), o.URL)
	wantPage(t, resp, body, 403, notice.Infected)
}
