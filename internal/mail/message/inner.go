package message

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"lazaret/internal/content"
	"lazaret/internal/spool"
)

// maxInner bounds how deeply readings are looked into that came out of each other.
const maxInner = 4

// errInner says that there is more inside than is looked at.
var errInner = fmt.Errorf("encoded files and messages inside each other, more than %d deep", maxInner)

// within looks into a reading. Clients undo the transfer encoding before they look for uuencode, yEnc, BinHex, TNEF and what S/MIME
// has signed; and there are clients that decode messages and multiparts, whatever those begin with: message says that the reading
// may be one.
func within(e *finder, p content.Part, message bool) error {
	var known func(*finder, string, *spool.Blob) error
	switch {
	case isTNEF(p.Blob):
		known = tnef
	case isSigned(p.Blob):
		known = signed
	}
	deep := e.inner > maxInner
	if known != nil && !deep {
		return known(e, p.Path, p.Blob)
	}
	files := newEmbedded(e)
	files.decoded = true
	defer files.discard()
	mime := false
	lines := newLines(p.Blob)
	for {
		l, err := lines.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		text := bytes.TrimRight(l.text, "\r\n")
		mime = mime || message && l.first && beginsHeader(text)
		files.line(l, text)
		if err != nil {
			break
		}
	}
	if deep && (mime || known != nil || files.found()) {
		return errInner
	}
	if err := files.end(p.Path); err != nil || !mime {
		return err
	}
	return read(e, p.Path+"/", p.Blob)
}

// What is read of TNEF ([MS-OXTNEF], 2.1.3): a signature and a key, then attributes, each a level, an identifier, a length, the
// data and a checksum, all little-endian.
const (
	tnefSignature = "\x78\x9f\x3e\x22"
	tnefHead      = len(tnefSignature) + 2
	tnefAttribute = 1 + 4 + 4
	tnefChecksum  = 2
	attAttachData = 0x0006800f // a file
	attAttachment = 0x00069005 // properties of one, among them a mail as TNEF
	attBody       = 0x0002800c // the text
)

func isTNEF(b *spool.Blob) bool {
	var head [len(tnefSignature)]byte
	n, err := b.ReadAt(head[:], 0)
	return (err == nil || errors.Is(err, io.EOF)) && string(head[:n]) == tnefSignature
}

// tnef hands on what the attributes of a TNEF file hold. One that is cut is read as far as it goes.
func tnef(e *finder, path string, b *spool.Blob) error {
	r := bufio.NewReaderSize(b.NewReader(), 64<<10)
	head := make([]byte, tnefAttribute)
	if _, err := r.Discard(tnefHead); err != nil {
		return cut(err)
	}
	for at, n := int64(tnefHead), 0; ; {
		if _, err := io.ReadFull(r, head); err != nil {
			return cut(err)
		}
		length := int64(binary.LittleEndian.Uint32(head[5:]))
		data := io.NewSectionReader(b, at+tnefAttribute, length)
		at += tnefAttribute + length + tnefChecksum
		skip, wanted := int64(0), true
		switch binary.LittleEndian.Uint32(head[1:]) {
		case attAttachData, attBody:
		case attAttachment:
			skip = indexTNEF(data)
		default:
			wanted = false
		}
		if wanted {
			n++
			w := e.Writer()
			e.message = true
			_, err := io.Copy(w, io.NewSectionReader(data, skip, length-skip))
			if err := e.Emit(w, fmt.Sprintf("%s (TNEF %d)", path, n), "", err); err != nil {
				return err
			}
		}
		if _, err := io.CopyN(io.Discard, r, length+tnefChecksum); err != nil {
			return cut(err)
		}
	}
}

// cut returns nil where err says that there is no more.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// indexTNEF returns where in the properties of an attachment a mail as TNEF begins, zero where there is none.
func indexTNEF(r *io.SectionReader) int64 {
	buf := make([]byte, 64<<10)
	for at := int64(0); ; at += int64(len(buf) - len(tnefSignature) + 1) {
		n, err := r.ReadAt(buf, at)
		if i := bytes.Index(buf[:n], []byte(tnefSignature)); i >= 0 {
			return at + int64(i)
		}
		if err != nil {
			return 0
		}
	}
}
