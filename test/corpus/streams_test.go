package corpus

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"mime/multipart"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lazaret/test/harness"
)

// zipOf returns an archive with b in it, compressed.
func zipOf(b string) string {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	w, err := z.Create("a.txt")
	if err == nil {
		_, err = io.WriteString(w, b)
	}
	if err != nil || z.Close() != nil {
		panic(err) // into memory
	}
	return out.String()
}

// unzip reads what each local header announces.
func unzip(b []byte) (all [][]byte) {
	for len(all) < 20 {
		i := bytes.Index(b, []byte("PK\x03\x04"))
		if i < 0 || len(b) < i+30 {
			break
		}
		b = b[i:]
		if at := 30 + int(binary.LittleEndian.Uint16(b[26:])) + int(binary.LittleEndian.Uint16(b[28:])); at < len(b) {
			all = append(all, some(flate.NewReader(bytes.NewReader(b[at:]))))
		}
		b = b[4:]
	}
	return all
}

// eventData puts the values of data lines together, as they are and line by line.
func eventData(b []byte) [][]byte {
	var joined, lines []byte
	for line := range bytes.FieldsFuncSeq(b, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			value = bytes.TrimPrefix(value, []byte(" "))
			joined = append(joined, value...)
			lines = append(append(lines, value...), '\n')
		}
	}
	if joined == nil {
		return nil
	}
	return [][]byte{joined, lines}
}

// picture returns a JPEG file.
func picture(n int) string {
	m := image.NewGray(image.Rect(0, 0, 64, 48))
	for i := range m.Pix {
		m.Pix[i] = byte(i * n)
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		panic(err) // into memory
	}
	return b.String()
}

// cut cuts b into pieces of n bytes, each between two texts.
func cut(b string, n int, before, after string) string {
	var out strings.Builder
	for piece := range slices.Chunk([]byte(b), n) {
		out.WriteString(before + string(piece) + after)
	}
	return out.String()
}

// flat puts b into one line.
func flat(b string) string { return strings.ReplaceAll(b, "\n", " ") }

// eventLines has each line of b be the data of an event.
func eventLines(b, end string) string {
	return "data: " + strings.ReplaceAll(b, "\n", end+"data: ") + end + end
}

// streams are answers that say that they have no end.
func streams() []construct { return slices.Concat(eventStreams(), replacing()) }

func eventStreams() []construct {
	const fam = "streams"
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
	f := func(name string, valid bool, text func(b string) string) construct {
		return construct{fam, "events, " + name, valid, func(b []byte) made {
			body := text(string(b))
			return raw([]byte(body), head+"Transfer-Encoding: chunked\r\n\r\n"+chunked(body, "\r\n", "", 50, 7, 300))
		}}
	}
	all := []construct{
		f("of all kinds", good, func(b string) string {
			return "\ufeff: hello\nretry: 3000\n\nevent: x\nid: 1\n" + eventLines(b, "\n") + "data\ndata:\nid\n\n:\n" + ": the end\n\n"
		}),
		f("CRLF", good, func(b string) string {
			return ": hello\r\nevent: x\r\nid: 1\r\n" + eventLines(b, "\r\n") + "retry: 1\r\n\r\n"
		}),
		f("CR", good, func(b string) string { return "event: x\rid: 1\r" + eventLines(b, "\r") }),
		f("a line each", good, func(b string) string { return "data: " + strings.ReplaceAll(b, "\n", "\n\ndata: ") + "\n\n" }),
		f("no space", good, func(b string) string { return strings.ReplaceAll(eventLines(b, "\n"), "data: ", "data:") }),
		f("over lines", bad, func(b string) string { return cut(flat(b), 11, "data: ", "\n") + "\n" }),
		f("over events", bad, func(b string) string { return cut(flat(b), 11, "data: ", "\n\n") }),
		f("over events by CR", bad, func(b string) string { return cut(flat(b), 11, "data: ", "\r\r") }),
		f("over events with ids", bad, func(b string) string { return cut(flat(b), 11, "id: 12345\nevent: x\ndata:", "\n\n") }),
		f("over events far apart", bad, func(b string) string { return cut(flat(b), 40, "data:", "\n\n"+strings.Repeat(": waiting\n", 2000)) }),
		f("base64", bad, func(b string) string { return "data: " + base64d(b) + "\n\n" }),
		f("base64 over events", bad, func(b string) string { return cut(base64d(b), 44, "data: ", "\n\n") }),
		f("in a comment", bad, func(b string) string { return ":" + flat(b) + "\n\n" }),
		f("in an id", bad, func(b string) string { return "id: " + flat(b) + "\n\n" }),
		f("in a name", bad, func(b string) string { return "event: " + flat(b) + "\n\n" }),
		f("in an unknown field", bad, func(b string) string { return "datum: " + flat(b) + "\n\n" }),
		f("no events, a script", bad, strings.Clone), f("a script behind an event", bad, func(b string) string { return "data: x\n\n" + b }),
		f("a zip", bad, zipOf), f("a zip behind an event", bad, func(b string) string { return "data: x\n\n" + zipOf(b) }),
		f("gzip, undeclared", bad, gzipped), f("br, undeclared", bad, brotlied), f("deflate, undeclared", bad, deflated),
		f("zip in base64", bad, func(b string) string { return "data: " + base64d(zipOf(b)) + "\n\n" }),
	}
	for name, encode := range map[string]func(string) string{"gzip": gzipped, "br": brotlied, "deflate": zlibbed} {
		all = append(all, construct{fam, "events, in " + name, good, func(b []byte) made {
			body := eventLines(string(b), "\n")
			return raw([]byte(body), head+"Content-Encoding: "+name+"\r\n\r\n"+encode(body))
		}})
	}
	return all
}

// part is a part of multipart/x-mixed-replace behind its delimiter.
type part struct{ head, body string }

func (p part) withLength() part { return part{p.head + length(len(p.body)), p.body} }

// mixedOf puts parts together.
func mixedOf(delimiter, eol string, parts ...part) string {
	var out strings.Builder
	for _, p := range parts {
		out.WriteString(delimiter + eol + strings.ReplaceAll(p.head, "\r\n", eol) + eol + p.body + eol)
	}
	return out.String() + delimiter + "--" + eol
}

// sameParts says whether body has these parts, and the types that they say.
func sameParts(body []byte, parts []part) bool {
	line, _, _ := bytes.Cut(body, []byte("\r\n"))
	r := multipart.NewReader(bytes.NewReader(body), strings.TrimPrefix(string(line), "--"))
	for _, p := range parts {
		got, err := r.NextRawPart()
		if err != nil {
			return false
		}
		b, err := io.ReadAll(got)
		if err != nil || string(b) != p.body || !strings.Contains(p.head, "Content-Type: "+got.Header.Get("Content-Type")+"\r\n") ||
			got.Header.Get("Content-Length") != fmt.Sprint(len(b)) {
			return false
		}
	}
	_, err := r.NextRawPart()
	return err == io.EOF
}

func replacing() []construct {
	const fam = "streams"
	head := func(boundary string) string {
		return "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=" + boundary + "\r\n"
	}
	jpg := func(n int) part { return part{"Content-Type: image/jpeg\r\n", picture(n)} }
	text := func(b string) part { return part{"Content-Type: text/plain\r\n", b} }
	camera := func(name, boundary, delimiter, eol string, parts func(b string) []part) construct {
		return construct{fam, "pictures, " + name, good, func(b []byte) made {
			all := parts(string(b))
			body := mixedOf(delimiter, eol, all...)
			m := raw(b, head(boundary)+"\r\n"+body)
			m.same = func(got []byte) bool { return sameParts(got, all) }
			return m
		}}
	}
	f := func(name string, text func(b string) string) construct {
		return construct{fam, "parts, " + name, bad, func(b []byte) made {
			body := text(string(b))
			return raw([]byte(body), head("frame")+"Transfer-Encoding: chunked\r\n\r\n"+chunked(body, "\r\n", "", 500, 30))
		}}
	}
	one := func(p part) string { return mixedOf("--frame", "\r\n", jpg(1), p, jpg(2)) }
	typed := func(encode func(string) string, typ string) func(string) string {
		return func(b string) string { return one(part{"Content-Type: " + typ + "\r\n", encode(b)}) }
	}
	return []construct{
		camera("by RFC 2046", "frame", "--frame", "\r\n", func(b string) []part { return []part{jpg(1), jpg(2), text(b), jpg(3)} }),
		camera("with lengths", "frame", "--frame", "\r\n", func(b string) []part {
			return []part{jpg(1).withLength(), jpg(2).withLength(), text(b).withLength(), jpg(3).withLength()}
		}),
		camera("dashes in the boundary", "--frame", "--frame", "\r\n", func(b string) []part { return []part{jpg(1), text(b).withLength(), jpg(2)} }),
		camera("quoted", `"a frame"`, "--a frame", "\r\n", func(b string) []part { return []part{jpg(1), text(b)} }),
		camera("LF alone", "frame", "--frame", "\n", func(b string) []part { return []part{jpg(1).withLength(), text(b), jpg(3)} }),
		camera("with times", "frame", "--frame", "\r\n", func(b string) []part {
			return []part{{"X-Timestamp: 17.25\r\n" + jpg(1).head, picture(1)}, {text(b).head + "X-Timestamp: 18.25\r\n", b}}
		}),
		f("a zip behind a picture", typed(zipOf, "application/zip")), f("a zip as a picture", typed(zipOf, "image/jpeg")),
		f("a zip behind a picture in one part", func(b string) string { return one(part{"Content-Type: image/jpeg\r\n", picture(4) + zipOf(b)}) }),
		f("a zip over two parts", func(b string) string {
			z := zipOf(b)
			return mixedOf("--frame", "\r\n", part{"", picture(1) + z[:len(z)-40]}, part{"", z[len(z)-40:]})
		}),
		f("a zip behind a preamble", func(b string) string {
			return "a preamble\r\n" + mixedOf("--frame", "\r\n", part{"", zipOf(b)})
		}),
		f("a zip as the preamble", func(b string) string { return zipOf(b) + "\r\n" + one(jpg(3)) }),
		f("a zip as the epilogue", func(b string) string { return one(jpg(3)) + zipOf(b) }),
		f("no part, a zip", zipOf), f("no part, a script", strings.Clone),
		f("an epilogue", func(b string) string { return one(jpg(3)) + b }), f("a preamble", func(b string) string { return b + "\r\n" + one(jpg(3)) }),
		f("gzip", typed(gzipped, "text/plain")), f("br", typed(brotlied, "text/plain")), f("deflate", typed(deflated, "image/jpeg")),
		f("declared gzip", func(b string) string { return one(part{"Content-Encoding: gzip\r\n", gzipped(b)}) }),
		f("base64", func(b string) string { return one(part{"Content-Transfer-Encoding: base64\r\n", lines76(base64d(b))}) }),
		f("quoted-printable", func(b string) string {
			return one(part{"Content-Transfer-Encoding: quoted-printable\r\n", escapedQP(b)})
		}),
		f("in a field", func(b string) string { return one(part{"X-Evil: " + b[64:132] + "\r\n", "x"}) }),
		f("in another field", func(b string) string { return one(part{"Content-Disposition: " + b[64:132] + "\r\n", "x"}) }),
		f("in the type", func(b string) string { return one(part{`Content-Type: a/b; c="` + b[64:132] + "\"\r\n", "x"}) }),
		f("a length too small", func(b string) string { return one(part{"Content-Length: 10\r\n", b}) }),
		f("a length too large", func(b string) string { return one(part{"Content-Length: 1000\r\n", b}) }),
		f("a delimiter in a line", func(b string) string { return one(text("x--frame\r\n\r\n" + b)) }),
		f("a multipart in a part", func(b string) string {
			return one(part{"Content-Type: multipart/mixed; boundary=c\r\n", mixedOf("--c", "\r\n", part{"Content-Transfer-Encoding: base64\r\n", base64d(b)})})
		}),
		f("cut off", func(b string) string { return strings.TrimSuffix(one(text(b)), mixedOf("--frame", "\r\n", jpg(2))) }),
	}
}

// TestFileKnownByItsChecksumInAStream has one that no window, and no piece, shows anything of.
func TestFileKnownByItsChecksumInAStream(t *testing.T) {
	script := "On Error Resume Next\r\nSet s = CreateObject(\"WScript.Shell\")\r\n" + strings.Repeat("s.Run \"calc\"\r\n", 3000)
	db := filepath.Join(t.TempDir(), "test.hsb")
	if err := os.WriteFile(db, fmt.Appendf(nil, "%x:%d:Test.Script\n", sha256.Sum256([]byte(script)), len(script)), 0o644); err != nil {
		t.Fatal(err)
	}
	mixed := func(body string) string { return "Content-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n" + body }
	var all []sample
	for name, text := range map[string]string{
		"as a file":              "Content-Type: text/plain\r\n\r\n" + script,
		"as events":              "Content-Type: text/event-stream\r\n\r\n" + script,
		"as a part":              mixed("--b\r\nContent-Type: image/jpeg\r\n\r\n" + picture(1) + "\r\n--b\r\n\r\n" + script + "\r\n--b--\r\n"),
		"as a part, with length": mixed(fmt.Sprintf("--b\r\nContent-Length: %d\r\n\r\n%s\r\n--b--\r\n", len(script), script)),
		"as no part":             mixed(script),
		"as the end of all":      mixed("--b\r\n\r\nx\r\n--b--\r\n" + script),
	} {
		all = append(all, sample{construct: construct{name: name}, made: made{raw: "HTTP/1.1 200 OK\r\n" + text}})
	}
	o := startOrigins(t, all)
	g := harness.Start(t, harness.Settings{"[scanner]": "type = \"signatures\"\npaths = [\"" + db + "\"]\n"}, o.ca.File)
	fetch := goClient(t, g, "http://"+o.plain)
	for i, s := range all {
		out := fetch(t, fmt.Sprintf("/%d", i))
		if out.status == "" || bytes.Contains(out.body, []byte("WScript")) || bytes.Contains(out.body, []byte("calc")) {
			t.Errorf("%s: status %q, broken %v, %d bytes", s.name, out.status, out.broken, len(out.body))
		}
	}
}
