package signatures

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
)

func TestConformance(t *testing.T) {
	scantest.Run(t, scantest.Harness{
		New: func(t *testing.T) scan.Scanner {
			e, _ := engine(t, map[string]string{"some.ndb": strings.Join(syntheticBodies(200, 5), "\n") + "\n"})
			return e
		},
		Large:     20 << 20,
		InProcess: true,
		// The engine is in this process: what it judges by is loaded before it is used, and there is nothing to lose.
		Faulty: func(*testing.T, scantest.Fault) *scantest.Faulty { return nil },
	})
}

func TestEICARIsKnownWithoutAFile(t *testing.T) {
	e, err := New(Default(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if got := judged(t, e, scan.EICAR()); got != "Eicar-Test-Signature" {
		t.Errorf("EICAR: %s", got)
	}
	around := append(append(scantest.Text(300_000), scan.EICAR()...), scantest.Text(300_000)...)
	if got := judged(t, e, around); got != "Eicar-Test-Signature" {
		t.Errorf("EICAR in the midst of text: %s", got)
	}
	if got := judged(t, e, scan.EICAR()[:67]); got != "clean" {
		t.Errorf("EICAR without its last byte: %s", got)
	}
}

// hashes returns the digests of b in hexadecimal digits.
func hashes(b []byte) map[string]string {
	return map[string]string{
		"MD5": fmt.Sprintf("%x", md5.Sum(b)), "SHA-1": fmt.Sprintf("%x", sha1.Sum(b)), "SHA-256": fmt.Sprintf("%x", sha256.Sum256(b)),
	}
}

func TestDigestsOfWholeFiles(t *testing.T) {
	content, other := scantest.Text(5000), scantest.Text(4999)
	large := append(scantest.Text(3<<20), 'x') // on disk
	for alg, sum := range hashes(content) {
		largeSum := hashes(large)[alg]
		for _, c := range []struct {
			what, line string
			text       []byte
			want       string
		}{
			{"size is right", sum + ":5000:Bad.File", content, "Bad.File"},
			{"capital digits", strings.ToUpper(sum) + ":5000:Bad.File", content, "Bad.File"},
			{"any size", sum + ":*:Bad.File:73", content, "Bad.File"},
			{"size is wrong", sum + ":5001:Bad.File", content, "clean"},
			{"other content", sum + ":5000:Bad.File", other, "clean"},
			{"on disk", largeSum + ":3145729:Bad.Large", large, "Bad.Large"},
			{"on disk, any size", largeSum + ":*:Bad.Large:73", large, "Bad.Large"},
			{"levels that are ours", sum + ":5000:Bad.File:70:255", content, "Bad.File"},
		} {
			for _, ext := range []string{".hdb", ".hsb"} {
				e, _ := engine(t, map[string]string{"a" + ext: c.line + "\n"})
				if got := judged(t, e, c.text); got != c.want {
					t.Errorf("%s in %s, %s: got %s, want %s", alg, ext, c.what, got, c.want)
				}
				if n := e.Loaded().Digests; n != 1 {
					t.Errorf("%s, %s: %d digests loaded", alg, c.what, n)
				}
			}
		}
	}
}

func TestADigestIsOnlyFoundWithItsOwnSizeAmongMany(t *testing.T) {
	content := scantest.Text(5000)
	var lines strings.Builder
	for i := range 3000 {
		sum := md5.Sum([]byte{byte(i), byte(i >> 8)})
		fmt.Fprintf(&lines, "%x:%d:Other-%d\n", sum, 4000+i, i)
	}
	sum := hashes(content)["MD5"]
	fmt.Fprintf(&lines, "%s:4999:Wrong\n%s:5000:Right\n%s:5001:Wrong\n", sum, sum, sum)
	e, _ := engine(t, map[string]string{"a.hdb": lines.String()})
	if got := judged(t, e, content); got != "Right" {
		t.Errorf("got %s", got)
	}
	if n := e.Loaded().Digests; n != 3003 {
		t.Errorf("%d digests loaded", n)
	}
}

// badBody is a body signature and a text it is in.
func badBody() (line string, text []byte) {
	return "Bad.Body:0:*:" + fmt.Sprintf("%x", "a rather bad body"), []byte("here is a rather bad body, is it not?")
}

func TestAllowLists(t *testing.T) {
	line, text := badBody()
	sums := hashes(text)
	other := hashes([]byte("something else"))
	for _, c := range []struct {
		file, line, want string
	}{
		{"a.fp", sums["MD5"] + ":37:Good", "clean"},
		{"a.sfp", sums["SHA-1"] + ":37:Good", "clean"},
		{"a.sfp", sums["SHA-256"] + ":37:Good", "clean"},
		{"a.sfp", sums["SHA-256"] + ":*:Good:73", "clean"},
		{"a.fp", sums["MD5"] + ":38:Good", "Bad.Body"},
		{"a.fp", other["MD5"] + ":37:Good", "Bad.Body"},
		{"a.sfp", other["SHA-256"] + ":*:Good:73", "Bad.Body"},
		// The kept key of a digest is its first half: what allows something must be compared whole.
		{"a.sfp", sums["SHA-256"][:62] + "00:37:Good", "Bad.Body"},
	} {
		e, _ := engine(t, map[string]string{"a.ndb": line + "\n", c.file: c.line + "\n"})
		if got := judged(t, e, text); got != c.want {
			t.Errorf("%s %s: got %s, want %s", c.file, c.line, got, c.want)
		}
		if n := e.Loaded().Allowed; n != 1 {
			t.Errorf("%s: %d allowed", c.line, n)
		}
	}
}

func TestAnAllowListCoversDigestsAndOnDiskObjectsButNotEICAR(t *testing.T) {
	large := append(scantest.Text(1<<20), 'y')
	sums := hashes(large)
	e, _ := engine(t, map[string]string{
		"a.hdb": fmt.Sprintf("%s:%d:Bad.Large\n", sums["MD5"], len(large)),
		"a.sfp": fmt.Sprintf("%s:%d:Good\n%s:68:Nonsense\n", sums["SHA-256"], len(large), hashes(scan.EICAR())["SHA-256"]),
	})
	if got := judged(t, e, large); got != "clean" {
		t.Errorf("allowed by SHA-256, known by MD5: %s", got)
	}
	// Each start proves the engine by EICAR: no list may switch that off.
	if got := judged(t, e, scan.EICAR()); got != "Eicar-Test-Signature" {
		t.Errorf("EICAR on the allow-list: %s", got)
	}
}

func TestIgnoreLists(t *testing.T) {
	line, text := badBody()
	sum := fmt.Sprintf("%x", md5.Sum([]byte(line)))
	digest := hashes(text)["MD5"] + ":37:Bad.Digest"
	for _, c := range []struct {
		what, file, ignore, want string
	}{
		{"nothing", "a.ign2", "Other", "Bad.Body"},
		{"by name", "a.ign2", "Bad.Body", "Bad.Digest"},
		{"with what ClamAV adds", "a.ign2", "Bad.Body.UNOFFICIAL", "Bad.Digest"},
		{"by name and digest of the line", "a.ign2", "Bad.Body:" + sum, "Bad.Digest"},
		{"another line of that name", "a.ign2", "Bad.Body:" + strings.Repeat("0", 32), "Bad.Body"},
		{"the old format", "a.ign", "a.ndb:1:Bad.Body", "Bad.Digest"},
		{"both", "a.ign2", "Bad.Body\nBad.Digest", "clean"},
		{"any line wins over one line", "a.ign2", "Bad.Body\nBad.Body:" + strings.Repeat("0", 32), "Bad.Digest"},
		{"any line wins over one line, in the other order", "a.ign2", "Bad.Body:" + strings.Repeat("0", 32) + "\nBad.Body", "Bad.Digest"},
	} {
		// z.hdb and a.ndb stand on either side of the ignore-list: the order of the files says nothing.
		e, _ := engine(t, map[string]string{"Z.ndb": line + "\n", "z.hdb": digest + "\n", c.file: c.ignore + "\n"})
		if got := judged(t, e, text); got != c.want {
			t.Errorf("%s: got %s, want %s", c.what, got, c.want)
		}
	}
	e, _ := engine(t, map[string]string{"a.ndb": line + "\n", "a.ign2": "Bad.Body\n"})
	if n := e.Loaded().Ignored; n != 1 {
		t.Errorf("%d ignored", n)
	}
}

func TestPotentiallyUnwantedOnlyWhenAsked(t *testing.T) {
	line, text := badBody()
	_, dir := engine(t, map[string]string{"a.ndu": line + "\n", "a.hdu": hashes(text)["MD5"] + ":37:Bad.Digest\n", "a.fp": hashes(nil)["MD5"] + ":1:X\n"})
	for _, pua := range []bool{false, true} {
		cfg := Default()
		cfg.Paths, cfg.Poll, cfg.PUA = []string{dir}, 0, pua
		e, err := New(cfg, quiet())
		if err != nil {
			t.Fatal(err)
		}
		want, skipped := "clean", 2
		if pua {
			want, skipped = "Bad.Body", 0
		}
		if got := judged(t, e, text); got != want || e.Loaded().Skipped != skipped {
			t.Errorf("pua = %v: %s, %d skipped; want %s, %d", pua, got, e.Loaded().Skipped, want, skipped)
		}
		_ = e.Close()
	}
}
