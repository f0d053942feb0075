package attachment

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"

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
		c, err := decoded(section)
		if err != nil {
			return nil, err
		}
		if !c.strict {
			return nil, nil // every decoder makes something else of it
		}
		sums[c.encoded] = Vouched{Type: e.typ, Encoded: true}
		known := Vouched{}
		if c.size > longest {
			known.Type = e.typ
		}
		sums[c.content] = known
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

// copyBuffers are what sums are made by.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func sumOf(r io.Reader) ([sha256.Size]byte, error) {
	h := sha256.New()
	err := pour(h, r)
	return [sha256.Size]byte(h.Sum(nil)), err
}

func pour(h hash.Hash, r io.Reader) error {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	_, err := io.CopyBuffer(h, r, buf[:])
	return err
}

// base64Sums is what is known of something in base64.
type base64Sums struct {
	strict           bool // it is base64 that every decoder reads alike, and the rest is known
	encoded, content [sha256.Size]byte
	size             int64 // of the content
}

// decoded reads base64. The error is one of reading r.
func decoded(r io.Reader) (c base64Sums, err error) {
	encoded, content := sha256.New(), sha256.New()
	in, out := copyBuffers.Get().(*[32 << 10]byte), copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(in)
	defer copyBuffers.Put(out)
	held, padded := 0, false // what of in is left of before: a group that is not whole
	for {
		n, err := r.Read(in[held:])
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return base64Sums{}, err
		}
		encoded.Write(in[held : held+n])
		kept := held
		for _, b := range in[held : held+n] {
			if b == '\r' || b == '\n' {
				continue
			}
			if padded && b != '=' {
				return base64Sums{}, nil // it goes on behind its padding: some decoders stop there, others do not
			}
			padded = padded || b == '='
			in[kept] = b
			kept++
		}
		whole := kept / 4 * 4
		if end {
			whole = kept // a group that is not whole is a fault then
		}
		m, err := base64.StdEncoding.Decode(out[:], in[:whole])
		if err != nil {
			return base64Sums{}, nil //nolint:nilerr // that it is not strict is what is told
		}
		content.Write(out[:m])
		c.size += int64(m)
		held = copy(in[:], in[whole:kept])
		if end {
			break
		}
	}
	c.strict = true
	encoded.Sum(c.encoded[:0])
	content.Sum(c.content[:0])
	return c, nil
}

func begins(b *spool.Blob) bool {
	head := make([]byte, min(b.Size(), 32))
	if _, err := b.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return slices.ContainsFunc(beginnings, func(s string) bool { return bytes.HasPrefix(head, []byte(s)) })
}
