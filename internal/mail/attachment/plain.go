package attachment

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strings"

	"lazaret/internal/spool"
)

// The bounds of mails that are plain: what is beyond is legal, but nothing that an engine is relied on for.
const (
	plainEntities   = 100
	plainMultiparts = 5
)

// beginnings are what ClamAV knows a mail by, of its magic numbers those that mail servers put at the beginning of a mail.
var beginnings = []string{"Received: ", "Return-Path: ", "Delivered-To: ", "From: ", "Message-ID: "}

// holders are the multiparts of which ClamAV was seen to open every part. It passes over some of multipart/signed.
var holders = []string{"multipart/mixed", "multipart/alternative", "multipart/related"}

// Plain returns the SHA-256 of everything that is attached to the mail b in base64, where b is so ordinary that every parser
// finds just these attachments, an engine's included. The result is empty for a mail that is not strict, or that is unusual
// in any way that an engine might stumble over. Texts, and mails in the mail, are never in it.
//
// The error is one of reading b.
func Plain(b *spool.Blob) (map[[sha256.Size]byte]bool, error) {
	w, err := walk(b.NewReader())
	if err != nil || w.odd != "" || len(w.entities) > plainEntities || !begins(b) {
		return nil, err
	}
	multiparts := 0
	for _, e := range w.entities {
		switch {
		case slices.Contains(holders, e.typ):
			multiparts++
		case strings.HasPrefix(e.typ, "multipart/"), strings.HasPrefix(e.typ, "message/"):
			return nil, nil
		}
	}
	if multiparts > plainMultiparts {
		return nil, nil
	}
	sums := map[[sha256.Size]byte]bool{}
	for _, e := range w.entities {
		if e.encoding != "base64" || !e.leaf() || strings.HasPrefix(e.typ, "text/") {
			continue
		}
		h := sha256.New()
		_, err := io.Copy(h, base64.NewDecoder(base64.StdEncoding, &onePadding{r: io.NewSectionReader(b, e.body, e.end-e.body)}))
		if corrupt := base64.CorruptInputError(0); errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errPadding) {
			return nil, nil // every decoder makes something else of it
		}
		if err != nil {
			return nil, err
		}
		sums[[sha256.Size]byte(h.Sum(nil))] = true
	}
	return sums, nil
}

func begins(b *spool.Blob) bool {
	head := make([]byte, min(b.Size(), 32))
	if _, err := b.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return slices.ContainsFunc(beginnings, func(s string) bool { return bytes.HasPrefix(head, []byte(s)) })
}

var errPadding = errors.New("base64 goes on behind its padding")

// onePadding is base64 in which nothing but line ends may follow the padding: some decoders stop there, others go on.
type onePadding struct {
	r      io.Reader
	padded bool
}

// Read implements io.Reader.
func (o *onePadding) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	for _, c := range p[:n] {
		if o.padded && c != '=' && c != '\r' && c != '\n' {
			return 0, errPadding
		}
		o.padded = o.padded || c == '='
	}
	return n, err
}
