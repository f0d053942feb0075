package clamd

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"lazaret/internal/scan"

	"golang.org/x/sys/unix"
)

// padded is a source of any size that holds next to nothing: a head, and padding of one byte up to the size. As a file it
// is sparse where the padding is zeros.
type padded struct {
	head []byte
	fill byte
	size int64
}

// Size implements source.
func (p padded) Size() int64 { return p.size }

// Bytes implements source.
func (p padded) Bytes() ([]byte, bool) { return p.head, int64(len(p.head)) == p.size }

// ReadAt implements source.
func (p padded) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(p.head)) {
		n = copy(b, p.head[off:])
	}
	for n < len(b) && off+int64(n) < p.size {
		b[n] = p.fill
		n++
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// File implements source.
func (p padded) File() (*os.File, error) {
	if p.fill != 0 {
		return nil, errors.New("only zeros make a sparse file")
	}
	fd, err := unix.MemfdCreate("lazaret-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:lazaret-probe")
	_, err = f.WriteAt(p.head, 0)
	if err == nil {
		err = f.Truncate(p.size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// prefixed is a source with bytes before another one. It has no file.
type prefixed struct {
	prefix []byte
	source
}

// Size implements source.
func (p prefixed) Size() int64 { return int64(len(p.prefix)) + p.source.Size() }

// Bytes implements source.
func (p prefixed) Bytes() ([]byte, bool) { return nil, false }

// File implements source.
func (p prefixed) File() (*os.File, error) { return nil, errNoFile }

// ReadAt implements source.
func (p prefixed) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(p.prefix)) {
		n = copy(b, p.prefix[off:])
	}
	if n == len(b) {
		return n, nil
	}
	m, err := p.source.ReadAt(b[n:], off+int64(n)-int64(len(p.prefix)))
	return n + m, err
}

// nesting is deeper than any MaxRecursion that makes sense; the default is 17.
const nesting = 100

// The heads of the probes. An engine that reads a probe finds the EICAR file in it, whatever signature it has for that,
// because the file is there whole and alone once the wrapping is off.
var (
	// gzipHead may be followed by any number of zeros, which count for the size and are passed over.
	gzipHead = sync.OnceValue(func() []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write(scan.EICAR()) // into memory
		_ = w.Close()
		return b.Bytes()
	})
	// htmlHead has EICAR as a data URI (RFC 2397), which clamd unpacks while it normalises HTML.
	htmlHead = sync.OnceValue(func() []byte {
		return []byte(`<html><body><img src="data:application/octet-stream;base64,` +
			base64.StdEncoding.EncodeToString(scan.EICAR()) + `"></body></html>`)
	})
	// attached is a mail that has EICAR attached, in base64.
	attached = sync.OnceValue(func() []byte {
		return []byte("Received: from a.example by b.example; Mon, 1 Jun 2026 10:00:00 +0200\r\nFrom: a@example.org\r\n" +
			"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n" +
			"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
			base64.StdEncoding.EncodeToString(scan.EICAR()) + "\r\n--x--\r\n")
	})
	// deepZip is a text in too many archives: OK from a clamd that does not alert, and a limit exceeded from one that does.
	deepZip = sync.OnceValue(func() []byte {
		content := []byte("harmless")
		for range nesting {
			var b bytes.Buffer
			z := zip.NewWriter(&b)
			w, err := z.CreateHeader(&zip.FileHeader{Name: "a", Method: zip.Store})
			if err == nil {
				_, err = w.Write(content)
			}
			if err == nil {
				err = z.Close()
			}
			if err != nil {
				panic(fmt.Sprintf("a ZIP archive in memory cannot be written: %v", err))
			}
			content = b.Bytes()
		}
		return content
	})
)

// headSize is how much of an object clamd looks at to tell its type.
const headSize = 1024

// htmlMarks are what makes clamd take an object for HTML when one of them is in its head, in lower case. The list is wider
// than clamd's own: what is taken for HTML here is looked at more closely, not refused.
var htmlMarks = [][]byte{
	[]byte("<html"), []byte("<head"), []byte("<body"), []byte("<title"), []byte("<meta"), []byte("<link"), []byte("<style"),
	[]byte("<script"), []byte("<iframe"), []byte("<frame"), []byte("<img"), []byte("<object"), []byte("<table"),
	[]byte("<form"), []byte("<div"), []byte("<!doctype"), []byte("<a "), []byte("<%@ language"), []byte("<svg"),
	[]byte("<?xml"),
}

// ebcdicXML is how "<?xml" begins in EBCDIC, an encoding that clamd decodes.
var ebcdicXML = []byte{0x4c, 0x6f, 0xa7, 0x94}

// mayBeHTML says whether clamd could take an object that begins with head for HTML, UTF-16 and UTF-32 included.
func mayBeHTML(head []byte) bool {
	if bytes.HasPrefix(head, ebcdicXML) {
		return true
	}
	// Every mark begins with "<". This runs for each object, so that it allocates nothing.
	var text [headSize]byte
	n := 0
	for _, c := range head[:min(len(head), headSize)] {
		if c == 0 {
			continue
		}
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		text[n] = c
		n++
	}
	for rest := text[:n]; ; {
		at := bytes.IndexByte(rest, '<')
		if at < 0 {
			return false
		}
		rest = rest[at:]
		for _, m := range htmlMarks {
			if bytes.HasPrefix(rest, m) {
				return true
			}
		}
		rest = rest[1:]
	}
}

// unread are the beginnings that make clamd say OK without a look at what follows (its type CL_TYPE_IGNORED).
var unread = [][]byte{
	[]byte("ID3"),
	{0xff, 0xfb, 0x90},
	[]byte("OggS"), []byte(".RMF"), []byte("SIP-HIT (SIP/"), []byte("SYMC\x01\x00"),
	{0x37, 0x7f, 0x06, 0x82, 0x00, 0x2d, 0xe2, 0x18},
	{0x37, 0x7f, 0x06, 0x83, 0x00, 0x2d, 0xe2, 0x18},
	[]byte("SQLite format 3\x00"),
	{0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7},
}

// pdfImage makes clamd ignore what has it anywhere in the first bytes: part of an image that was cut out of a PDF.
var pdfImage = []byte("/RGB\nID\r\xff\xff")

// goesUnread says whether clamd passes over an object that begins with head.
func goesUnread(head []byte) bool {
	for _, m := range unread {
		if bytes.HasPrefix(head, m) {
			return true
		}
	}
	return bytes.Contains(head, pdfImage)
}
