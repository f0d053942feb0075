package pop3

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"
)

// randomZip is an archive that does not compress, so large that nobody finds its end in what follows.
func randomZip(t *testing.T, n int) []byte {
	t.Helper()
	body := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(body)
	return zipped(t, "a.docx", body)
}

// cleanCuts are clean mails that have lines in them which could be delimiters or headers, or boundaries that can be read in several
// ways, with archives that are broken when they are read in another way.
func (c corpus) cleanCuts(t *testing.T) {
	zip := broken(base64.StdEncoding.EncodeToString(randomZip(t, 100_000)), 76)
	text := hello + "-----Original Message-----\nFrom: a\nSent: b\n\n> text\n"
	parts := func(boundary string) string {
		return "This is MIME.\n--" + boundary + "\nContent-Type: text/plain\n" + quot + "\n" + text + "\n--" + boundary +
			"\nContent-Type: application/zip\n" + b64 + "\n" + zip + "\n--" + boundary + "\nContent-Type: application/zip\n" + b64 + "\n" + zip +
			"\n--" + boundary + "\nContent-Type: text/plain\n\n" + text + "\n--" + boundary + "--\n"
	}
	top := func(parameter string) string {
		return lf(head) + "MIME-Version: 1.0\nContent-Type: multipart/mixed; " + parameter + "\n\n"
	}
	for name, mail := range map[string]string{
		"a boundary with a space":           top(`boundary="a b"`) + parts("a b"),
		"two boundaries":                    top("boundary=XX; boundary=YY") + parts("XX"),
		"a boundary in percent":             top("boundary*=us-ascii''%58X") + parts("XX"),
		"a boundary that is escaped":        top(`boundary="X\X"`) + parts("XX"),
		"no boundary":                       top("charset=x") + parts("XX"),
		"a folded boundary in a mail in it": strings.Replace(mixed("Content-Type: message/rfc822\n", top("\n\tboundary=YY")+parts("YY")), "a.com", "a.eml", 1),
		"a digest":                          strings.Replace(mixed("", top("\n\tboundary=YY")+parts("YY")), "multipart/mixed", "multipart/digest", 1),
		"the source of a mail in the text":  lf(head) + "\nLook at this:\n\n" + top("boundary=YY") + parts("YY"),
		"parts of a mail in the text":       lf(head) + "\nLook at this:\n\n" + parts("YY"),
		"a mailbox in the text":             lf(head) + "\n" + strings.Repeat("From grace@example.org Mon Jun  1 10:00:00 2026\n"+lf(head)+quot+"\n"+text+"\n", 60),
		"a mailbox of base64 in the text":   lf(head) + "\n" + strings.Repeat("From grace@example.org Mon Jun  1 10:00:00 2026\n"+lf(head)+b64+"\n"+zip+"\n\n", 3),
		"an answer in quoted-printable":     lf(head) + quot + "\n" + qpOf(t, text+"Gr\xfc\xdfe\n"),
		"rules":                             lf(head) + "\n" + strings.Repeat("--------------------\n\nMessage: 1\nDate: x\nContent-Type: text/plain\n\n"+hello, 50),
		"how to uudecode":                   lf(head) + "\nIt begins with\nbegin 644 name\nand then\nbegin 755 name\nand so on.\n",
	} {
		c.add(t, "cuts, "+name, crlf(lf(mail)))
	}
}

// cleanOpenPGP are messages that nobody reads without a key, and clean ones that anybody reads.
func (c corpus) cleanOpenPGP(t *testing.T) {
	random := make([]byte, 20_000)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(random)
	all := openPGP(t, []byte(hello))
	for name, b := range openPGP(t, randomZip(t, 100_000)) {
		all["zip in "+name] = b
	}
	all["encrypted"] = append([]byte{0x85, 0x01, 0x0c}, random...)
	all["encrypted by a password"] = append([]byte{0x8c, 0x0d, 4, 9, 3, 2}, random...)
	all["a key"] = append([]byte{0x99, 0x01, 0x0d, 4}, random...)
	for name, b := range all {
		armoured := "-----BEGIN PGP MESSAGE-----\n\n" + broken(base64.StdEncoding.EncodeToString(b), 64) + "=abcd\n-----END PGP MESSAGE-----\n"
		c.add(t, "OpenPGP, "+name+", inline", plainMail("", hello+armoured))
		c.add(t, "OpenPGP, "+name+", PGP/MIME", crlf(strings.Replace(mixed("", armoured), "multipart/mixed", "multipart/encrypted; protocol=\"application/pgp-encrypted\"", 1)))
		c.add(t, "OpenPGP, "+name+", attached", crlf(mixed(b64, inBase64(b))))
	}
}

// cleanPartials are mails that speak of message/partial, and are none.
func (c corpus) cleanPartials(t *testing.T) {
	quoted := "Content-Type: message/partial; id=\"x\"; number=1; total=2\n"
	for name, mail := range map[string]string{
		"in the subject":           "Subject: What does message/partial; number=1 mean?\n" + lf(head) + "\n" + hello,
		"in a field about it":      "X-Note: Content-Type: message/partial; id=1\n" + lf(head) + "\n" + hello,
		"in the text":              lf(head) + "Content-Type: text/plain\n\nThe mail had this header:\n\n" + quoted + "\nWhat is that?\n",
		"first in the text":        lf(head) + "Content-Type: text/plain\n\n" + quoted + "\nWhat is that?\n",
		"between rules":            lf(head) + "Content-Type: text/plain\n\nIt was:\n------ header ------\n" + quoted + "\n------\nWhat is that?\n",
		"in the text of a part":    strings.Replace(mixed("", hello), hello, hello+quoted+"\nWhat is that?\n", 1),
		"in a part, between rules": strings.Replace(mixed("", hello), hello, hello+"------ header ------\n"+quoted+"\nWhat is that?\n", 1),
		"without a number":         mixed("Content-Type: message/partial\n", hello),
		"in the name of a file":    mixed("Content-Type: text/plain; name=\"message about a partial id.txt\"\n", hello),
	} {
		if name == "without a number" {
			mail = strings.Replace(mail, "name=a.com", "x=y", 1)
		}
		c.add(t, "partial, "+name, crlf(mail))
	}
}

// TestPartials: a fragment of a message is told, wherever a mail program may take it for one.
func TestPartials(t *testing.T) {
	filler := strings.Repeat("X-Filler: "+strings.Repeat("a", 60)+"\n", 5000)
	partial := "Content-Type: message/partial; id=\"a@b\"; number=1; total=2\n"
	body := "\nContent-Type: text/plain\n\nfirst half\n"
	c := corpus{
		"plain":                     lf(head) + partial + body,
		"behind 256 KiB of header":  lf(head) + filler + partial + body,
		"folded":                    lf(head) + "Content-Type:\n message/partial;\n\tid=\"a@b\";\n\tnumber=1\n" + body,
		"with a comment":            lf(head) + "Content-Type: message (x) / (y) partial; id=a; number=1\n" + body,
		"in an encoded word":        lf(head) + "Content-Type: =?us-ascii?q?message=2Fpartial;_number=3D1?=; id=x\n" + body,
		"misspelt":                  lf(head) + "Content_Type : message/partial; number=2; id=x\n" + body,
		"in a part":                 mixed(partial, "Content-Type: text/plain\n\nfirst half\n"),
		"in message/rfc822":         mixed("Content-Type: message/rfc822\n", "Subject: x\n"+partial+body),
		"undeclared delimiter":      bounded("boundary=YY", "XX", partial, body),
		"behind 8 KiB of parameter": lf(head) + "Content-Type: text/plain; x=" + strings.Repeat("a", 9000) + "\n" + "Content-Type: message/partial; id=x; number=1\n" + body,
	}
	refused(t, c)
	// What is only declared behind as much of a header is looked into.
	inner := b64 + "\n" + eicarB64() + "\n"
	found(t, corpus{"message/rfc822": mixed(filler+"Content-Type: message/rfc822\n"+b64, broken(base64.StdEncoding.EncodeToString([]byte(inner)), 76))})
}
