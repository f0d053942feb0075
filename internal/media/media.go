// Package media follows audio and video that is sent without an end, such as radio, by its frames. What cannot be held until its end
// may pass as it comes only where it is what it says: a file of another kind that is called audio is no stream.
package media

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

const (
	// loose is how many bytes that are in no frame may come in a row: a stream is joined in the middle of a frame, and senders
	// switch from one source to another.
	loose = 16 << 10
	// looseShare is how much of all may be in no frame, besides loose: an eighth.
	looseShare = 8
	// metaUnit is what the length of a block of metadata is counted in.
	metaUnit = 16
)

// ErrOther is what Next's errors wrap: the stream is not of its kind.
var ErrOther = errors.New("it is not the audio or video that it is said to be")

// Stream follows one stream. It is used by one goroutine.
type Stream struct {
	frame frame
	head  []byte // of a frame, as far as it has come
	skip  int    // bytes of a frame, or of a tag, that are still to come
	like  uint32 // what the frames of a row have in common
	row   int    // frames that followed each other directly
	sure  bool

	unproved int64 // bytes since the last row that was long enough
	strayed  int64 // bytes in no frame, in all
	total    int64

	every, left, meta int // of metadata: after how many bytes it comes, how many are left until then, how many of it
	text              []byte

	last []byte // the last bytes, in which the header of an archive may have begun
}

// New returns a Stream of a media type, without parameters, that has no end: MPEG audio (ISO/IEC 11172-3, 13818-3), AAC in ADTS
// (ISO/IEC 13818-7), Ogg (RFC 3533) or an MPEG transport stream (ISO/IEC 13818-1); nil for any other. Metaint is the value of an
// icy-metaint field, as SHOUTcast and Icecast have it: after how many bytes a block of metadata comes, 0 for never.
func New(mediaType string, metaint int) *Stream {
	var f frame
	switch strings.ToLower(mediaType) {
	case "audio/mpeg", "audio/mp3", "audio/x-mpeg":
		f = mpeg
	case "audio/aac", "audio/aacp", "audio/x-aac":
		f = adts
	case "application/ogg", "audio/ogg", "video/ogg":
		f = ogg
	case "video/mp2t":
		f = transport
	default:
		return nil
	}
	return &Stream{frame: f, every: metaint, left: metaint}
}

// Sure says whether enough has come to know that the stream is of its kind.
func (s *Stream) Sure() bool { return s.sure }

// Next takes what comes next in the stream. Its error wraps ErrOther, and says why the stream cannot be what it is said to be.
func (s *Stream) Next(p []byte) error {
	if s.last = append(s.last, p...); archive(s.last) {
		return fmt.Errorf("%w: there is an archive in it", ErrOther)
	}
	if n := len(s.last) - archiveHead + 1; n > 0 {
		s.last = append(s.last[:0], s.last[n:]...)
	}
	if s.every <= 0 {
		return s.content(p)
	}
	for len(p) > 0 {
		if s.left > 0 {
			n := min(len(p), s.left)
			if err := s.content(p[:n]); err != nil {
				return err
			}
			p = p[n:]
			s.left -= n
			continue
		}
		if s.meta == 0 {
			if s.meta, p = int(p[0])*metaUnit, p[1:]; s.meta == 0 {
				s.left = s.every
			}
			continue
		}
		n := min(len(p), s.meta)
		s.text, p = append(s.text, p[:n]...), p[n:]
		if s.meta -= n; s.meta > 0 {
			continue
		}
		if !isMeta(string(s.text)) {
			return fmt.Errorf("%w: its metadata is no text", ErrOther)
		}
		s.text, s.left = s.text[:0], s.every
	}
	return nil
}

// isMeta says whether a block is what is shown of a piece: StreamTitle='...';StreamUrl='...'; and zeros to its end.
func isMeta(block string) bool {
	text := strings.TrimRight(block, "\x00")
	return (text == "" || strings.HasPrefix(text, "Stream")) && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' })
}

// content takes what comes next without the metadata.
func (s *Stream) content(p []byte) error {
	for len(p) > 0 {
		if s.skip > 0 {
			n := min(len(p), s.skip)
			p = p[n:]
			s.skip -= n
			s.came(n, 0)
			continue
		}
		if s.row >= s.frame.row {
			s.sure, s.unproved = true, 0
		}
		s.head, p = append(s.head, p[0]), p[1:]
		s.begin()
		if s.unproved > loose || s.strayed > loose+s.total/looseShare {
			return fmt.Errorf("%w: %d of its first %d bytes are in no frame", ErrOther, s.strayed, s.total)
		}
	}
	if s.skip == 0 && s.row >= s.frame.row {
		s.sure = true
	}
	return nil
}

// came counts n bytes, of which so many are in no frame.
func (s *Stream) came(n, strayed int) {
	s.total += int64(n)
	s.unproved += int64(n)
	s.strayed += int64(strayed)
}

// begin looks whether a frame begins with head, as far as that has come. A byte that none begins with is given up.
func (s *Stream) begin() {
	for len(s.head) > 0 {
		size, like, state := s.frame.parse(s.head)
		switch state {
		case more:
			return
		case begins:
			n := len(s.head)
			if s.row > 0 && like != s.like {
				s.row = 0
			}
			s.row, s.like = s.row+1, like
			s.head, s.skip = s.head[:0], size-n
			s.came(n, 0)
			return
		}
		s.row = 0
		s.head = append(s.head[:0], s.head[1:]...)
		s.came(1, 1)
	}
}

// archiveHead is how much of an archive's header is looked at.
const archiveHead = 30

// archive says whether a file in an archive begins in b, of a kind that unpackers find behind other content. Those that must be where
// a file begins are no stream.
func archive(b []byte) bool {
	if bytes.Contains(b, []byte("Rar!\x1a\x07")) || bytes.Contains(b, []byte("7z\xbc\xaf\x27\x1c")) {
		return true
	}
	for {
		i := bytes.Index(b, []byte("PK\x03\x04"))
		if i < 0 || len(b)-i < archiveHead {
			return false
		}
		// By accident the four bytes come once in some hours. The version that is needed is at most 6.3, and a name is there.
		if h := b[i:]; h[4] <= 63 && binary.LittleEndian.Uint16(h[8:]) <= 99 && binary.LittleEndian.Uint16(h[26:]) != 0 {
			return true
		}
		b = b[i+4:]
	}
}
