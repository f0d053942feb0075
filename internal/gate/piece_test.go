package gate

import (
	"encoding/binary"
	"strings"
	"testing"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// TestPieceOfAFileIsNotBroken has an application cut an archive into messages. A file that ends in the middle is another matter,
// also where the same bytes have passed as a piece.
func TestPieceOfAFileIsNotBroken(t *testing.T) {
	f := newFixture(t, nil)
	harmless := zipOf(t, "a.txt", strings.Repeat("harmless, and long enough to be cut into two. ", 20))
	for name, piece := range map[string]string{
		"its beginning": harmless[:len(harmless)-30], "gzip": string(gzipped(t, []byte("harmless")))[:15],
	} {
		if d, n, _ := f.pass(t, strings.NewReader(piece), Intake{Piece: true}); d.Action != policy.Pass {
			t.Errorf("%s as a piece: %v %v", name, d, n.Verdict)
		}
		if d, n, _ := f.pass(t, strings.NewReader(piece), Intake{}); d.Action == policy.Pass || n.Verdict.Reason != scan.Undecodable {
			t.Errorf("%s as a file: %v %v", name, d, n.Verdict)
		}
	}
}

// TestArchiveInAFieldIsOpened, wherever in the message the field is.
func TestArchiveInAFieldIsOpened(t *testing.T) {
	f := newFixture(t, nil)
	field := func(s string) string { return string(binary.AppendUvarint([]byte{0x0a}, uint64(len(s)))) + s }
	for name, archive := range map[string]string{"zip": zipOf(t, "a.com", string(scan.EICAR())), "gzip": string(gzipped(t, scan.EICAR()))} {
		for _, m := range []string{archive, field(archive), field("\x08\x01" + field(archive) + field("behind"))} {
			d, n, _ := f.pass(t, strings.NewReader(m), Intake{Type: "application/protobuf", Piece: true})
			if d.Action == policy.Pass || n.Verdict.Outcome != scan.Infected {
				t.Errorf("%s: %v %v", name, d, n.Verdict)
			}
		}
	}
	body := "\x01\x00\x00\x00" + string(rune(len(gzipped(t, scan.EICAR())))) + string(gzipped(t, scan.EICAR()))
	if d, n, _ := f.pass(t, strings.NewReader(body), Intake{Type: "application/grpc-web+proto"}); n.Verdict.Outcome != scan.Infected {
		t.Errorf("a compressed message of gRPC-Web: %v %v", d, n.Verdict)
	}
}
