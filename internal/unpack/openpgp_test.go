package unpack

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"

	"lazaret/internal/units"
)

// gpgMade are messages with EICAR in them that GnuPG has written: --store with --compress-algo, --sign, and --store of a pipe.
var gpgMade = map[string]string{
	"none":   "rE9iBWUuY29taw3tOVg1TyFQJUBBUFs0XFBaWDU0KFBeKTdDQyk3fSRFSUNBUi1TVEFOREFSRC1BTlRJVklSVVMtVEVTVC1GSUxFISRIK0gq",
	"zip":    "owFb45/EmqqXnJ+bzfvWMsLUXzFA1cExINokJiAqwtREIyBO09zZWdO8VsXV09kxSDc4xNHPxTHIRdfRL8QzzDMoNFg3xDU4RNfN08dVUcVD20MLAA==",
	"zlib":   "owJ4nFvjn8Saqpecn5vN+9YywtRfMUDVwTEg2iQmICrC1EQjIE7T3NlZ07xWxdXT2TFINzjE0c/FMchF19EvxDPMMyg0WDfENThE183Tx1VRxUPbQwsA3WMW4Q==",
	"bzip2":  "owNCWmg2MUFZJlNZwUZbHgAAJ9+RAgImewagb2XfXRoKgAIABAACIABURT1BoDQAA0GgHqPUIoANABo0yDIeiBoPRUex6WMMgDqSrs7FgYGmlzTTQ7wmoR1IRT6BZFMsCtUTfAgjyGPEBmnQRLBY7l38ZqM/xdyRThQkMFGWx4A=",
	"signed": "owGbwMvMwCF2NffdL+2QT9aMa/yTWFP1kvNzs3nfWkaY+isGqDo4BkSbxARERZiaaATEaZo7O2ua16q4ejo7BukGhzj6uTgGueg6+oV4hnkGhQbrhrgGh+i6efq4Kqp4aHtodZSyMIhxMMiKKbJ8m+Nq+f3nf6k6t5L7MAtZmUAWMXBxCsBETE0ZGZ766B6rODdtyc9JD3s3rhXt6nhtN2H+EWdFgZhnvbb738xlZHh3b0W/8rwIXo/c/N3ZK7/KyRzKjDBZ+JlpKnOS2Zk8DUYA",
	"pipe":   "y0piAGsN7TlYNU8hUCVAQVBbNFxQWlg1NChQXik3Q0MpN30kRUlDQVItU1RBTkRBUkQtQU5USVZJUlVTLVRFU1QtRklMRSEkSCtIKg==",
}

// packet is a packet with the new header, oldPacket one with the old.
func packet(tag byte, body []byte) []byte {
	h := binary.BigEndian.AppendUint32([]byte{0xc0 | tag, 255}, uint32(len(body)))
	return append(h, body...)
}

func oldPacket(tag byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0x80 | tag<<2 | 1}, uint16(len(body))), body...)
}

// inPieces is a packet of partial lengths, each of 1<<power bytes.
func inPieces(tag byte, body []byte, power byte) []byte {
	out := []byte{0xc0 | tag}
	for len(body) >= 1<<power {
		out = append(append(out, 224|power), body[:1<<power]...)
		body = body[1<<power:]
	}
	return append(binary.BigEndian.AppendUint32(append(out, 255), uint32(len(body))), body...)
}

func literalOf(b []byte) []byte {
	return append([]byte("b\x05a.com\x00\x00\x00\x00"), b...)
}

func pgpCompress(t testing.TB, algorithm byte, b []byte) []byte {
	return append([]byte{algorithm}, encode(t, []string{"", "deflate-raw", "deflate"}[algorithm], b)...)
}

func join(packets ...[]byte) []byte { return bytes.Join(packets, nil) }

// pgpMessages hold EICAR each.
func pgpMessages(t testing.TB) map[string][]byte {
	e := literalOf(eicar())
	onePass := []byte{3, 0, 8, 1, 1, 2, 3, 4, 5, 6, 7, 8, 1}
	signature := append([]byte{4, 0}, random(300)...)
	lit := packet(pgpLiteral, e)
	all := map[string][]byte{
		"literal": lit, "old header": oldPacket(pgpLiteral, e), "to the end": append([]byte{0x80 | pgpLiteral<<2 | 3}, e...),
		"short length": append([]byte{0xc0 | pgpLiteral, byte(len(e))}, e...), "pieces": inPieces(pgpLiteral, e, 4), "pieces of one": inPieces(pgpLiteral, e, 0),
		"two octets of length": append([]byte{0xc0 | pgpLiteral, 192, 8}, literalOf(append(eicar(), make([]byte, 200-len(e))...))...),
		"length that lies":     append([]byte{0xc0 | pgpLiteral, 255, 0x7f, 0xff, 0xff, 0xff}, e...),
		"signed":               join(packet(pgpOnePass, onePass), lit, packet(pgpSignature, signature)), "signed as of old": join(packet(pgpSignature, signature), lit),
		"signed twice": join(oldPacket(pgpOnePass, onePass), packet(pgpOnePass, onePass), lit, packet(pgpSignature, signature)),
		"a marker":     join(packet(pgpMarker, []byte("PGP")), lit), "padding": join(packet(pgpPadding, random(3000)), lit),
		"something private": join(packet(pgpPrivate+1, random(5000)), packet(pgpMarker, []byte("PGP")), lit), "two literals": join(packet(pgpLiteral, literalOf([]byte("x"))), lit),
		"uncompressed": packet(pgpCompressed, append([]byte{0}, lit...)), "ZIP": packet(pgpCompressed, pgpCompress(t, 1, lit)), "ZLIB": oldPacket(pgpCompressed, pgpCompress(t, 2, lit)),
		"compressed in pieces":   inPieces(pgpCompressed, pgpCompress(t, 1, lit), 3),
		"compressed twice":       packet(pgpCompressed, pgpCompress(t, 1, packet(pgpCompressed, pgpCompress(t, 2, lit)))),
		"signed, compressed":     packet(pgpCompressed, pgpCompress(t, 1, join(packet(pgpOnePass, onePass), lit, packet(pgpSignature, signature)))),
		"an unknown format":      packet(pgpCompressed, pgpCompress(t, 1, packet(pgpLiteral, append([]byte("x"), e[1:]...)))),
		"a zip":                  packet(pgpCompressed, pgpCompress(t, 1, packet(pgpLiteral, literalOf(packed(t, "zip", eicar()))))),
		"a text before, in ZLIB": packet(pgpCompressed, pgpCompress(t, 2, join(packet(pgpLiteral, literalOf(text(70_000))), lit))),
	}
	for name, s := range gpgMade {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		all["GnuPG, "+name] = b
	}
	return all
}

func pgpWalked(t testing.TB, b []byte, lim Limits) (found bool, parts []Part, problems []Problem) {
	t.Helper()
	pool := testPool(t, nil)
	problems = Walk(context.Background(), pool, Source{Blob: blobOf(t, pool, b), Name: "a"}, lim, func(p Part) error {
		body, err := io.ReadAll(p.Blob.NewReader())
		found = found || bytes.Contains(body, eicar())
		parts = append(parts, p)
		return err
	})
	return found, parts, problems
}

func TestOpenPGP(t *testing.T) {
	for name, b := range pgpMessages(t) {
		found, parts, problems := pgpWalked(t, b, Limits{})
		if !found || len(problems) > 0 {
			t.Errorf("%s: found %v in %d parts, %v", name, found, len(parts), problems)
		}
		for _, p := range parts {
			if p.Depth == 1 && !p.Mail {
				t.Errorf("%s: %s is not said to be a mail's", name, p.Path)
			}
		}
	}
}

// What GnuPG writes on this machine is opened, too.
func TestOpenPGPByGnuPG(t *testing.T) {
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Skip("no gpg here")
	}
	for _, algorithm := range []string{"none", "zip", "zlib", "bzip2"} {
		content := append(random(200_000), eicar()...)
		cmd := exec.Command(gpg, "--batch", "--quiet", "--homedir", t.TempDir(), "--compress-algo", algorithm, "--store", "-o", "-") //nolint:gosec // a tool of the test
		cmd.Stdin = bytes.NewReader(content)
		b, err := cmd.Output()
		if err != nil {
			t.Fatal(algorithm, err)
		}
		if found, _, problems := pgpWalked(t, b, Limits{}); !found || len(problems) > 0 {
			t.Errorf("%s: found %v, %v", algorithm, found, problems)
		}
	}
}

// What cannot be read, and what is none, is no problem; a limit is.
func TestOpenPGPBroken(t *testing.T) {
	lit := packet(pgpLiteral, literalOf(eicar()))
	for name, b := range map[string][]byte{
		"encrypted": packet(1, random(200)), "encrypted by a password": join(packet(3, random(20)), packet(18, append([]byte{1}, random(200)...))), "a key": packet(6, append([]byte{4}, random(200)...)),
		"detached signature": packet(pgpSignature, append([]byte{4, 0}, random(200)...)), "unknown compression": packet(pgpCompressed, append([]byte{9}, lit...)),
		"JPEG": append([]byte{0xff, 0xd8, 0xff, 0xe0}, random(9000)...), "PNG": append([]byte("\x89PNG\r\n\x1a\n"), random(9000)...), "zeros behind": append([]byte{0xcb, 0}, make([]byte, 100)...),
		"garbage in ZIP": packet(pgpCompressed, append([]byte{1}, random(5000)...)), "empty": packet(pgpLiteral, nil), "markers": bytes.Repeat(packet(pgpMarker, []byte("PGP")), 20),
	} {
		if found, _, problems := pgpWalked(t, b, Limits{}); found || len(problems) > 0 {
			t.Errorf("%s: %v, %v", name, found, problems)
		}
	}
	whole := packet(pgpCompressed, pgpCompress(t, 2, packet(pgpLiteral, literalOf(append(random(5000), eicar()...)))))
	for i := range whole {
		if _, _, problems := pgpWalked(t, whole[:i], Limits{}); len(problems) > 0 {
			t.Fatalf("cut at %d: %v", i, problems)
		}
	}
	deep := lit
	for range pgpDepth + 1 {
		deep = packet(pgpCompressed, append([]byte{0}, deep...))
	}
	wrong := pgpCompress(t, 2, append([]byte{0x80 | pgpLiteral<<2 | 3}, literalOf(eicar())...))
	lim := Limits{Bytes: units.MiB, RatioFrom: 64 * units.KiB, Ratio: 10}
	for name, c := range map[string]struct {
		b    []byte
		kind Kind
	}{
		"too deep": {deep, TooDeep}, "too many": {bytes.Repeat(packet(pgpLiteral, literalOf([]byte("x"))), pgpPackets+1), TooMany},
		"bomb": {packet(pgpCompressed, pgpCompress(t, 1, packet(pgpLiteral, literalOf(make([]byte, 900_000))))), Bomb},
		// Nothing of it is visited, and it costs as much.
		"bomb of padding":          {packet(pgpCompressed, pgpCompress(t, 1, join(packet(pgpMarker, []byte("PGP")), packet(pgpPadding, make([]byte, 900_000))))), Bomb},
		"a checksum that is wrong": {packet(pgpCompressed, append(bytes.TrimSuffix(wrong, wrong[len(wrong)-1:]), wrong[len(wrong)-1]+1)), Undecodable},
	} {
		_, _, problems := pgpWalked(t, c.b, lim)
		if len(problems) == 0 || problems[0].Kind != c.kind {
			t.Errorf("%s: %v", name, problems)
		}
	}
}

// TestOpenPGPAroundZip: an archive that has the lengths of pieces in it, or the heads of stored blocks, is a broken one as it stands, and that
// is no problem; what stands behind a message, or is in a form that nobody here knows, is one.
func TestOpenPGPAroundZip(t *testing.T) {
	archive := packed(t, "zip", append(random(200_000), eicar()...))
	unknown, broken := bytes.Clone(archive), bytes.Clone(archive)
	broken[1000] ^= 0xff
	for _, sig := range []string{sigLocal, sigCentral} {
		i := bytes.LastIndex(unknown, []byte(sig))
		unknown[i+map[string]int{sigLocal: 8, sigCentral: 10}[sig]] = 98 // PPMd
	}
	for name, c := range map[string]struct {
		b     []byte
		clean bool
	}{
		"pieces": {inPieces(pgpLiteral, literalOf(archive), 13), true}, "stored blocks": {packet(pgpCompressed, pgpCompress(t, 1, packet(pgpLiteral, literalOf(archive)))), true},
		"unknown": {inPieces(pgpLiteral, literalOf(unknown), 13), false}, "behind it": {append(packet(pgpLiteral, literalOf([]byte("x"))), broken...), false},
	} {
		found, _, problems := pgpWalked(t, c.b, Limits{})
		if c.clean != (len(problems) == 0) || c.clean && !found {
			t.Errorf("%s: found %v, %v", name, found, problems)
		}
	}
}

// Random bytes are seldom taken for a message, and never a problem.
func TestRandomFilesAreNoOpenPGP(t *testing.T) {
	r := rand.NewChaCha8([32]byte{5})
	pool := testPool(t, nil)
	b, taken := make([]byte, 2000), 0
	for range 20_000 {
		_, _ = r.Read(b)
		blob, err := pool.Of(b)
		if err != nil {
			t.Fatal(err)
		}
		if FormatOf(blob) == OpenPGP {
			taken++
			if problems := Walk(context.Background(), pool, Source{Blob: blob}, Limits{}, func(Part) error { return nil }); len(problems) > 0 {
				t.Errorf("%v", problems)
			}
		}
		if Opens(blob) {
			t.Errorf("%x is surely packed", b[:8])
		}
		_ = blob.Close()
	}
	if taken > 60 {
		t.Errorf("%d of 20000", taken)
	}
}

func FuzzOpenPGP(f *testing.F) {
	for _, b := range pgpMessages(f) {
		if len(b) < 10_000 {
			f.Add(b)
		}
	}
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
		lim := Limits{Depth: 4, Parts: 50, Bytes: 4 * units.MiB, MemberBytes: units.MiB, Memory: 32 * units.MiB}
		w := &walker{ctx: context.Background(), pool: pool, lim: lim.orDefault(), claim: claimOf(context.Background()), root: int64(len(b)), opened: map[[32]byte]struct{}{}}
		size := int64(0)
		w.visit = func(p Part) error {
			size += p.Blob.Size()
			return nil
		}
		_ = openOpenPGP(w, &node{blob: src, path: "a"}, 0) // what it says is none of this test's business
		if size > int64(lim.Bytes) || w.expanded > 2*int64(lim.Bytes) || w.memory != 0 {
			t.Errorf("%d bytes visited, %d expanded, %d of memory left", size, w.expanded, w.memory)
		}
	})
}
