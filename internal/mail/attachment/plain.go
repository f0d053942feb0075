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

// Vouched is what is known of a part of an ordinary mail.
type Vouched struct {
	// Type is what it is declared to be, "application/pdf"; empty where that is a text, or where a text in the mail could have the same
	// content: it may be read as a text then.
	Type string
	// Encoded says that it is the base64 of another one, which is in the mail for nobody.
	Encoded bool
}

// Plain returns the SHA-256 of everything that is attached to the mail b in base64, as it is and as it is encoded, and of its
// texts, where b is so ordinary that every parser finds just these, an engine's included. The result is empty for a mail that is
// not strict, or that is unusual in any way that an engine might stumble over. Texts that are encoded or attached, and mails in the
// mail, are never in it.
//
// The error is one of reading b.
func Plain(b *spool.Blob) (map[[sha256.Size]byte]Vouched, error) {
	w, err := walk(b.NewReader())
	if err != nil || w.odd != "" || len(w.entities) > plainEntities || !begins(b) {
		return nil, err
	}
	multiparts, longest := 0, int64(0) // the latter is of texts: decoded they are no longer
	for _, e := range w.entities {
		switch {
		case slices.Contains(holders, e.typ):
			multiparts++
		case strings.HasPrefix(e.typ, "multipart/"), strings.HasPrefix(e.typ, "message/"):
			return nil, nil
		case strings.HasPrefix(e.typ, "text/"):
			longest = max(longest, e.end-e.body)
		}
	}
	if multiparts > plainMultiparts {
		return nil, nil
	}
	sums := map[[sha256.Size]byte]Vouched{}
	for _, e := range w.entities {
		section, err := sectionOf(b, e)
		if err != nil {
			return nil, err
		}
		if shownText(e) {
			sum, err := sumOf(section)
			if err != nil {
				return nil, err
			}
			sums[sum] = Vouched{}
		}
		if e.encoding != "base64" || !e.leaf() || strings.HasPrefix(e.typ, "text/") {
			continue
		}
		encoded := sha256.New()
		h := sha256.New()
		size, err := io.Copy(h, base64.NewDecoder(base64.StdEncoding, &onePadding{r: io.TeeReader(section, encoded)}))
		if corrupt := base64.CorruptInputError(0); errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errPadding) {
			return nil, nil // every decoder makes something else of it
		}
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(encoded, section); err != nil { // what the decoder has no use for
			return nil, err
		}
		sums[[sha256.Size]byte(encoded.Sum(nil))] = Vouched{Type: e.typ, Encoded: true}
		known := Vouched{}
		if size > longest {
			known.Type = e.typ
		}
		sums[[sha256.Size]byte(h.Sum(nil))] = known
	}
	return sums, nil
}

// shownText says whether an entity is a text that mail programs show and do not save. ClamAV passes over one without any field.
func shownText(e *entity) bool {
	identity := e.encoding == "" || e.encoding == "7bit" || e.encoding == "8bit"
	return identity && (e.typ == "text/plain" || e.typ == "text/html") && e.h.Value("content-type") != "" &&
		e.h.Value("content-disposition") == "" && len(e.names) == 0
}

// sectionOf returns the body of an entity without the line end that belongs to what comes behind it, as package message has it.
func sectionOf(b *spool.Blob, e *entity) (io.Reader, error) {
	end := e.end
	if e.message { // nothing comes behind it
		var last [2]byte
		n := min(end-e.body, 2)
		if _, err := b.ReadAt(last[2-n:], end-n); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		switch {
		case string(last[:]) == "\r\n":
			end -= 2
		case last[1] == '\n' || last[1] == '\r':
			end--
		}
	}
	return io.NewSectionReader(b, e.body, end-e.body), nil
}

func sumOf(r io.Reader) ([sha256.Size]byte, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return [sha256.Size]byte(h.Sum(nil)), err
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
