package message

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"lazaret/internal/spool"
)

// The tags of BER (X.690) that a signed message has.
const (
	berOctets      = 0x04
	berOID         = 0x06
	berChunks      = 0x24 // an OCTET STRING in pieces
	berSequence    = 0x30
	berSet         = 0x31
	berInteger     = 0x02
	berExplicit    = 0xa0
	berConstructed = 0x20
	berIndefinite  = -1
)

// maxBER bounds how deeply elements are looked into that are inside each other.
const maxBER = 16

// oidSignedData is id-signedData (RFC 5652, 5.1), 1.2.840.113549.1.7.2, with its tag and length.
var oidSignedData = []byte{berOID, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02}

// isSigned says whether b begins like CMS SignedData: what S/MIME calls smime.p7m.
func isSigned(b *spool.Blob) bool {
	head := make([]byte, 32)
	n, err := b.ReadAt(head, 0)
	return (err == nil || errors.Is(err, io.EOF)) && n > 0 && head[0] == berSequence && bytes.Contains(head[:n], oidSignedData)
}

// signed hands on the message that a CMS SignedData holds (RFC 8551, 3.5.2): mail programs show it and its attachments like any
// other, whoever has signed it. One without a message, or that is broken before it, has nothing to be shown. One that is cut is
// read as far as it goes.
func signed(e *finder, path string, b *spool.Blob) error {
	d := &ber{r: bufio.NewReaderSize(b.NewReader(), 64<<10)}
	// ContentInfo, its type, [0], SignedData, version, digestAlgorithms, encapContentInfo, its type, [0].
	for _, step := range []struct {
		tag  byte
		into bool
	}{
		{berSequence, true},
		{berOID, false},
		{berExplicit, true},
		{berSequence, true},
		{berInteger, false},
		{berSet, false},
		{berSequence, true},
		{berOID, false},
		{berExplicit, true},
	} {
		tag, length, err := d.next()
		if err == nil && tag == step.tag && !step.into {
			err = d.skip(tag, length, 0)
		}
		if err != nil || tag != step.tag {
			return readError(err)
		}
	}
	w := newSink(e)
	err := d.octets(w, 0)
	e.message = true
	if err := e.Emit(w.end(), path+" (signed)", "message/rfc822", nil); err != nil {
		return err
	}
	return readError(err)
}

// errBER is what is not as BER should be.
var errBER = errors.New("no BER")

// readError returns err where it is one of reading, nil where it says that there is no signed message, or no more of it.
func readError(err error) error {
	if errors.Is(err, errBER) {
		return nil
	}
	return cut(err)
}

// ber reads BER.
type ber struct{ r *bufio.Reader }

// next reads the tag and the length of an element; berIndefinite is a length that its end tells.
func (d *ber) next() (tag byte, length int64, err error) {
	if tag, err = d.r.ReadByte(); err != nil {
		return 0, 0, err
	}
	if tag&0x1f == 0x1f {
		return 0, 0, errBER // no element of ours has a tag of several bytes
	}
	c, err := d.r.ReadByte()
	switch {
	case err != nil:
		return 0, 0, err
	case c < 0x80:
		return tag, int64(c), nil
	case c == 0x80:
		return tag, berIndefinite, nil
	}
	for range c & 0x7f {
		c, err := d.r.ReadByte()
		if err != nil {
			return 0, 0, err
		}
		if length >= 1<<48 {
			return 0, 0, errBER
		}
		length = length<<8 | int64(c)
	}
	return tag, length, nil
}

// skip passes over an element's content.
func (d *ber) skip(tag byte, length int64, depth int) error {
	if length != berIndefinite {
		_, err := io.CopyN(io.Discard, d.r, length)
		return err
	}
	if tag&berConstructed == 0 || depth > maxBER {
		return errBER
	}
	for {
		tag, length, err := d.next()
		if err != nil || tag == 0 && length == 0 {
			return err
		}
		if err := d.skip(tag, length, depth+1); err != nil {
			return err
		}
	}
}

// octets reads an OCTET STRING, whole or in pieces, or in pieces of pieces.
func (d *ber) octets(w *sink, depth int) error {
	tag, length, err := d.next()
	switch {
	case err != nil:
		return err
	case tag == 0 && length == 0:
		return errEndOfPieces
	case tag == berOctets && length != berIndefinite:
		return d.copy(w, length)
	case tag != berChunks || depth > maxBER:
		return errBER
	}
	outer := d.r
	if length != berIndefinite {
		d.r = bufio.NewReader(io.LimitReader(outer, length))
		defer func() { d.r = outer }()
	}
	for {
		err := d.octets(w, depth+1)
		switch {
		case errors.Is(err, errEndOfPieces), length != berIndefinite && errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// errEndOfPieces is the end of an element of indefinite length: no BER where there is none.
var errEndOfPieces = fmt.Errorf("%w: an end", errBER)

func (d *ber) copy(w *sink, n int64) error {
	buf := make([]byte, sinkBuffer)
	for n > 0 {
		k, err := d.r.Read(buf[:min(n, int64(len(buf)))])
		w.write(buf[:k])
		n -= int64(k)
		if err != nil {
			return err
		}
	}
	return nil
}
