package clamd_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"
)

// Each test below is an evasion that works on a client which trusts clamd's OK: something harmful where clamd does not
// look. They run with AlertExceedsMax on and off, by FILDES and by INSTREAM.

const kib = 1 << 10

func withAndWithoutAlerts(t *testing.T, lines []string, f func(t *testing.T, s *clamd.Scanner)) {
	for _, alert := range []string{"yes", "no"} {
		t.Run("AlertExceedsMax "+alert, func(t *testing.T) {
			r := startReal(t, append([]string{"AlertExceedsMax " + alert}, lines...)...)
			eachTransport(t, r, func(t *testing.T, s *clamd.Scanner) {
				f(t, s)
				if got := s.States()[0].Limits.Alerts; got != (alert == "yes") {
					t.Errorf("it is held to alert: %v", got)
				}
				if s.Unpacks() != (alert == "yes") {
					t.Errorf("Unpacks: %v", s.Unpacks())
				}
			})
		})
	}
}

// check asks about content, and returns the verdict in a form that compares.
func check(t *testing.T, s scan.Scanner, content []byte) string {
	t.Helper()
	said, _ := ask(t, s, content)
	return said
}

func ask(t *testing.T, s scan.Scanner, content []byte) (said, detail string) {
	t.Helper()
	v := scan.Ask(t.Context(), s, scantest.Object(t, scantest.Pool(t), content))
	if v.Outcome == scan.Incomplete {
		return fmt.Sprintf("incomplete %s", v.Reason), v.Detail
	}
	return v.Outcome.String(), fmt.Sprint(v.Findings)
}

func expect(t *testing.T, s scan.Scanner, what string, content []byte, want string) {
	t.Helper()
	if got, detail := ask(t, s, content); got != want {
		t.Errorf("%s (%d bytes): %s (%s), want %s", what, len(content), got, detail, want)
	}
}

// sized returns n bytes of text that end in what.
func sized(n int, what string) []byte { return append(scantest.Text(n-len(what)), what...) }

func TestVirusBeyondMaxFileSizeIsNotClean(t *testing.T) {
	withAndWithoutAlerts(t, []string{"MaxFileSize 300K"}, func(t *testing.T, s *clamd.Scanner) {
		expect(t, s, "at the limit", sized(300*kib, marker), "infected")
		expect(t, s, "harmless at the limit", sized(300*kib, ""), "clean")
		expect(t, s, "one above the limit", sized(300*kib+1, marker), "incomplete too-large")
		expect(t, s, "far above the limit", sized(900*kib, marker), "incomplete too-large")
		expect(t, s, "below it again", sized(200*kib, ""), "clean")
	})
}

func TestVirusBeyondMaxScanSizeIsNotClean(t *testing.T) {
	withAndWithoutAlerts(t, []string{"MaxFileSize 2M", "MaxScanSize 300K"}, func(t *testing.T, s *clamd.Scanner) {
		expect(t, s, "below the limit", sized(299*kib, marker), "infected")
		expect(t, s, "harmless below the limit", sized(299*kib, ""), "clean")
		expect(t, s, "above the limit", sized(310*kib, marker), "incomplete too-large")
		expect(t, s, "far above the limit", sized(900*kib, marker), "incomplete too-large")
	})
}

func TestVirusBeyondStreamMaxLengthIsNotClean(t *testing.T) {
	r := startReal(t, "StreamMaxLength 300K")
	s := newScanner(t, r.tcp)
	defer func() { _ = s.Close() }()
	expect(t, s, "at the limit", sized(300*kib, marker), "infected")
	expect(t, s, "harmless at the limit", sized(300*kib, ""), "clean")
	for range 3 {
		expect(t, s, "above the limit", sized(900*kib, marker), "incomplete too-large")
	}
	expect(t, s, "below it again", sized(1*kib, ""), "clean")
	byFile := newScanner(t, r.unix)
	defer func() { _ = byFile.Close() }()
	expect(t, byFile, "above the limit, handed over", sized(900*kib, marker), "infected")
}

func TestLargeHTMLIsNotClean(t *testing.T) {
	html := func(n int) []byte { return append([]byte("<!DOCTYPE html><html><body>"), scantest.Text(n)...) }
	utf16 := func(b []byte) []byte {
		out := []byte{0xff, 0xfe}
		for _, c := range b {
			out = append(out, c, 0)
		}
		return out
	}
	withAndWithoutAlerts(t, []string{"MaxHTMLNormalize 200K"}, func(t *testing.T, s *clamd.Scanner) {
		expect(t, s, "below the limit", html(150*kib), "clean")
		expect(t, s, "above the limit", html(210*kib), "incomplete too-large")
		expect(t, s, "above the limit in UTF-16", utf16(html(150*kib)), "incomplete too-large")
		expect(t, s, "no HTML", sized(900*kib, ""), "clean")
		expect(t, s, "no HTML, infected", sized(900*kib, marker), "infected")
	})
}

func TestVirusBehindTheHeadOfAMediaFileIsFound(t *testing.T) {
	heads := map[string]string{
		"MP3": "ID3\x04\x00", "MP3 frame": "\xff\xfb\x90\x44", "Ogg": "OggS\x00\x02", "RealMedia": ".RMF\x00\x00",
		"SQLite": "SQLite format 3\x00", "SIP": "SIP-HIT (SIP/2.0", "Symantec": "SYMC\x01\x00",
		"PDF image": "x/RGB\nID\r" + string(bytes.Repeat([]byte{0xff}, 32)),
		"WAL":       "\x37\x7f\x06\x82\x00\x2d\xe2\x18",
	}
	r := startReal(t)
	for name, head := range heads {
		reply, err := directly(t, r.unix, []byte(head+"\r\n"+marker))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: clamd itself says %q", name, reply)
	}
	eachTransport(t, r, func(t *testing.T, s *clamd.Scanner) {
		for name, head := range heads {
			expect(t, s, name, []byte(head+"\r\n"+marker), "infected")
			expect(t, s, name+", harmless", []byte(head+"\r\nharmless"), "clean")
			expect(t, s, name+", large", append([]byte(head), sized(200*kib, marker)...), "infected")
		}
	})
}

func TestLimitsThatClamdReportsAreIncomplete(t *testing.T) {
	r := startReal(t, "AlertExceedsMax yes", "AlertEncrypted yes", "MaxFiles 8", "MaxRecursion 4", "MaxScanSize 1M")
	many := archive(t, "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k")
	deep := []byte("harmless text")
	for range 6 {
		deep = archiveOf(t, map[string][]byte{"inner.zip": deep})
	}
	encrypted := archive(t, "secret")
	markEncrypted(t, encrypted)
	eachTransport(t, r, func(t *testing.T, s *clamd.Scanner) {
		expect(t, s, "too many files", many, "incomplete too-many")
		expect(t, s, "nested too deeply", deep, "incomplete too-deep")
		expect(t, s, "encrypted", encrypted, "incomplete encrypted")
		expect(t, s, "too much in all", archiveOf(t, map[string][]byte{"a": scantest.Text(900 * kib), "b": scantest.Text(950 * kib)}), "incomplete too-large")
		expect(t, s, "a small archive", archive(t, "a"), "clean")
		expect(t, s, "the marker in an archive", archiveOf(t, map[string][]byte{"a": []byte(marker)}), "infected")
	})
}

func TestVirusIsStillNamedWhereALimitIsExceededToo(t *testing.T) {
	r := startReal(t, "AlertExceedsMax yes", "MaxFiles 2")
	eachTransport(t, r, func(t *testing.T, s *clamd.Scanner) {
		expect(t, s, "virus first, then too many", archiveOf(t, map[string][]byte{"a": []byte(marker), "b": {1}, "c": {2}, "d": {3}}), "infected")
	})
}

// TestLimitsAreFoundOutAnewAfterARestart starts clamd again with a lower limit: what was known of the one before is
// forgotten.
func TestLimitsAreFoundOutAnewAfterARestart(t *testing.T) {
	r := startReal(t, "AlertExceedsMax no", "MaxFileSize 4M")
	eachTransport(t, r, func(t *testing.T, s *clamd.Scanner) {
		// What was found out is forgotten once when the driver's own connection is made, which may be later.
		eventually(t, "the limit is found out", func() bool {
			expect(t, s, "below the limit", sized(900*kib, ""), "clean")
			return s.States()[0].Limits.Read >= 900*units.KiB
		})
		conf := r.conf
		r.kill()
		lower := conf + ".lower"
		copyWith(t, conf, lower, "MaxFileSize 4M", "MaxFileSize 100K")
		r.conf = lower
		r.start(t)
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			got := check(t, s, sized(900*kib, marker))
			if got == "incomplete too-large" {
				break
			}
			if got == "clean" || time.Now().After(end) {
				t.Fatalf("after the restart: %s", got)
			}
		}
		r.kill()
		r.conf = conf
		r.start(t)
	})
}

// TestConfiguredLimitsAreNotProbed gives the limits, as the supervisor does.
func TestConfiguredLimitsAreNotProbed(t *testing.T) {
	f := startFake(t, "unix")
	cfg := clamd.Default()
	cfg.Addresses = clamd.Addresses{f.addr()}
	cfg.MaxScanSize, cfg.MaxHTMLSize = 100*units.KiB, 50*units.KiB
	s, err := clamd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	expect(t, s, "text below", scantest.Text(100*kib), "clean")
	expect(t, s, "text above", scantest.Text(100*kib+1), "incomplete too-large")
	html := append([]byte("<html>"), scantest.Text(100*kib)...)
	expect(t, s, "HTML below", html[:50*kib], "clean")
	expect(t, s, "HTML above", html[:50*kib+1], "incomplete too-large")
	before := f.scans.Load()
	expect(t, s, "again", scantest.Text(10*kib), "clean")
	if got := f.scans.Load() - before; got != 1 {
		t.Errorf("one object took %d scans", got)
	}
}

// TestProbesCostOneEach counts what a clamd without alerts is asked.
func TestProbesCostOneEach(t *testing.T) {
	r := startReal(t, "AlertExceedsMax no", "LogClean yes")
	s := newScanner(t, r.unix)
	defer func() { _ = s.Close() }()
	for n := range 20 {
		expect(t, s, "text", scantest.Text(10*kib*(n+1)), "clean")
	}
	if got := s.States()[0].Limits; got.Read != units.MiB || got.Unread != 0 || got.HTML != 0 {
		t.Errorf("known after small objects: %+v", got)
	}
	expect(t, s, "text", scantest.Text(1100*kib), "clean")
	if got := s.States()[0].Limits; got.Read != 2*units.MiB {
		t.Errorf("known after a larger one: %+v", got)
	}
}

// TestMemberThatClamdPassesOverIsAskedAboutByItself has archives that clamd says OK to, and their members asked about as
// the gate does.
func TestMemberThatClamdPassesOverIsAskedAboutByItself(t *testing.T) {
	r := startReal(t, "AlertExceedsMax yes", "MaxFileSize 300K", "MaxHTMLNormalize 100K")
	eachTransport(t, r, func(t *testing.T, s *clamd.Scanner) {
		set := scan.NewSet(scan.Member{Scanner: s, Required: true})
		p := scantest.Pool(t)
		eventually(t, "it is known to alert", s.Unpacks)
		expect(t, s, "text, so that a size is known", scantest.Text(250*kib), "clean")
		expect(t, s, "HTML, so that a size is known", append([]byte("<html>"), scantest.Text(10*kib)...), "clean")
		for _, c := range []struct {
			what    string
			member  []byte
			whole   string
			outcome scan.Outcome
			reason  scan.Reason
		}{
			{"too large", sized(400*kib, marker), "clean", scan.Incomplete, scan.TooLarge},
			{"too large HTML", append([]byte("<html>"), sized(150*kib, marker)...), "clean", scan.Incomplete, scan.TooLarge},
			{"media by its head alone", []byte("ID3\r\n" + marker), "clean", scan.Infected, ""},
		} {
			expect(t, s, c.what+", in an archive", archiveOf(t, map[string][]byte{"a": c.member}), c.whole)
			o := scantest.Object(t, p, c.member)
			if !s.Unpacks() || !s.Overlooks(o) {
				t.Errorf("%s: it unpacks: %v, and overlooks: %v", c.what, s.Unpacks(), s.Overlooks(o))
			}
			if v := set.Scan(t.Context(), o, scan.Inner); v.Outcome != c.outcome || v.Reason != c.reason {
				t.Errorf("%s, by itself: %+v", c.what, v)
			}
		}
		for _, c := range [][]byte{nil, []byte("tiny"), scantest.Text(200 * kib), append([]byte("<html>"), scantest.Text(5*kib)...)} {
			if s.Overlooks(scantest.Object(t, p, c)) {
				t.Errorf("%d bytes that clamd is known to read count as overlooked", len(c))
			}
		}
	})
}

func archive(t *testing.T, names ...string) []byte {
	t.Helper()
	members := map[string][]byte{}
	for i, n := range names {
		members[n] = append([]byte("harmless, number "), byte('0'+i))
	}
	return archiveOf(t, members)
}

func archiveOf(t *testing.T, members map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		if err == nil {
			_, err = w.Write(members[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// markEncrypted sets the flag that says so in the headers of a ZIP archive with one member.
func markEncrypted(t *testing.T, b []byte) {
	t.Helper()
	for _, h := range []struct {
		signature string
		flags     int
	}{{"PK\x03\x04", 6}, {"PK\x01\x02", 8}} {
		i := bytes.Index(b, []byte(h.signature))
		if i < 0 {
			t.Fatalf("no header %q", h.signature)
		}
		b[i+h.flags] |= 1
	}
}

// copyWith copies a text file with old replaced.
func copyWith(t *testing.T, from, to, old, replacement string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s has no %q", from, old)
	}
	write(t, to, strings.ReplaceAll(string(b), old, replacement))
}

// directly returns what a clamd says of content when nobody looks after it.
func directly(t *testing.T, address string, content []byte) (string, error) {
	t.Helper()
	c, err := net.Dial("unix", strings.TrimPrefix(address, "unix:"))
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	b := append([]byte("zINSTREAM\x00"), binary.BigEndian.AppendUint32(nil, uint32(len(content)))...)
	b = append(append(b, content...), 0, 0, 0, 0)
	if _, err := c.Write(b); err != nil {
		return "", err
	}
	reply, err := io.ReadAll(c)
	return strings.TrimSuffix(string(reply), "\x00"), err
}
