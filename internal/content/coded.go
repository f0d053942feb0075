package content

import (
	"bytes"
	"errors"
	"io"

	"lazaret/internal/spool"
	"lazaret/internal/unpack"
)

// codedMin is how many bytes have to come out of a coding: fewer are chance, and hold nothing.
const codedMin = 24

// coded emits what a body is without a content coding that nobody declared and that no magic number shows: br and deflate, in both
// its readings. (gzip and zstd are the business of package unpack.) Clients that are told of a coding on the way, or that try,
// undo it. Other content fails within a few bytes; what came out before an error is looked at all the same.
func (f *finder) coded(b *spool.Blob) error {
	head, err := f.head(b)
	if err != nil {
		return err
	}
	switch header, never := brotliHead(head, b.Size()); {
	case never:
	case header == 0:
		err = f.undo(b, head, "br")
	case int64(len(head))-header >= codedMin:
		err = f.guess("as br", io.NewSectionReader(b, header, b.Size()-header))
	}
	if err != nil {
		return err
	}
	if neverDeflate(head) {
		return nil
	}
	return f.undo(b, head, "deflate")
}

// undo emits what a body is without a coding.
func (f *finder) undo(b *spool.Blob, head []byte, coding string) error {
	ok, err := f.decodes(head, coding)
	if err != nil || !ok {
		return err
	}
	r, err := unpack.NewDecoderIn(b.NewReader(), []string{coding}, unpack.Limits{}, f.room())
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // a decoder's memory is given back; it never fails
	return f.guess("as "+coding, r)
}

// room says how decoders come by memory: they are part of the judging of the object.
func (f *finder) room() unpack.Room {
	wait := unpack.Patience{For: f.pool.Config().Wait.Std(), Waiting: spool.Waiting{Done: f.ctx.Done()}}
	return unpack.Room{Share: unpack.Inner, Patience: wait, Together: f.ctx}
}

// decodes says whether text could be the beginning of something in a coding. The error says that there was no memory to find out.
func (f *finder) decodes(text []byte, coding string) (bool, error) {
	r, err := unpack.NewDecoderIn(bytes.NewReader(text), []string{coding}, unpack.Limits{}, f.room())
	if err != nil {
		return false, err
	}
	defer r.Close() //nolint:errcheck // it never fails
	var out [codedMin]byte
	n, err := io.ReadFull(r, out[:])
	return n == len(out), noMemory(err)
}

// noMemory returns the problem that there was no memory for a decoder, where err says so.
func noMemory(err error) error {
	var u *unpack.Error
	if errors.As(err, &u) && u.Kind == unpack.SpoolFull {
		return &problem{SpoolFull, err}
	}
	return nil
}

// guess emits what comes out of r, which may be the wrong way to read the body: then it ends with an error, which is no problem.
// Only what is in the right form and too much is one.
func (f *finder) guess(path string, r io.Reader) error {
	w := f.Writer()
	_, err := io.Copy(w, r)
	var u *unpack.Error
	if errors.As(err, &u) && (u.Kind == unpack.TooLarge || u.Kind == unpack.Bomb) {
		w.Discard()
		return &problem{TooLarge, err}
	}
	if full := noMemory(err); full != nil {
		w.Discard()
		return full
	}
	return f.EmitPart(w, Part{Path: path, Guess: true, Chance: true}, nil)
}
