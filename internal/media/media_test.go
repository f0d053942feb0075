package media

import (
	"archive/zip"
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The frames are of silence or noise, with headers as the standards have them.

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func frames(n int, header []byte, size int) []byte {
	var b []byte
	body := noise(n * size)
	for i := range n {
		f := body[i*size : (i+1)*size]
		copy(f, header)
		b = append(b, f...)
	}
	return b
}

func mp3(n int) []byte  { return frames(n, []byte{0xff, 0xfb, 0x90, 0x44}, 417) } // 128 kbit/s, 44.1 kHz
func mp2(n int) []byte  { return frames(n, []byte{0xff, 0xfd, 0xa4, 0x00}, 576) } // MPEG-1 layer II, 192 kbit/s, 48 kHz
func mp3l(n int) []byte { return frames(n, []byte{0xff, 0xf3, 0x40, 0xc4}, 104) } // MPEG-2 layer III, 32 kbit/s, 22.05 kHz
func mp1(n int) []byte  { return frames(n, []byte{0xff, 0xff, 0xc4, 0x00}, 384) } // layer I, 384 kbit/s, 48 kHz
func aac(n int) []byte  { return frames(n, []byte{0xff, 0xf1, 0x50, 0x80, 0x2e, 0x7f, 0xfc}, 371) }
func ts(n int) []byte   { return frames(n, []byte{0x47, 0x01, 0x00, 0x10}, 188) }

func oggPages(n int) []byte {
	var b []byte
	for range n {
		b = append(b, "OggS\x00\x00"...)
		b = append(b, make([]byte, 20)...)
		b = append(b, 2, 255, 45)
		b = append(b, noise(300)...)
	}
	return b
}

// withMeta puts metadata behind every n bytes of b.
func withMeta(b []byte, n int) []byte {
	var out []byte
	for i, part := range slices.Collect(slices.Chunk(b, n)) {
		out = append(out, part...)
		if len(part) < n {
			break
		}
		if i%3 == 0 {
			out = append(append(out, 2), "StreamTitle='Caf\xe9 - x';\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
		} else {
			out = append(out, 0)
		}
	}
	return out
}

func feed(s *Stream, b []byte, piece int) error {
	for part := range slices.Chunk(b, piece) {
		if err := s.Next(part); err != nil {
			return err
		}
	}
	return nil
}

func TestStreamsAreKnown(t *testing.T) {
	tag := append([]byte("ID3\x04\x00\x00\x00\x00\x07\x68"), make([]byte, 1000)...)
	for name, tc := range map[string]struct {
		typ  string
		meta int
		b    []byte
	}{
		"layer III":                 {"audio/mpeg", 0, mp3(200)},
		"layer II":                  {"audio/mpeg", 0, mp2(200)},
		"layer I":                   {"audio/mpeg", 0, mp1(200)},
		"MPEG-2":                    {"AUDIO/MPEG", 0, mp3l(200)},
		"joined within a frame":     {"audio/mpeg", 0, mp3(200)[300:]},
		"behind a tag":              {"audio/mpeg", 0, append(tag, mp3(200)...)},
		"another source after half": {"audio/mpeg", 0, append(mp3(100)[:100*417-200], mp3l(400)...)},
		"metadata":                  {"audio/mpeg", 8192, withMeta(mp3(200), 8192)},
		"metadata, joined within":   {"audio/aacp", 1000, withMeta(aac(200)[77:], 1000)},
		"AAC":                       {"audio/aac", 0, aac(200)},
		"Ogg":                       {"application/ogg", 0, oggPages(200)},
		"MPEG-TS":                   {"video/mp2t", 0, ts(500)},
	} {
		for _, piece := range []int{1, 7, 4096, 1 << 20} {
			s := New(tc.typ, tc.meta)
			if err := feed(s, tc.b, piece); err != nil || !s.Sure() {
				t.Errorf("%s in pieces of %d: sure %v, %v", name, piece, s.Sure(), err)
			}
		}
	}
	for _, typ := range []string{"audio/flac", "text/plain", "", "video/webm"} {
		if New(typ, 0) != nil {
			t.Errorf("%q is followed", typ)
		}
	}
}

func zipped(t testing.TB) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("a.com")
	if err == nil {
		_, err = f.Write(noise(100))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOtherFilesAreNoStreams(t *testing.T) {
	within := mp3(200)
	copy(within[100*417+20:], zipped(t))
	ended := append(append(mp3(20), zipped(t)...), mp3(20)...)
	inMeta := bytes.Replace(withMeta(mp3(200), 8192), []byte("StreamTitle='Caf\xe9"), []byte("StreamTitle=\x01\x02\x03\x04\x05"), 1)
	mixed := mp3(4)
	for range 100 {
		mixed = append(append(mixed, noise(2000)...), mp3(4)...)
	}
	for name, tc := range map[string]struct {
		typ  string
		meta int
		b    []byte
	}{
		"noise as MPEG":             {"audio/mpeg", 0, noise(100 << 10)},
		"noise as AAC":              {"audio/aac", 0, noise(100 << 10)},
		"noise as Ogg":              {"audio/ogg", 0, noise(100 << 10)},
		"noise as MPEG-TS":          {"video/mp2t", 0, noise(100 << 10)},
		"text":                      {"audio/mpeg", 0, []byte(strings.Repeat("all work and no play ", 2000))},
		"MPEG as Ogg":               {"audio/ogg", 0, mp3(200)},
		"a program behind frames":   {"audio/mpeg", 0, append(mp3(10), noise(100<<10)...)},
		"frames between other data": {"audio/mpeg", 0, mixed},
		"archive in a frame":        {"audio/mpeg", 0, within},
		"archive between frames":    {"audio/mpeg", 0, ended},
		"archive in metadata":       {"audio/mpeg", 8192, inMeta},
		"metadata not announced":    {"audio/mpeg", 500, withMeta(mp3(200), 8192)},
		"a RAR archive in a page":   {"audio/ogg", 0, append(oggPages(3), bytes.Replace(oggPages(1), noise(300)[100:107], []byte("Rar!\x1a\x07\x00"), 1)...)},
	} {
		for _, piece := range []int{1, 7, 4096, 1 << 20} {
			s := New(tc.typ, tc.meta)
			if err := feed(s, tc.b, piece); !errors.Is(err, ErrOther) {
				t.Errorf("%s in pieces of %d: sure %v, %v", name, piece, s.Sure(), err)
			}
		}
	}
}

func FuzzStream(f *testing.F) {
	for _, b := range [][]byte{mp3(5), mp2(5), aac(5), ts(8), oggPages(3), withMeta(mp3(20), 100), noise(500), zipped(f)} {
		f.Add(b, 0, uint8(7))
		f.Add(b, 100, uint8(1))
	}
	types := []string{"audio/mpeg", "audio/aac", "audio/ogg", "video/mp2t"}
	f.Fuzz(func(t *testing.T, b []byte, meta int, piece uint8) {
		for _, typ := range types {
			whole, parts := New(typ, meta), New(typ, meta)
			one, many := whole.Next(b), feed(parts, b, int(piece)+1)
			if (one == nil) != (many == nil) || one == nil && whole.Sure() != parts.Sure() {
				t.Errorf("%s: at once %v, %v; in pieces of %d %v, %v", typ, whole.Sure(), one, int(piece)+1, parts.Sure(), many)
			}
			if s := parts; many == nil && (len(s.head) > 27+255 || len(s.text) > 255*metaUnit || len(s.last) > archiveHead) {
				t.Errorf("%s keeps %d, %d, %d bytes", typ, len(s.head), len(s.text), len(s.last))
			}
		}
	})
}
