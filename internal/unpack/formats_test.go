package unpack

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rar5Block returns a block of RAR 5: the fields behind the header's size, and what follows the header.
func rar5Block(fields []byte, data []byte) []byte {
	body := append(binary.AppendUvarint(nil, uint64(len(fields))), fields...)
	out := binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(body))
	return append(append(out, body...), data...)
}

func numbers(n ...uint64) (out []byte) {
	for _, v := range n {
		out = binary.AppendUvarint(out, v)
	}
	return out
}

// rar5Of returns a RAR 5 archive of stored files. No tool that writes RAR is free.
func rar5Of(files ...string) []byte {
	out := []byte(rar5Magic)
	out = append(out, rar5Block(numbers(1, 0, 0), nil)...)
	for i := 0; i+1 < len(files); i += 2 {
		name, content := files[i], files[i+1]
		size := uint64(len(content))
		f := numbers(2, 2, size, 4, size, 0) // a file, with data; it has a checksum; its size and attributes
		f = binary.LittleEndian.AppendUint32(f, crc32.ChecksumIEEE([]byte(content)))
		f = append(f, numbers(0, 1, uint64(len(name)))...) // stored; Unix
		out = append(out, rar5Block(append(f, name...), []byte(content))...)
	}
	return append(out, rar5Block(numbers(5, 0, 0), nil)...)
}

// rar4Of returns a RAR 4 archive of stored files.
func rar4Of(files ...string) []byte {
	le := binary.LittleEndian
	block := func(kind byte, flags uint16, fields []byte) []byte {
		h := le.AppendUint16([]byte{kind}, flags)
		h = append(le.AppendUint16(h, uint16(7+len(fields))), fields...)
		return append(le.AppendUint16(nil, uint16(crc32.ChecksumIEEE(h))), h...)
	}
	out := append([]byte(rar4Magic), block(0x73, 0, make([]byte, 6))...)
	for i := 0; i+1 < len(files); i += 2 {
		name, content := files[i], files[i+1]
		f := le.AppendUint32(nil, uint32(len(content)))
		f = le.AppendUint32(f, uint32(len(content)))
		f = append(f, 3) // Unix
		f = le.AppendUint32(f, crc32.ChecksumIEEE([]byte(content)))
		f = append(le.AppendUint32(f, 0), 20, 0x30) // stored
		f = le.AppendUint16(f, uint16(len(name)))
		f = append(le.AppendUint32(f, 0o100644), name...)
		out = append(append(out, block(0x74, 0x8000, f)...), content...)
	}
	return append(out, block(0x7b, 0x4000, nil)...)
}

// packers return the file called IN, in every format. The commands are run in a folder that has it.
var packers = map[string]string{
	"zip": "zip -q $OUT.zip IN", "zip bzip2": "zip -q -Z bzip2 $OUT.zip IN", "zip stored": "zip -q0 $OUT.zip IN", "zip streamed": "zip -q - - <IN | cat >$OUT",
	"zip lzma": "7z a -tzip -mm=LZMA $OUT.zip IN", "zip deflate64": "7z a -tzip -mm=Deflate64 $OUT.zip IN", "7z": "7z a $OUT.7z IN", "7z ppmd": "7z a -m0=PPMd $OUT.7z IN",
	"7z copy": "7z a -m0=Copy $OUT.7z IN", "tar": "tar -cf $OUT IN", "tar v7": "tar --format=v7 -cf $OUT IN", "cpio": "echo IN | cpio -o -H newc >$OUT", "cpio old": "echo IN | cpio -o -H bin >$OUT",
	"ar": "ar qc $OUT IN", "cab": "gcab -c $OUT IN", "cab mszip": "gcab -cz $OUT IN", "gzip": "gzip -c IN >$OUT", "bzip2": "bzip2 -c IN >$OUT", "xz": "xz -c IN >$OUT", "lzma": "lzma -c IN >$OUT",
	"zstd": "zstd -qc IN >$OUT", "lz4": "lz4 -qc IN >$OUT", "compress": "compress -fc IN >$OUT",
}

// packed returns content in the format of packers, rar4 or rar5.
func packed(t testing.TB, format string, content []byte) []byte {
	t.Helper()
	switch format {
	case "rar4":
		return rar4Of("IN", string(content))
	case "rar5":
		return rar5Of("IN", string(content))
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "IN"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	return run(t, dir, packers[format])
}

func allFormats() []string {
	out := []string{"rar4", "rar5"}
	for f := range packers {
		out = append(out, f)
	}
	return out
}

// Every format hides the test file, by itself and inside of a few others.
func TestEveryFormatHidesEICARInVain(t *testing.T) {
	for _, format := range allFormats() {
		t.Run(format, func(t *testing.T) {
			b := packed(t, format, eicar())
			for what, outer := range map[string][]byte{
				"alone": b, "in a zip": zipOf(t, zip.Deflate, "x", string(b)), "in a tar in a gzip": encode(t, "gzip", tarOf(t, "x", string(b))),
				"in a rar": rar5Of("x", string(b)), "in a 7z": nil,
			} {
				if outer == nil {
					outer = packed(t, "7z", b)
				}
				f := walk(t, "a", outer, Limits{})
				f.wantClean(t)
				if !f.has(eicar()) {
					t.Errorf("%s the test file is not found:\n%v", what, f)
				}
			}
		})
	}
}

func TestBeginningsAreKnown(t *testing.T) {
	for _, format := range allFormats() {
		b := packed(t, format, eicar())
		if !Begins(b[:min(len(b), 1<<10)], int64(len(b))) {
			t.Errorf("%s does not begin like anything", format)
		}
		if !strings.HasPrefix(format, "tar") && !MayBegin(b[0], b[1]) {
			t.Errorf("nothing that begins with % x is looked at: %s", b[:2], format)
		}
	}
}

// What is cut off is reported, wherever it is cut, or nothing of it is missing.
func TestTruncatedArchivesAreReported(t *testing.T) {
	content := append(append(bytes.Clone(text(3000)), eicar()...), random(3000)...)
	for _, format := range allFormats() {
		t.Run(format, func(t *testing.T) {
			b := packed(t, format, content)
			reported := 0
			for i := 1; i < 40; i++ {
				cut := b[:len(b)*i/40]
				f := walk(t, "a", cut, Limits{})
				whole := false
				for _, p := range f.parts {
					whole = whole || bytes.Contains(p, content)
				}
				switch {
				case len(f.problems) > 0:
					reported++
				case !whole && format != "compress" && FormatOf(blobOf(t, testPool(t, nil), cut)) != NoArchive:
					t.Errorf("cut after %d of %d bytes, nothing is said:\n%v", len(cut), len(b), f)
				}
			}
			if reported < 20 && format != "compress" { // which has neither an end mark nor a size
				t.Errorf("of 39 cuts %d are reported", reported)
			}
		})
	}
}

// A changed byte is reported where the format has a checksum for what it is in; where not, the walk does not break.
func TestChangedArchivesAreReported(t *testing.T) {
	content := append(append(bytes.Clone(text(2000)), eicar()...), random(2000)...)
	for _, format := range allFormats() {
		t.Run(format, func(t *testing.T) {
			b := packed(t, format, content)
			summed := strings.HasPrefix(format, "zip") || strings.HasPrefix(format, "7z") || strings.HasPrefix(format, "rar") ||
				format == "gzip" || format == "bzip2" || format == "xz" || format == "zstd" || format == "lz4" || format == "cab mszip" || format == "cab"
			silent := 0
			for i := range 30 {
				changed := bytes.Clone(b)
				changed[len(b)*i/30] ^= 0x41
				f := walk(t, "a", changed, Limits{})
				right := false
				for _, p := range f.parts {
					right = right || bytes.Contains(p, content) // several readings of one path are joined
				}
				if len(f.problems) == 0 && !right && FormatOf(blobOf(t, testPool(t, nil), changed)) != NoArchive {
					silent++
					if summed {
						t.Errorf("byte %d of %d is changed, and nothing is said:\n%v", len(b)*i/30, len(b), f)
					}
				}
			}
			t.Logf("%d of 30 changes are silent", silent)
		})
	}
}

func TestEncryptedArchivesAreReported(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "IN"), append(eicar(), text(5000)...), 0o644); err != nil {
		t.Fatal(err)
	}
	archives := map[string][]byte{}
	for _, command := range []string{
		"zip -q -P secret $OUT.zip IN", "zip -q0 -P secret $OUT.zip IN", "7z a -tzip -psecret -mem=AES256 $OUT.zip IN", "7z a -psecret $OUT.7z IN", "7z a -psecret -mhe=on $OUT.7z IN",
	} {
		archives[command] = run(t, dir, command)
	}
	// RAR 5 with encrypted headers: the block that says so comes first.
	headers := append([]byte(rar5Magic), rar5Block(append(numbers(4, 0, 0, 0, 15), make([]byte, 16)...), nil)...)
	archives["rar5 headers"] = append(headers, random(500)...)
	rar4 := rar4Of("IN", string(random(100)))
	at := bytes.IndexByte(rar4[20:], 0x74) + 20
	binary.LittleEndian.PutUint16(rar4[at+1:], 0x8004)
	size := int(binary.LittleEndian.Uint16(rar4[at+3:]))
	binary.LittleEndian.PutUint16(rar4[at-2:], uint16(crc32.ChecksumIEEE(rar4[at:at-2+size])))
	archives["rar4 member"] = rar4
	for what, b := range archives {
		for _, outer := range [][]byte{b, zipOf(t, zip.Deflate, "x", string(b))} {
			f := walk(t, "a", outer, Limits{})
			if k := f.kinds(); len(k) != 1 || k[0] != Encrypted {
				t.Errorf("%s: %v", what, f)
			}
			if f.has(eicar()) {
				t.Errorf("%s: it is not encrypted", what)
			}
		}
	}
	// What stands beside it is read.
	b := run(t, dir, "zip -q -P secret $OUT.zip IN; cp IN plain.com; zip -q $OUT.zip plain.com")
	f := walk(t, "a", b, Limits{})
	f.wantKinds(t, Encrypted)
	if !f.has(eicar()) {
		t.Errorf("the plain member is not found:\n%v", f)
	}
}

// Self-extracting programs and pictures with an archive behind them are opened too.
func TestArchivesBehindSomethingElse(t *testing.T) {
	program, err := os.ReadFile("/bin/ls")
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"zip", "7z", "rar4", "rar5", "cab"} {
		b := append(bytes.Clone(program), packed(t, format, eicar())...)
		if f := walk(t, "a.exe", b, Limits{}); !f.has(eicar()) {
			t.Errorf("%s behind a program: %v", format, f)
		}
	}
	picture := append([]byte("\x89PNG\r\n\x1a\n"), random(5000)...)
	if f := walk(t, "a.png", append(picture, packed(t, "zip", eicar())...), Limits{}); !f.has(eicar()) {
		t.Errorf("zip behind a picture: %v", f)
	}
}

// quine is an archive that contains itself (Russ Cox, "Zip Files All The Way Down").
func quine(t testing.TB) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(quineText, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnArchiveThatContainsItselfEnds(t *testing.T) {
	b := quine(t)
	f := walk(t, "r.zip", b, Limits{})
	found := 0
	for _, p := range f.parts {
		if bytes.Equal(p, b) {
			found++
		}
	}
	if found == 0 || len(f.order) > 4 {
		t.Errorf("the archive in itself is found %d times in:\n%v", found, f)
	}
}

// 42.zip in small: archives of archives, each of which is harmless. Equal ones are opened once, and different ones come to
// the limits.
func TestArchivesOfArchivesAreBounded(t *testing.T) {
	zeros := string(make([]byte, 1<<18))
	sixteen := func(of func(i int) []byte) []byte {
		var files []string
		for i := range 16 {
			files = append(files, fmt.Sprint(i), string(of(i)))
		}
		return zipOf(t, zip.Deflate, files...)
	}
	equal := zipOf(t, zip.Deflate, "0", zeros)
	for range 8 {
		equal = sixteen(func(int) []byte { return equal }) // 4 billion leaves
	}
	f := walk(t, "42.zip", equal, Limits{})
	f.wantClean(t)
	if n := len(f.order); n < 8*16 || n > 8*16+1 {
		t.Errorf("%d members of equal archives are visited", n)
	}
	different := sixteen(func(i int) []byte {
		return sixteen(func(k int) []byte { return zipOf(t, zip.Deflate, "0", zeros+fmt.Sprint(i, k)) })
	})
	lim := Limits{RatioFrom: 4 << 20, Ratio: 100}
	f = walk(t, "42.zip", different, lim)
	f.wantKinds(t, Bomb)
	if n := len(f.order); n > 200 {
		t.Errorf("%d members of different archives are visited", n)
	}
}

// quineText is r.zip in base 64.
const quineText = `
UEsDBBQAAAAIAAgDZDz59IlkSAEAALgBAAAHAAAAci9yLnppcAAlANr/UEsDBBQAAAAIAAgDZDz59IlkSAEAALgBAAAHAAAAci9yLnppcAAvAND/ACUA2v9QSwME
FAAAAAgACANkPPn0iWRIAQAAuAEAAAcAAAByL3IuemlwAC8A0P/CVI5XOQAFAPr/wlSOVzkABQD6/wAFAPr/ABQA6//CVI5XOQAFAPr/AAUA+v8AFADr/0KIIcQA
ABQA6/9CiCHEAAAUAOv/QoghxAAAFADr/0KIIcQAABQA6/9CiCHEAAAAAP//AAAA//8ANADL/0KIIcQAAAAA//8AAAD//wA0AMv/QughXg8AAAD//wrwZmQSYcAV
3OigSL9IryqzIMCblQ3EZwRCUwYGBkAABgD5/20BAAAAAELoIV4PAAAA//8K8GZkEmHAFdzooEi/SK8qsyDAm5UNxGcEQlMGBgZAAAYA+f9tAQAAAABQSwECFAAU
AAAACAAIA2Q8+fSJZEgBAAC4AQAABwAAAAAAAAAAAAAAAAAAAAAAci9yLnppcFBLBQYAAAAAAQABADUAAABtAQAAAAA=`
