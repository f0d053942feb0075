package corpus

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"mime/quotedprintable"
	"strings"
	"unicode/utf16"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

func pack(b string, open func(io.Writer) io.WriteCloser) string {
	var out bytes.Buffer
	w := open(&out)
	if _, err := io.WriteString(w, b); err != nil {
		panic(err) // into memory
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.String()
}

func gzipped(b string) string {
	return pack(b, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
}

func zlibbed(b string) string {
	return pack(b, func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) })
}

func deflated(b string) string {
	return pack(b, func(w io.Writer) io.WriteCloser {
		z, _ := flate.NewWriter(w, 9) // the level is a good one
		return z
	})
}

func brotlied(b string) string {
	return pack(b, func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) })
}

func zstandard(b string, opts ...zstd.EOption) string {
	return pack(b, func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w, append(opts, zstd.WithEncoderConcurrency(1))...)
		if err != nil {
			panic(err)
		}
		return z
	})
}

func base64d(b string) string { return base64.StdEncoding.EncodeToString([]byte(b)) }

func lines76(b string) string {
	var out strings.Builder
	for len(b) > 76 {
		out.WriteString(b[:76] + "\r\n")
		b = b[76:]
	}
	return out.String() + b + "\r\n"
}

func quoted(b string) string {
	return pack(b, func(w io.Writer) io.WriteCloser { return quotedprintable.NewWriter(w) })
}

// escapedQP writes every byte as =XX.
func escapedQP(b string) string {
	var out strings.Builder
	for i := range len(b) {
		fmt.Fprintf(&out, "=%02X", b[i])
		if i%20 == 19 {
			out.WriteString("=\r\n")
		}
	}
	return out.String()
}

// coded is a construct whose content has been encoded, and is declared by head.
func coded(family, name string, valid bool, encode func(string) string, head ...string) construct {
	return construct{family, name, valid, func(b []byte) made {
		return made{head: append([]string{"Content-Type: text/plain"}, head...), body: []byte(encode(string(b))), want: b}
	}}
}

// stands is a construct whose content is delivered as it is.
func stands(family, name string, valid bool, write func(string) string, head ...string) construct {
	return construct{family, name, valid, func(b []byte) made {
		body := []byte(write(string(b)))
		return made{head: head, body: body, want: body}
	}}
}

func twice(f, g func(string) string) func(string) string {
	return func(b string) string { return g(f(b)) }
}

func codings() []construct {
	const fam = "Content-Encoding"
	return []construct{
		coded(fam, "gzip", good, gzipped, "Content-Encoding: gzip"),
		coded(fam, "x-gzip", good, gzipped, "Content-Encoding: x-gzip"),
		coded(fam, "GZIP", good, gzipped, "Content-Encoding: GZIP"),
		coded(fam, "gzip with white space", good, gzipped, "Content-Encoding:  gzip \t"),
		coded(fam, "gzip with empty elements", good, gzipped, "Content-Encoding: , gzip, ,"),
		coded(fam, "deflate, zlib", good, zlibbed, "Content-Encoding: deflate"),
		coded(fam, "deflate, bare", good, deflated, "Content-Encoding: deflate"),
		coded(fam, "br", good, brotlied, "Content-Encoding: br"),
		coded(fam, "zstd", good, func(b string) string { return zstandard(b) }, "Content-Encoding: zstd"),
		coded(fam, "identity", good, strings.Clone, "Content-Encoding: identity"),
		coded(fam, "empty", good, strings.Clone, "Content-Encoding: "),
		coded(fam, "identity, gzip", good, gzipped, "Content-Encoding: identity, gzip"),
		coded(fam, "gzip, identity", good, gzipped, "Content-Encoding: gzip, identity"),
		coded(fam, "gzip, gzip", good, twice(gzipped, gzipped), "Content-Encoding: gzip, gzip"),
		coded(fam, "gzip on two lines", good, twice(gzipped, gzipped), "Content-Encoding: gzip", "Content-Encoding: gzip"),
		coded(fam, "deflate, gzip", good, twice(zlibbed, gzipped), "Content-Encoding: deflate, gzip"),
		coded(fam, "gzip, br", good, twice(gzipped, brotlied), "Content-Encoding: gzip, br"),
		coded(fam, "br, zstd, gzip, deflate", good, twice(twice(twice(brotlied, func(b string) string { return zstandard(b) }), gzipped), zlibbed), "Content-Encoding: br, zstd, gzip, deflate"),
		coded(fam, "gzip of several members", good, func(b string) string { return gzipped(b[:20]) + gzipped(b[20:100]) + gzipped(b[100:]) }, "Content-Encoding: gzip"),
		coded(fam, "gzip with an empty member first", good, func(b string) string { return gzipped("") + gzipped(b) }, "Content-Encoding: gzip"),
		coded(fam, "gzip with name and comment", good, func(b string) string {
			return pack(b, func(w io.Writer) io.WriteCloser {
				z := gzip.NewWriter(w)
				z.Name, z.Comment, z.Extra = "file.txt", "a comment", []byte("extra")
				return z
			})
		}, "Content-Encoding: gzip"),
		coded(fam, "gzip, stored", good, func(b string) string {
			return pack(b, func(w io.Writer) io.WriteCloser {
				z, _ := gzip.NewWriterLevel(w, gzip.NoCompression) // the level is a good one
				return z
			})
		}, "Content-Encoding: gzip"),
		coded(fam, "zstd of several frames", good, func(b string) string { return zstandard(b[:100]) + zstandard(b[100:]) }, "Content-Encoding: zstd"),
		coded(fam, "zstd with skippable frames", good, func(b string) string {
			return skippable("skip") + zstandard(b[:100]) + skippable("skip me") + zstandard(b[100:]) + skippable("")
		}, "Content-Encoding: zstd"),
		coded(fam, "zstd without checksum", good, func(b string) string { return zstandard(b, zstd.WithEncoderCRC(false)) }, "Content-Encoding: zstd"),
		coded(fam, "gzip of a zip's worth", good, twice(func(b string) string { return b }, gzipped), "Content-Encoding: gzip", "Cache-Control: no-transform", `ETag: "v1"`),
	}
}

func skippable(b string) string {
	head := binary.LittleEndian.AppendUint32([]byte("\x50\x2a\x4d\x18"), uint32(len(b))) //nolint:gosec // it is short
	return string(head) + b
}

func oddCodings() []construct {
	const fam = "Content-Encoding, odd"
	z := func(name string, encode func(string) string, head ...string) construct {
		return coded(fam, name, bad, encode, head...)
	}
	all := []construct{
		z("gzip, truncated", func(b string) string { g := gzipped(b); return g[:len(g)-12] }, "Content-Encoding: gzip"),
		z("gzip without checksum", func(b string) string { g := gzipped(b); return g[:len(g)-8] }, "Content-Encoding: gzip"),
		z("gzip, wrong checksum", func(b string) string { g := []byte(gzipped(b)); g[len(g)-7] ^= 1; return string(g) }, "Content-Encoding: gzip"),
		z("gzip, the virus behind it", func(b string) string { return gzipped("hello") + b }, "Content-Encoding: gzip"),
		z("gzip, zeros and the virus behind it", func(b string) string { return gzipped("hello") + "\x00\x00" + b }, "Content-Encoding: gzip"),
		z("gzip, zeros behind it", func(b string) string { return gzipped(b) + "\x00\x00\x00" }, "Content-Encoding: gzip"),
		z("gzip, second member broken", func(b string) string { return gzipped(b) + "\x1f\x8b\x08" }, "Content-Encoding: gzip"),
		z("gzip, reserved flags", func(b string) string { g := []byte(gzipped(b)); g[3] |= 0x80; return string(g) }, "Content-Encoding: gzip"),
		z("gzip that is plain", strings.Clone, "Content-Encoding: gzip"),
		z("gzip that is zlib", zlibbed, "Content-Encoding: gzip"),
		z("gzip that is br", brotlied, "Content-Encoding: gzip"),
		z("br that is gzip", gzipped, "Content-Encoding: br"),
		z("br that is plain", strings.Clone, "Content-Encoding: br"),
		z("deflate that is gzip", gzipped, "Content-Encoding: deflate"),
		z("deflate that is plain", strings.Clone, "Content-Encoding: deflate"),
		z("deflate, wrong checksum", func(b string) string { g := []byte(zlibbed(b)); g[len(g)-1] ^= 1; return string(g) }, "Content-Encoding: deflate"),
		z("deflate, the virus behind it", func(b string) string { return zlibbed("hello") + b }, "Content-Encoding: deflate"),
		z("zlib with a dictionary", func(b string) string {
			return pack(b, func(w io.Writer) io.WriteCloser {
				d, _ := zlib.NewWriterLevelDict(w, 9, []byte("This is the beginning")) // the level is a good one
				return d
			})
		}, "Content-Encoding: deflate"),
		z("br, truncated", func(b string) string { g := brotlied(b); return g[:len(g)-2] }, "Content-Encoding: br"),
		z("br, the virus behind it", func(b string) string { return brotlied("hello") + b }, "Content-Encoding: br"),
		z("zstd, truncated", func(b string) string { g := zstandard(b); return g[:len(g)-3] }, "Content-Encoding: zstd"),
		z("zstd, the virus behind it", func(b string) string { return zstandard("hello") + b }, "Content-Encoding: zstd"),
		z("zstd with a dictionary", func(b string) string {
			g := []byte(zstandard(b, zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false)))
			g[4] |= 1 // an id of one byte follows
			return string(g[:5]) + "\x07" + string(g[5:])
		}, "Content-Encoding: zstd"),
		z("zstd with a huge window", func(b string) string { return zstandard(b, zstd.WithWindowSize(1<<27), zstd.WithSingleSegment(false)) }, "Content-Encoding: zstd"),
		z("gzip;q=1", gzipped, "Content-Encoding: gzip;q=1"), z("quoted", gzipped, `Content-Encoding: "gzip"`), z("gzip gzip", gzipped, "Content-Encoding: gzip gzip"),
		z("gzp", gzipped, "Content-Encoding: gzp"), z("declared twice, encoded once", gzipped, "Content-Encoding: gzip", "Content-Encoding: gzip"),
		z("declared twice differently", gzipped, "Content-Encoding: gzip", "Content-Encoding: br"), z("declared once, encoded twice", twice(gzipped, gzipped), "Content-Encoding: gzip"),
		z("declared once, br below", twice(brotlied, gzipped), "Content-Encoding: gzip"), z("order reversed", twice(gzipped, brotlied), "Content-Encoding: br, gzip"),
		z("none", gzipped, "Content-Encoding: none"), z("binary", gzipped, "Content-Encoding: binary"), z("utf-8", strings.Clone, "Content-Encoding: utf-8"),
		z("base64", base64d, "Content-Encoding: base64"), z("sdch", strings.Clone, "Content-Encoding: sdch"), z("pack200-gzip", gzipped, "Content-Encoding: pack200-gzip"),
		z("aes128gcm", strings.Clone, "Content-Encoding: aes128gcm"), z("exi", strings.Clone, "Content-Encoding: exi"), z("bzip2", strings.Clone, "Content-Encoding: bzip2"),
		z("xz", strings.Clone, "Content-Encoding: xz"), z("dcb", brotlied, "Content-Encoding: dcb"), z("chunked", inChunks, "Content-Encoding: chunked"),
		z("six times gzip", twice(twice(twice(gzipped, gzipped), twice(gzipped, gzipped)), twice(gzipped, gzipped)), "Content-Encoding: gzip, gzip, gzip, gzip, gzip, gzip"),
		z("X-Content-Encoding", gzipped, "X-Content-Encoding: gzip"), z("Content_Encoding", gzipped, "Content_Encoding: gzip"),
		z("named by Connection", gzipped, "Connection: Content-Encoding", "Content-Encoding: gzip"),
		z("event stream in gzip", gzipped, "Content-Encoding: gzip", "Content-Type: text/event-stream"),
	}
	for i := range all {
		if strings.Contains(all[i].name, "zeros behind it") {
			all[i].valid = true // servers pad, and every client takes it
		}
	}
	streamed := func(name string, encode func(string) string, head string) construct {
		return framed(fam, name, bad, func(b string) string { return "HTTP/1.1 200 OK\r\n" + head + "\r\n" + encode(b) })
	}
	return append(all,
		streamed("endless event stream in gzip", gzipped, "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"),
		streamed("endless event stream in br", brotlied, "Content-Type: text/event-stream\r\nContent-Encoding: br\r\n"),
		streamed("endless event stream in an unknown coding", gzipped, "Content-Type: text/event-stream\r\nContent-Encoding: gzp\r\n"),
		streamed("endless event stream that is gzip", gzipped, "Content-Type: text/event-stream\r\n"),
		streamed("endless pictures with base64", twice(base64d, func(b string) string {
			return "--b\r\nContent-Type: image/jpeg\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b + "\r\n--b--\r\n"
		}), "Content-Type: multipart/x-mixed-replace; boundary=b\r\n"),
	)
}

// undeclared are encodings that only a client that sniffs undoes.
func undeclared() []construct {
	const fam = "undeclared encodings"
	octets := "Content-Type: application/octet-stream"
	return []construct{
		stands(fam, "gzip", good, gzipped, octets), stands(fam, "gzip called text", good, gzipped, "Content-Type: text/html"),
		stands(fam, "gzip as application/gzip", good, gzipped, "Content-Type: application/gzip"), stands(fam, "zstd", good, func(b string) string { return zstandard(b) }, octets),
		stands(fam, "zlib", good, zlibbed, octets), stands(fam, "bare deflate", good, deflated, octets), stands(fam, "br", good, brotlied, octets),
		stands(fam, "br called text", good, brotlied, "Content-Type: text/html"), stands(fam, "gzip in br", good, twice(gzipped, brotlied), octets),
		stands(fam, "chunks", good, inChunks, octets), stands(fam, "chunks with LF alone", good, func(b string) string { return chunked(b, "\n", "", 50) }, octets),
		stands(fam, "base64", good, base64d, "Content-Type: text/plain"), stands(fam, "base64 in lines", good, twice(base64d, lines76), "Content-Type: text/plain"),
		stands(fam, "base64, URL's alphabet", good, func(b string) string { return base64.RawURLEncoding.EncodeToString([]byte(b)) }, "Content-Type: text/plain"),
		stands(fam, "base64 of gzip", good, twice(gzipped, base64d), "Content-Type: text/plain"), stands(fam, "an answer as content", good, func(b string) string {
			return ok + "Content-Encoding: gzip\r\n" + length(len(gzipped(b))) + "\r\n" + gzipped(b)
		}, "Content-Type: message/http"), stands(fam, "gzip of base64", good, twice(base64d, gzipped), octets),
		stands(fam, "Content-Transfer-Encoding: base64", good, twice(base64d, lines76), octets, "Content-Transfer-Encoding: base64"),
		stands(fam, "Content-Transfer-Encoding: quoted-printable", good, quoted, octets, "Content-Transfer-Encoding: quoted-printable"),
		stands(fam, "Content-Transfer-Encoding: quoted-printable, all escaped", good, escapedQP, octets, "Content-Transfer-Encoding: Quoted-Printable"),
		stands(fam, "Content-Transfer-Encoding: binary", good, strings.Clone, octets, "Content-Transfer-Encoding: binary"),
		stands(fam, "Content-Transfer-Encoding: base64 that is none", good, strings.Clone, octets, "Content-Transfer-Encoding: base64"),
	}
}

func documents() []construct {
	const fam = "documents"
	page := func(uri func(string) string) func(string) string {
		return func(b string) string {
			return "<!DOCTYPE html><html><body><a href=\"" + uri(b) + "\">x</a></body></html>\n"
		}
	}
	data := func(b string) string { return "data:application/octet-stream;base64," + base64d(b) }
	mail := func(b string) string {
		return "From: a@example.org\r\nTo: b@example.org\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n" +
			"--b\r\nContent-Type: application/octet-stream; name=x.com\r\nContent-Transfer-Encoding: base64\r\n\r\n" + lines76(base64d(b)) + "--b--\r\n"
	}
	mhtml := func(b string) string {
		return "From: <Saved by Browser>\r\nSnapshot-Content-Location: http://example.org/\r\nSubject: x\r\nMIME-Version: 1.0\r\n" +
			"Content-Type: multipart/related; type=\"text/html\"; boundary=\"--MB--x\"\r\n\r\n----MB--x\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
			escapedQP(b) + "\r\n----MB--x--\r\n"
	}
	form := func(enc string, f func(string) string) func(string) string {
		return func(b string) string {
			return "--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: " + enc + "\r\n\r\n" + f(b) + "\r\n--b--\r\n"
		}
	}
	html, mixed := "Content-Type: text/html; charset=utf-8", "Content-Type: multipart/mixed; boundary=b"
	return []construct{
		stands(fam, "message/rfc822", good, mail, "Content-Type: message/rfc822"), stands(fam, "message as text", good, mail, "Content-Type: text/plain"),
		stands(fam, "message as octets", good, mail, "Content-Type: application/octet-stream"), stands(fam, "message/global", good, mail, "Content-Type: message/global"),
		stands(fam, "MHTML", good, mhtml, "Content-Type: multipart/related; boundary=\"--MB--x\""), stands(fam, "MHTML as application/x-mimearchive", good, mhtml, "Content-Type: application/x-mimearchive"),
		stands(fam, "multipart/mixed, base64", good, form("base64", base64d), mixed), stands(fam, "multipart/mixed, quoted-printable", good, form("quoted-printable", escapedQP), mixed),
		stands(fam, "multipart/mixed, 8bit", good, form("8bit", strings.Clone), mixed), stands(fam, "multipart/form-data", good, form("base64", base64d), "Content-Type: multipart/form-data; boundary=b"),
		stands(fam, "multipart, gzip in a part", good, form("binary", gzipped), mixed), stands(fam, "multipart, other boundary", bad, form("base64", base64d), "Content-Type: multipart/mixed; boundary=other"),
		stands(fam, "multipart without boundary", bad, form("base64", base64d), "Content-Type: multipart/mixed"), stands(fam, "multipart, Base64 in odd case", good, form(" BASE64 ", base64d), mixed),
		stands(fam, "multipart, x-uuencode", good, form("8bit", strings.Clone), mixed),
		stands(fam, "data: URL in HTML", good, page(data), html), stands(fam, "data: URL in text", good, page(data), "Content-Type: text/plain"),
		stands(fam, "data: URL in JavaScript", good, func(b string) string { return "fetch('" + data(b) + "');\n" }, "Content-Type: application/javascript"),
		stands(fam, "data: URL in CSS", good, func(b string) string { return "a{background:url(" + data(b) + ")}\n" }, "Content-Type: text/css"),
		stands(fam, "data: URL in SVG", good, func(b string) string {
			return `<svg xmlns="http://www.w3.org/2000/svg"><image href="` + data(b) + `"/></svg>`
		}, "Content-Type: image/svg+xml"),
		stands(fam, "data: URL in JSON", good, func(b string) string { return `{"a":"` + strings.ReplaceAll(data(b), "/", `\/`) + `"}` }, "Content-Type: application/json"),
		stands(fam, "data: URL, DATA in capitals", good, page(func(b string) string { return "DATA:;BASE64," + base64d(b) }), html),
		stands(fam, "data: URL, white space", good, page(func(b string) string { return "data:;base64," + strings.ReplaceAll(lines76(base64d(b)), "\r\n", "\n ") }), html),
		stands(fam, "data: URL, base64 percent-encoded", good, page(func(b string) string {
			return "data:;base64," + strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D", "V", "%56").Replace(base64d(b))
		}), html),
		stands(fam, "data: URL of gzip", good, page(twice(gzipped, data)), html), stands(fam, "data: URL in a data: URL", good, page(twice(page(data), data)), html),
		stands(fam, "data: URL, percent-encoded", good, page(func(b string) string { return "data:text/plain," + percentEncoded(b) }), html),
		stands(fam, "data: URL, charset, percent-encoded", good, page(func(b string) string { return "data:text/plain;charset=utf-8," + percentEncoded(b) }), html),
		stands(fam, "data: URL in gzip in UTF-16", good, twice(page(data), func(b string) string { return wide(b, binary.LittleEndian, true) }), "Content-Type: text/html; charset=utf-16"),
	}
}

func percentEncoded(b string) string {
	var out strings.Builder
	for i := range len(b) {
		fmt.Fprintf(&out, "%%%02x", b[i])
	}
	return out.String()
}

func wide(b string, order binary.AppendByteOrder, mark bool) string {
	var out []byte
	if mark {
		out = order.AppendUint16(out, 0xfeff)
	}
	for _, u := range utf16.Encode([]rune(b)) {
		out = order.AppendUint16(out, u)
	}
	return string(out)
}

func wide32(b string, order binary.AppendByteOrder, mark bool) string {
	var out []byte
	if mark {
		out = order.AppendUint32(out, 0xfeff)
	}
	for _, r := range b {
		out = order.AppendUint32(out, uint32(r)) //nolint:gosec // a rune is not negative
	}
	return string(out)
}

func charsets() []construct {
	const fam = "charsets"
	le, be := binary.LittleEndian, binary.BigEndian
	t := func(name, typ string, f func(string) string) construct {
		return stands(fam, name, good, f, "Content-Type: "+typ)
	}
	seven := func(b string) string {
		var out strings.Builder
		for _, r := range b {
			if strings.ContainsRune(" \n.,", r) {
				out.WriteRune(r)
				continue
			}
			out.WriteString("+" + base64.RawStdEncoding.EncodeToString([]byte(wide(string(r), be, false))) + "-")
		}
		return out.String()
	}
	return []construct{
		t("UTF-16LE with BOM", "text/plain", func(b string) string { return wide(b, le, true) }), t("UTF-16BE with BOM", "text/plain", func(b string) string { return wide(b, be, true) }),
		t("UTF-16LE declared", "text/plain; charset=utf-16le", func(b string) string { return wide(b, le, false) }), t("UTF-16BE declared", "text/plain; charset=\"UTF-16BE\"", func(b string) string { return wide(b, be, false) }),
		t("UTF-16 declared, no BOM", "text/html; charset=utf-16", func(b string) string { return wide(b, le, false) }), t("UTF-16 undeclared", "text/plain", func(b string) string { return wide(b, le, false) }),
		t("UTF-16BE undeclared", "application/octet-stream", func(b string) string { return wide(b, be, false) }), t("UTF-16, BOM against charset", "text/plain; charset=utf-16be", func(b string) string { return wide(b, le, true) }),
		t("UTF-8 with BOM", "text/plain", func(b string) string { return "\xef\xbb\xbf" + b }), t("UTF-32LE", "text/plain; charset=utf-32", func(b string) string { return wide32(b, le, true) }),
		t("UTF-32BE", "text/plain; charset=utf-32be", func(b string) string { return wide32(b, be, true) }), t("UTF-32 undeclared", "text/plain", func(b string) string { return wide32(b, le, false) }),
		t("UTF-7", "text/html; charset=utf-7", seven), t("UTF-7 undeclared", "text/html", seven),
		t("latin-1 said, UTF-16 meant", "text/html; charset=iso-8859-1", func(b string) string { return wide(b, le, false) }),
		t("half UTF-8, half UTF-16", "text/plain", func(b string) string { return strings.Repeat("plain text first. ", 60) + "\n" + wide(b, le, false) }),
		t("base64 in UTF-16", "text/plain", func(b string) string { return wide(base64d(b), le, true) }),
		t("unknown charset", "text/plain; charset=x-unheard-of", strings.Clone), t("charset twice", "text/plain; charset=utf-8; charset=utf-16", strings.Clone),
	}
}

func types() []construct {
	const fam = "Content-Type"
	t := func(name string, valid bool, head ...string) construct {
		return stands(fam, name, valid, strings.Clone, head...)
	}
	return []construct{
		t("none", good), t("odd case", good, "Content-Type: TEXT/Plain"), t("no slash", good, "Content-Type: text"), t("empty", good, "Content-Type: "), t("rubbish", good, "Content-Type: ;;;=,\""),
		t("twice the same", good, "Content-Type: text/plain", "Content-Type: text/plain"), t("twice", good, "Content-Type: text/plain", "Content-Type: text/html"),
		t("a list", good, "Content-Type: text/plain, text/html"), t("nosniff", good, "Content-Type: image/png", "X-Content-Type-Options: nosniff"),
		t("a picture", good, "Content-Type: image/png"), t("attachment", good, "Content-Type: text/plain", "Content-Disposition: attachment; filename=\"x.txt\""),
		t("two dispositions", bad, "Content-Type: text/plain", "Content-Disposition: inline", "Content-Disposition: attachment"),
		t("event stream with a length", good, "Content-Type: text/event-stream"),
		stands(fam, "multipart second", bad, func(b string) string {
			return "--b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64d(b) + "\r\n--b--\r\n"
		}, "Content-Type: text/plain", "Content-Type: multipart/mixed; boundary=b"),
		stands(fam, "multipart first", bad, func(b string) string {
			return "--b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64d(b) + "\r\n--b--\r\n"
		}, "Content-Type: multipart/mixed; boundary=b", "Content-Type: text/plain"),
		framed(fam, "endless event stream", bad, func(b string) string {
			return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + b
		}),
	}
}

// partial are answers that say that they are parts.
func partial() []construct {
	const fam = "Content-Range"
	byteRanges := func(status string) func(string) string {
		return func(b string) string {
			var parts strings.Builder
			for _, r := range [][2]int{{0, 100}, {100, len(b)}} {
				fmt.Fprintf(&parts, "--b\r\nContent-Type: text/plain\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%s\r\n", r[0], r[1]-1, len(b), b[r[0]:r[1]])
			}
			parts.WriteString("--b--\r\n")
			return status + "\r\nContent-Type: multipart/byteranges; boundary=b\r\n" + length(parts.Len()) + "\r\n" + parts.String()
		}
	}
	f := func(name string, valid bool, text func(b string) string) construct {
		return framed(fam, name, valid, text)
	}
	const part = "HTTP/1.1 206 Partial Content\r\nContent-Type: text/plain\r\n"
	return []construct{
		f("on 200", bad, func(b string) string {
			return ok + fmt.Sprintf("Content-Range: bytes 0-%d/%d\r\n", len(b)-1, len(b)) + length(len(b)) + "\r\n" + b
		}),
		f("a part on 200", bad, func(b string) string { return ok + "Content-Range: bytes 0-99/500\r\n" + length(len(b)) + "\r\n" + b }),
		f("206 unasked", bad, func(b string) string {
			return part + "Content-Range: bytes 0-99/500\r\n" + length(100) + "\r\n" + b[:100]
		}),
		f("206 of the end", bad, func(b string) string {
			return part + "Content-Range: bytes 100-499/500\r\n" + length(len(b)) + "\r\n" + b
		}),
		f("206 that is the whole", bad, func(b string) string {
			return part + fmt.Sprintf("Content-Range: bytes 0-%d/%d\r\n", len(b)-1, len(b)) + length(len(b)) + "\r\n" + b
		}),
		f("206 without Content-Range", bad, func(b string) string { return part + length(len(b)) + "\r\n" + b }),
		f("206 of two parts", bad, byteRanges("HTTP/1.1 206 Partial Content")), f("200 of two parts", bad, byteRanges("HTTP/1.1 200 OK")),
		f("two Content-Range", bad, func(b string) string {
			return part + "Content-Range: bytes 0-1/2\r\nContent-Range: bytes 0-9/10\r\n" + length(len(b)) + "\r\n" + b
		}),
		f("416", bad, func(b string) string {
			return "HTTP/1.1 416 No\r\nContent-Range: bytes */500\r\n" + length(len(b)) + "\r\n" + b
		}),
		f("200 with Accept-Ranges", good, func(b string) string { return ok + "Accept-Ranges: bytes\r\n" + length(len(b)) + "\r\n" + b }),
		f("226 with IM", bad, func(b string) string { return "HTTP/1.1 226 IM Used\r\nIM: vcdiff\r\n" + length(len(b)) + "\r\n" + b }),
	}
}
