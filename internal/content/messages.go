package content

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"lazaret/internal/envelope"
	"lazaret/internal/spool"
	"lazaret/internal/unpack"
)

// messageCodings are what messages are compressed by. The header that says which is not seen here.
var messageCodings = []string{"gzip", "deflate", "zstd", "snappy", "br"}

// messages emits the messages of a body that is said to be gRPC, gRPC-Web or Connect: those that are compressed, decompressed, and
// those in base64; of others, which can be seen in the body as it stands, those that are archives.
func (f *finder) messages(b *spool.Blob, mediaType string) error {
	p, ok := envelope.Of(mediaType)
	if !ok || b.Size() == 0 {
		return nil
	}
	r := envelope.NewReader(b.NewReader(), p)
	for n := 1; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f.message(r, h, p, fmt.Sprintf("message %d", n)); err != nil {
			return err
		}
	}
}

// message emits one message, which r reads.
func (f *finder) message(r io.Reader, h envelope.Head, p envelope.Protocol, path string) error {
	w := f.Writer()
	defer w.Discard()
	if _, err := io.Copy(w, r); err != nil {
		return f.EmitPart(w, Part{Path: path, Type: p.Type(), Piece: true}, err)
	}
	b, err := f.seal(w)
	if err != nil {
		return err
	}
	defer b.Close() // in memory or unlinked: nothing is lost with it
	switch {
	case h.Compressed():
		return f.compressed(b, p, path)
	case p.Text || unpack.Opens(b):
		return f.emitBlob(b, Part{Path: path, Type: p.Type(), Piece: true}, nil)
	}
	return f.fields(b, path, p.Type())
}

// compressed emits a compressed message in every coding that it can be in.
func (f *finder) compressed(b *spool.Blob, p envelope.Protocol, path string) error {
	if b.Size() == 0 {
		return nil // in every coding
	}
	known := false
	for _, coding := range messageCodings {
		r, err := unpack.NewDecoderIn(b.NewReader(), []string{coding}, unpack.Limits{}, f.room())
		if err != nil {
			return err
		}
		w := f.Writer()
		_, err = io.Copy(w, r)
		_ = r.Close() // a decoder's memory is given back; it never fails
		var u *unpack.Error
		if errors.As(err, &u) && u.Kind == unpack.Undecodable {
			w.Discard()
			continue
		}
		if full := noMemory(err); full != nil {
			w.Discard()
			return full
		}
		if u != nil {
			w.Discard()
			return &problem{TooLarge, fmt.Errorf("%s: %w", path, err)}
		}
		known = true
		if err := f.EmitPart(w, Part{Path: path, Type: p.Type(), Piece: true}, nil); err != nil {
			return err
		}
	}
	if !known {
		return fmt.Errorf("%s is compressed in a way that is not known", path)
	}
	return nil
}

const (
	// fieldHead is how much of a field shows what it is.
	fieldHead = 1 << 10
	// fieldLength is how long the length of a field may be written (Protocol Buffers, "Base 128 Varints": of 32 bits).
	fieldLength = 5
	// tarMagic is at tarOffset of a tar archive, whose beginning is a name.
	tarMagic, tarOffset = "ustar", 257
)

// fields emits the archives and compressed files that are in fields of a message of Protocol Buffers, however deep: a length,
// and so many bytes. The raw message shows an engine no archive, as it does not begin like one. Fields are not followed from
// the beginning, because there is no telling bytes from a message within a message.
func (f *finder) fields(b *spool.Blob, path, mediaType string) error {
	switch mediaType {
	case "application/protobuf", "application/x-protobuf", "application/proto", "application/vnd.google.protobuf":
	default:
		return nil
	}
	if path != "" {
		path += "/"
	}
	if text, ok := b.Bytes(); ok {
		return f.fieldsIn(b, path, text, 0, 0, len(text))
	}
	buf := windows.Get().(*[]byte)
	defer windows.Put(buf)
	for base := int64(0); ; {
		n, err := b.ReadAt(*buf, base)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		from, to := min(int64(fieldLength), base), n-fieldHead
		if n < len(*buf) {
			to = n
		}
		if err := f.fieldsIn(b, path, (*buf)[:n], base, int(from), to); err != nil || n < len(*buf) {
			return err
		}
		base += int64(to - fieldLength)
	}
}

// fieldsIn looks for fields that begin between from and to in text, which begins at base of b.
func (f *finder) fieldsIn(b *spool.Blob, path string, text []byte, base int64, from, to int) error {
	tar := nextTar(text, from)
	for i := from; i < to; i++ {
		if i > tar {
			tar = nextTar(text, i)
		}
		if i != tar && (i+1 == len(text) || !unpack.MayBegin(text[i], text[i+1])) {
			continue
		}
		at := base + int64(i)
		for _, size := range lengths(text[:i]) {
			if size > b.Size()-at || !unpack.Begins(text[i:min(i+fieldHead, len(text))], size) {
				continue
			}
			w := f.Writer()
			_, err := io.Copy(w, io.NewSectionReader(b, at, size))
			if err := f.EmitPart(w, Part{Path: fmt.Sprintf("%sfield at byte %d", path, at), Piece: true}, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// nextTar returns where the next tar archive in text may begin, at from or later; the end where there is none.
func nextTar(text []byte, from int) int {
	if from+tarOffset < len(text) {
		if i := bytes.Index(text[from+tarOffset:], []byte(tarMagic)); i >= 0 {
			return from + i
		}
	}
	return len(text)
}

// lengths returns the lengths that may be written at the end of text.
func lengths(text []byte) (all []int64) {
	size := int64(0)
	for n := 1; n <= fieldLength && n <= len(text); n++ {
		c := text[len(text)-n]
		if (c&0x80 == 0) != (n == 1) {
			break // only the last byte has no mark
		}
		if size = size<<7 | int64(c&0x7f); size > 0 {
			all = append(all, size)
		}
	}
	return all
}
