package unpack

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"

	"lazaret/internal/units"
)

// zipHeader returns a local header; what follows it is the caller's.
func zipHeader(name string, method, flags uint16, crc uint32, packed, size int) []byte {
	le := binary.LittleEndian
	h := append([]byte(sigLocal), 20, 0)
	h = le.AppendUint16(h, flags)
	h = le.AppendUint16(h, method)
	h = le.AppendUint32(h, 0)
	h = le.AppendUint32(h, crc)
	h = le.AppendUint32(h, uint32(packed))
	h = le.AppendUint32(h, uint32(size))
	h = le.AppendUint16(h, uint16(len(name)))
	return append(le.AppendUint16(h, 0), name...)
}

// overlapping returns a zip archive whose n members share what they are made of: each local header is the stored beginning
// of the deflated content of the one before it (David Fifield, "A better zip bomb").
func overlapping(t testing.TB, n, zeros int) []byte {
	t.Helper()
	kernel := encode(t, "deflate-raw", make([]byte, zeros))
	content := make([]byte, zeros)
	body, packed := append(zipHeader("k", 8, 0, crc32.ChecksumIEEE(content), len(kernel), zeros), kernel...), len(kernel)
	offsets := []int{0}
	for i := 1; i < n; i++ {
		// A stored block that is not the last quotes the header in front of the rest.
		quoted := body[:zipLocal+1]
		if i > 1 {
			quoted = body[:zipLocal+4]
		}
		quote := append([]byte{0, byte(len(quoted)), byte(len(quoted) >> 8), ^byte(len(quoted)), ^byte(len(quoted) >> 8)}, quoted...)
		content = append(bytes.Clone(quoted), content...)
		packed += len(quote)
		h := append(zipHeader(fmt.Sprintf("m%03d", i), 8, 0, crc32.ChecksumIEEE(content), packed, len(content)), quote[:5]...)
		body = append(h, body...)
		for k := range offsets {
			offsets[k] += len(h)
		}
		offsets = append(offsets, 0)
	}
	out := bytes.Clone(body)
	start := len(out)
	le := binary.LittleEndian
	for _, off := range offsets {
		local := body[off:]
		name := local[zipLocal : zipLocal+int(le.Uint16(local[26:]))]
		c := append([]byte(sigCentral), 20, 0)
		c = append(c, local[4:28]...)
		c = append(c, make([]byte, 2+2+2+2+4)...)
		c = le.AppendUint32(c, uint32(off))
		out = append(append(out, c...), name...)
	}
	end := le.AppendUint32(append([]byte(sigEnd), 0, 0, 0, 0), 0)[:8]
	end = le.AppendUint16(le.AppendUint16(end, uint16(n)), uint16(n))
	end = le.AppendUint32(le.AppendUint32(end, uint32(len(out)-start)), uint32(start))
	return append(append(out, end...), 0, 0)
}

func TestOverlappingZipBombIsBounded(t *testing.T) {
	b := overlapping(t, 200, 1<<20)
	// The archive is a real one: another reader sees its members, and that they expand to 200 times the kernel.
	r, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(r.File) != 200 {
		t.Fatalf("archive/zip: %v", err)
	}
	if f, err := r.File[150].Open(); err != nil {
		t.Fatal(err)
	} else if n, err := io.Copy(io.Discard, f); err != nil || n < 1<<20 {
		t.Fatalf("a member has %d bytes: %v", n, err)
	}
	f := walk(t, "a", b, Limits{RatioFrom: 8 * units.MiB})
	f.wantKinds(t, Bomb, Undecodable) // the members begin with each other's headers: torn archives
	if len(f.order) > 64 {
		t.Errorf("%d members of a MiB are visited", len(f.order))
	}
}

// Thousands of entries that point at one member cost one member.
func TestAMemberThatIsListedOftenIsReadOnce(t *testing.T) {
	one := zipOf(t, zip.Deflate, "a", string(text(100_000)))
	at := bytes.Index(one, []byte(sigCentral))
	end := bytes.Index(one, []byte(sigEnd))
	entry := one[at:end]
	b := append(bytes.Clone(one[:at]), bytes.Repeat(entry, 5000)...)
	tail := bytes.Clone(one[end:])
	binary.LittleEndian.PutUint16(tail[8:], 5000)
	binary.LittleEndian.PutUint16(tail[10:], 5000)
	binary.LittleEndian.PutUint32(tail[12:], uint32(5000*len(entry)))
	f := walk(t, "a", append(b, tail...), Limits{})
	f.wantClean(t, "a/a")
	if len(f.order) != 1 {
		t.Errorf("it is visited %d times", len(f.order))
	}
}

// An archive that is nothing but headers makes each of them a reason to search through the rest.
func TestFloodsOfHeadersAreBounded(t *testing.T) {
	descriptor := zipHeader("x", 0, flagDescriptor, 0, 0, 0)
	rar := append([]byte(rar5Magic), 0, 0, 0, 0, 0xff, 0x3f) // a header of 8 KiB, with a wrong checksum
	for what, b := range map[string][]byte{
		"stored members with descriptors": bytes.Repeat(descriptor, 80_000),
		"stored members, nothing in them": bytes.Repeat(zipHeader("x", 0, 0, 0, 0, 0), 80_000),
		"deflated members, broken":        bytes.Repeat(append(zipHeader("x", 8, 0, 1, 0, 0), 0xff), 80_000),
		"end records":                     append(bytes.Repeat(descriptor, 3), bytes.Repeat([]byte(sigEnd+"\x00\x00\x00\x00\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00"), 80_000)...),
		"end records in each other":       append(bytes.Repeat(descriptor, 3), bytes.Repeat([]byte(sigEnd), 400_000)...),
		"beginnings of RAR in a program":  append([]byte("MZ"), bytes.Repeat(rar, 120_000)...),
		"beginnings of cabinets":          append([]byte("MZ"), bytes.Repeat([]byte("MSCF\x00\x00\x00\x00"), 200_000)...),
		"beginnings of 7z":                append([]byte("MZ"), bytes.Repeat([]byte(sevenZipMagic), 200_000)...),
		"gzip members, empty":             bytes.Repeat(encode(t, "gzip", nil), 80_000),
		"bzip2 streams, empty":            bytes.Repeat([]byte("BZh9\x17\x72\x45\x38\x50\x90\x00\x00\x00\x00"), 80_000),
		"zstd frames, empty":              bytes.Repeat(encode(t, "zstd", nil), 80_000),
		"skippable frames":                bytes.Repeat([]byte("\x50\x2a\x4d\x18\x00\x00\x00\x00"), 200_000),
		"cpio members, empty":             bytes.Repeat([]byte("070701"+strings.Repeat("0", 87)+"00000002"+"00000000"+"x\x00"), 50_000),
	} {
		t.Run(what, func(t *testing.T) {
			f := walk(t, "a", b, Limits{})
			if len(f.order) > 10_000 {
				t.Errorf("%d members are visited", len(f.order))
			}
			// Once more, packed, so that it is small and many: the sums of all levels are bounded too.
			walk(t, "a", zipOf(t, zip.Deflate, "a", string(b)), Limits{})
		})
	}
}

// What a header asks for is not made before it is known that it can be filled: memory is bounded by the limit.
func TestHeadersThatAskForMemory(t *testing.T) {
	le := binary.LittleEndian
	archives := map[string][]byte{
		// Properties, a dictionary of 4 GiB, a size that is not known, the beginning of a stream.
		"lzma": append(append([]byte{0x5d, 0xff, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0xff}, 8)...), make([]byte, 100)...),
		// A frame with a window of 1.9 TiB; and one of a single segment of 2^60 bytes.
		"zstd window":  append([]byte("\x28\xb5\x2f\xfd\x00\xf8"), make([]byte, 100)...),
		"zstd segment": append(le.AppendUint64([]byte("\x28\xb5\x2f\xfd\xe0"), 1<<60), make([]byte, 100)...),
	}
	// RAR 5 with a dictionary of 4 GiB.
	f := numbers(2, 2, 100, 0, 1<<40, 0)
	f = append(f, numbers(15<<10|1<<7, 1, 1)...)
	archives["rar5"] = append(append([]byte(rar5Magic), rar5Block(numbers(1, 0, 0), nil)...), rar5Block(append(f, 'x'), random(100))...)
	// 7z: a header that says 2^40 files, packed streams, folders.
	for i, fields := range [][]byte{
		append([]byte{1, 5}, 0xff, 0, 0, 0, 0, 1, 0, 0, 0),
		append([]byte{1, 4, 6, 0}, 0xff, 0, 0, 0, 0, 1, 0, 0, 0),
		append([]byte{1, 4, 7, 0x0b}, 0xff, 0, 0, 0, 0, 1, 0, 0, 0),
	} {
		start := le.AppendUint64(nil, 0)
		start = le.AppendUint64(start, uint64(len(fields)))
		start = le.AppendUint32(start, crc32.ChecksumIEEE(fields))
		b := append([]byte(sevenZipMagic), 0, 4)
		b = le.AppendUint32(b, crc32.ChecksumIEEE(start))
		archives[fmt.Sprint("7z ", i)] = append(append(b, start...), fields...)
	}
	for what, b := range archives {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f := walk(t, "a", b, Limits{Memory: 32 * units.MiB})
		runtime.ReadMemStats(&after)
		if len(f.problems) == 0 {
			t.Errorf("%s: nothing is said:\n%v", what, f)
		}
		if made := after.TotalAlloc - before.TotalAlloc; made > 80<<20 {
			t.Errorf("%s: %d MiB were allocated", what, made>>20)
		}
	}
}

// FuzzWalk gives archives of every format, changed, to Walk: it ends, gives everything back, and keeps its limits.
func FuzzWalk(f *testing.F) {
	content := append(eicar(), text(300)...)
	for _, format := range allFormats() {
		f.Add(packed(f, format, content))
	}
	f.Add(overlapping(f, 4, 1000))
	f.Add(quine(f))
	f.Add(nested(f, 4))
	pool := testPool(f, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		src, err := pool.Of(b)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		before := pool.Usage()
		lim := Limits{Depth: 4, Parts: 50, Bytes: 4 * units.MiB, MemberBytes: units.MiB, Memory: 32 * units.MiB}
		parts, size := 0, int64(0)
		problems := Walk(context.Background(), pool, Source{Blob: src, Name: "a"}, lim, func(p Part) error {
			parts++
			size += p.Blob.Size()
			if p.Depth < 1 || p.Depth > 4 || p.Blob.Size() > int64(lim.MemberBytes) || len(p.Path) > maxPath || !strings.HasPrefix(p.Path, "a/") {
				t.Errorf("part %q, depth %d, %d bytes", p.Path, p.Depth, p.Blob.Size())
			}
			return nil
		})
		if parts > lim.Parts || size > int64(lim.Bytes) {
			t.Errorf("%d parts of %d bytes", parts, size)
		}
		for _, p := range problems {
			if p.Err == nil || p.Kind == Cancelled || strings.Contains(p.Err.Error(), "the decoder broke") {
				t.Errorf("problem %v", p)
			}
		}
		if u := pool.Usage(); u != before {
			t.Errorf("the pool holds %+v, before %+v", u, before)
		}
	})
}
