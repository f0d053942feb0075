package content

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"mime/quotedprintable"
	"strings"

	"lazaret/internal/spool"
)

// maxBoundary is longer than any boundary that RFC 2046, 5.1.1 allows (70), for senders that do not mind.
const maxBoundary = 200

// multipart takes a body apart by the declared boundary, and by the one that its first line shows when that differs: servers
// exist that believe either.
func (f *finder) multipart(b *spool.Blob, declared string) error {
	shown := shownBoundary(b)
	if declared == "" && shown == "" {
		return errors.New("a multipart body without a boundary")
	}
	var errs []error
	for i, boundary := range []string{declared, shown} {
		if boundary == "" || i == 1 && boundary == declared {
			continue
		}
		if err := f.split(b, boundary); err != nil {
			if Fatal(err) {
				return err
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// looksMultipart takes a body apart that begins as a multipart does, whatever it is said to be: of two declared types another client
// may believe the other one. That it is broken means nothing.
func (f *finder) looksMultipart(b *spool.Blob) error {
	head, err := f.head(b)
	if err != nil || !bytes.HasPrefix(bytes.TrimLeft(head, "\r\n"), []byte("--")) {
		return err
	}
	_, rest, found := bytes.Cut(bytes.TrimLeft(head, "\r\n"), []byte("\n"))
	if name := []byte("content-"); !found || len(rest) < len(name) || !bytes.EqualFold(rest[:len(name)], name) {
		return nil
	}
	if err := f.split(b, shownBoundary(b)); err != nil && Fatal(err) {
		return err
	}
	return nil
}

// shownBoundary returns the boundary that the first line of the body looks like, "" where it looks like none.
func shownBoundary(b *spool.Blob) string {
	line := make([]byte, maxBoundary+4)
	n, err := b.ReadAt(line, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	text := strings.TrimLeft(string(line[:n]), "\r\n")
	end := strings.IndexByte(text, '\n')
	if end < 0 || !strings.HasPrefix(text, "--") {
		return ""
	}
	return strings.TrimRight(text[2:end], "\r \t")
}

func (f *finder) split(b *spool.Blob, boundary string) error {
	mr := multipart.NewReader(bufio.NewReaderSize(b.NewReader(), 64<<10), boundary)
	for i := 1; ; i++ {
		p, err := mr.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("multipart: part %d: %w", i, err)
		}
		if err := f.part(p, partPath(i, p.FileName())); err != nil {
			return err
		}
	}
}

func (f *finder) part(p *multipart.Part, path string) error {
	typ := p.Header.Get("Content-Type")
	switch strings.ToLower(strings.TrimSpace(p.Header.Get("Content-Transfer-Encoding"))) {
	case "base64":
		return f.emit(path, typ, base64.NewDecoder(base64.StdEncoding, p))
	case "quoted-printable":
		return f.emit(path, typ, quotedprintable.NewReader(p))
	}
	return f.emit(path, typ, p)
}

func partPath(i int, name string) string {
	if name == "" {
		return fmt.Sprintf("part %d", i)
	}
	if len(name) > 100 {
		name = name[len(name)-100:]
	}
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "?"))
	return fmt.Sprintf("part %d (%s)", i, clean)
}
