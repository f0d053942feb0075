package signatures

import (
	"bytes"
	"context"
	"crypto/md5"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
)

// clamscan returns which signatures of the database in dir ClamAV finds in each file of texts, by the file's name.
func clamscan(t *testing.T, dir, texts string) map[string]map[string]bool {
	t.Helper()
	cmd := exec.Command("clamscan", "--database="+dir, "--allmatch", "--no-summary", "--infected", "--recursive", "--scan-archive=no", texts)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("clamscan (scripts/peers installs it): %v\n%.2000s", err, out)
	}
	found := map[string]map[string]bool{}
	for _, line := range strings.Split(string(out), "\n") {
		path, what, ok := strings.Cut(line, ": ")
		name, hit := strings.CutSuffix(what, ".UNOFFICIAL FOUND")
		if !ok || !hit {
			continue
		}
		file := filepath.Base(path)
		if found[file] == nil {
			found[file] = map[string]bool{}
		}
		found[file][name] = true
	}
	return found
}

// refused returns the number of the line that ClamAV refuses the whole database in dir for, or 0.
func refused(t *testing.T, dir, ext string) int {
	t.Helper()
	out, err := exec.Command("clamscan", "--database="+dir, "--no-summary", filepath.Join(dir, "test"+ext)).CombinedOutput()
	if err == nil {
		return 0
	}
	_, after, ok := strings.Cut(string(out), "Problem parsing database at line ")
	n := 0
	if _, scanErr := fmt.Sscan(after, &n); !ok || scanErr != nil {
		t.Fatalf("clamscan (scripts/peers installs it): %v\n%.2000s", err, out)
	}
	return n
}

// agree compares this engine with clamscan, for every one of lines, whose names are Test-0 and so on, in every one of texts.
// It returns how often clamscan found something.
func agree(t *testing.T, ext string, lines []string, texts [][]byte) (hits int) {
	t.Helper()
	dir, in := t.TempDir(), t.TempDir()
	for n := len(lines); n > 0; {
		write(t, filepath.Join(dir, "test"+ext), strings.Join(lines, "\n")+"\n")
		if n = refused(t, dir, ext); n > 0 {
			lines = slices.Delete(lines, n-1, n)
		}
	}
	t.Logf("ClamAV takes %d of the lines", len(lines))
	pool := scantest.Pool(t)
	var objects []*scan.Object
	for i, text := range texts {
		write(t, filepath.Join(in, fmt.Sprintf("%03d", i)), string(text))
		objects = append(objects, scantest.Object(t, pool, text))
	}
	theirs := clamscan(t, dir, in)
	differ := 0
	for _, line := range lines {
		// One at a time, because this engine names the first that it finds and no other.
		db := built(t, Default().formatOf(ext), line)
		name := strings.Split(line, ":")[0]
		if ext != ".ndb" {
			name = strings.Split(line, ":")[2]
		}
		for i, text := range texts {
			v, err := db.judge(context.Background(), objects[i])
			if err != nil {
				t.Fatal(err)
			}
			got := v.Outcome == scan.Infected
			want := theirs[fmt.Sprintf("%03d", i)][name]
			if want {
				hits++
			}
			if want != got {
				if differ++; differ <= 10 {
					t.Errorf("%s\nin %.600x\nhere %v, clamscan %v", line, text, got, want)
				}
			}
		}
	}
	return hits
}

// beyondItsManual says whether ClamAV may treat sig otherwise than its manual says. It does not find all that alternatives
// with wildcards or others inside of them, and negated classes of bytes, mean; it takes 6?[0-1]HEX for any byte before HEX,
// and does not find aa[0-2]HEX where two bytes lie between. There the naive matcher alone says what is right.
func beyondItsManual(sig string) bool {
	depth := 0
	for _, c := range sig {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		case '[':
			return true
		}
		if depth > 1 || depth == 1 && (c == '?' || c == '{') {
			return true
		}
	}
	return strings.Contains(sig, "!(B)") || strings.Contains(sig, "!(L)") || strings.Contains(sig, "!(W)")
}

func TestBodiesLikeClamscan(t *testing.T) {
	m := signatureMaker{rand.New(rand.NewPCG(11, 12))}
	var lines []string
	var texts [][]byte
	for len(lines) < 360 {
		sig := m.signature()
		if _, err := parseBody(sig); err != nil || beyondItsManual(sig) {
			continue
		}
		// A Java class by its first bytes: what is taken for a text is folded too, not by the same rules.
		text := append([]byte("\xca\xfe\xba\xbe\x00\x00\x00\x34"), m.text(200, sig)...)
		line, _ := m.place(sig, text)
		lines = append(lines, strings.Replace(line, "Test:", fmt.Sprintf("Test-%d:", len(lines)), 1))
		if len(lines)%2 == 0 {
			texts = append(texts, text)
		}
	}
	if hits := agree(t, ".ndb", lines, texts); hits < 100 {
		t.Errorf("%d hits only: not enough to prove anything", hits)
	}
}

func TestDigestsLikeClamscan(t *testing.T) {
	var lines []string
	var texts [][]byte
	for i := range 12 {
		text := scantest.Text(1000 + 37*i)
		texts = append(texts, text)
		for alg, sum := range hashes(text) {
			size, level := fmt.Sprint(len(text)), ""
			switch i % 4 {
			case 1:
				size = fmt.Sprint(len(text) + 1)
			case 2:
				size, level = "*", ":73"
			case 3:
				sum = strings.ToUpper(sum)
			}
			if alg == "MD5" || i%2 == 0 {
				lines = append(lines, fmt.Sprintf("%s:%s:Test-%d%s", sum, size, len(lines), level))
			}
		}
	}
	// Of several digests of one text this engine names one: each is asked about alone.
	for _, ext := range []string{".hdb", ".hsb"} {
		if hits := agree(t, ext, slices.Clone(lines), texts); hits < 10 {
			t.Errorf("%s: %d hits only: not enough to prove anything", ext, hits)
		}
	}
}

// The allow- and ignore-lists mean the same to both.
func TestListsLikeClamscan(t *testing.T) {
	line, text := badBody()
	sums := hashes(text)
	for _, c := range []struct{ file, content string }{
		{"a.fp", sums["MD5"] + ":37:Good"},
		{"a.fp", sums["MD5"] + ":38:Good"},
		{"a.sfp", sums["SHA-1"] + ":37:Good"},
		{"a.sfp", sums["SHA-256"] + ":*:Good:73"},
		{"a.sfp", sums["SHA-256"][:62] + "00:37:Good"},
		{"a.ign2", "Bad.Body"},
		{"a.ign2", "Bad.Bod"},
		{"a.ign2", "Bad.Body:" + fmt.Sprintf("%x", md5.Sum([]byte(line)))},
		{"a.ign2", "Bad.Body:" + strings.Repeat("0", 32)},
	} {
		e, dir := engine(t, map[string]string{"a.ndb": line + "\n", c.file: c.content + "\n"})
		in := t.TempDir()
		write(t, filepath.Join(in, "text"), string(text))
		theirs, ours := clamscan(t, dir, in)["text"]["Bad.Body"], judged(t, e, text) == "Bad.Body"
		if theirs != ours {
			t.Errorf("%s %s: found here %v, by clamscan %v", c.file, c.content, ours, theirs)
		}
	}
}

// portableExecutable returns a PE file with the sections .text, whose code is at its offset 0x10, and .data.
func portableExecutable() []byte {
	b := make([]byte, 0x600)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x80)
	copy(b[0x80:], "PE\x00\x00")
	le.PutUint16(b[0x84:], 0x14c) // i386
	le.PutUint16(b[0x86:], 2)     // sections
	le.PutUint16(b[0x94:], 0xe0)  // size of the optional header
	le.PutUint16(b[0x96:], 0x102)
	o := b[0x98:]
	le.PutUint16(o, 0x10b)
	le.PutUint32(o[16:], 0x1010) // entry
	le.PutUint32(o[28:], 0x400000)
	le.PutUint32(o[32:], 0x1000) // alignment of sections, and in the file
	le.PutUint32(o[36:], 0x200)
	le.PutUint16(o[40:], 4)
	le.PutUint16(o[48:], 4)
	le.PutUint32(o[56:], 0x3000) // size of the image, and of the headers
	le.PutUint32(o[60:], 0x200)
	le.PutUint16(o[68:], 3)
	le.PutUint32(o[92:], 16)
	for i, name := range []string{".text", ".data"} {
		row := b[0x98+0xe0+40*i:]
		copy(row, name)
		le.PutUint32(row[8:], 0x200)
		le.PutUint32(row[12:], uint32(0x1000*(i+1)))
		le.PutUint32(row[16:], 0x200)
		le.PutUint32(row[20:], uint32(0x200*(i+1)))
		le.PutUint32(row[36:], 0x60000020)
	}
	copy(b[0x210:], "code at the entry")
	copy(b[0x3e0:], "end of the text")
	copy(b[0x404:], "data in the last one")
	copy(b[0x5f0:], "the very end.")
	return b
}

func TestOffsetsLikeClamscan(t *testing.T) {
	program, err := os.ReadFile("/bin/ls")
	if err != nil {
		t.Fatal(err)
	}
	pe := portableExecutable()
	truncated := bytes.Clone(pe[:0x300])
	var lines []string
	add := func(target int, offset, body string) {
		lines = append(lines, fmt.Sprintf("Test-%d:%d:%s:%s", len(lines), target, offset, body))
	}
	for _, text := range []string{"code at the", "end of the text", "data in the", "the very end"} {
		for _, offset := range []string{
			"*", "528", "EP+0", "EP-1", "EP+1", "EP-4,9", "EP+400,100", "S0+16", "S0+480", "S1+4", "S0+516", "SL+4", "SL+0,8", "SE0", "SE1", "S5+4",
			"EOF-16", "EOF-15", "EOF-40,40", "1028", "1020,8",
		} {
			add(1, offset, x(text))
		}
		add(6, "EP+0", x(text))
	}
	entry := make([]byte, 16)
	if f, err := elf.NewFile(bytes.NewReader(program)); err != nil {
		t.Fatal(err)
	} else if _, err := f.Section(".text").ReadAt(entry, int64(f.Entry-f.Section(".text").Addr)); err != nil {
		t.Fatal(err)
	}
	for _, offset := range []string{"EP+0", "EP+1", "EP-3,5", "SE13", "SE14", "SE15", "SE16", "SE17", "SL+0"} {
		add(6, offset, hexOf(entry))
	}
	if hits := agree(t, ".ndb", lines, [][]byte{pe, truncated, program, append(bytes.Clone(pe), "more behind"...)}); hits < 30 {
		t.Errorf("%d hits only: not enough to prove anything", hits)
	}
}
