package attachment

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lazaret/internal/content"
	"lazaret/internal/mail/message"
	"lazaret/internal/scan"
)

func plainOf(t *testing.T, mail string) map[[sha256.Size]byte]Vouched {
	t.Helper()
	b, err := newPool(t).Of([]byte(mail))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	sums, err := Plain(b)
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

const plainHead = "From: a@example.org\r\nTo: b@example.org\r\nSubject: x\r\nMIME-Version: 1.0\r\n"

// inBase64 returns a part that holds content in lines of width characters.
func inBase64(typ, disposition string, content []byte, width int) string {
	var b strings.Builder
	if typ != "" {
		b.WriteString("Content-Type: " + typ + "\r\n")
	}
	if disposition != "" {
		b.WriteString("Content-Disposition: " + disposition + "\r\n")
	}
	b.WriteString("Content-Transfer-Encoding: base64\r\n\r\n")
	for s := base64.StdEncoding.EncodeToString(content); s != ""; {
		n := min(width, len(s))
		b.WriteString(s[:n] + "\r\n")
		s = s[n:]
	}
	return b.String()
}

func inMultipart(kind, boundary string, parts ...string) string {
	out := "Content-Type: multipart/" + kind + "; boundary=\"" + boundary + "\"\r\n\r\n"
	for _, p := range parts {
		out += "--" + boundary + "\r\n" + p
	}
	return out + "--" + boundary + "--\r\n"
}

const (
	plainText = "Content-Type: text/plain; charset=utf-8\r\n\r\nHello\r\n"
	plainHTML = "Content-Type: text/html\r\n\r\n<p>Hello\r\n"
)

// shapes returns mails around a part.
func shapes(part string) map[string]string {
	return map[string]string{
		"alone":                   plainHead + part,
		"mixed":                   plainHead + inMultipart("mixed", "b1", plainText, part),
		"first":                   plainHead + inMultipart("mixed", "b1", part, plainText),
		"related":                 plainHead + inMultipart("related", "b1", plainHTML, part),
		"alternative":             plainHead + inMultipart("alternative", "b1", plainText, part),
		"behind an alternative":   plainHead + inMultipart("mixed", "b1", inMultipart("alternative", "c2", plainText, plainHTML), part),
		"related, in alternative": plainHead + inMultipart("mixed", "b1", inMultipart("alternative", "c2", plainText, inMultipart("related", "d3", plainHTML, part))),
		"twice":                   plainHead + inMultipart("mixed", "b1", plainText, part, part),
		"by Received":             "Received: from a by b; Mon, 1 Jun 2026 10:00:00 +0200\r\n" + plainHead + inMultipart("mixed", "b1", plainText, part),
		"by Return-Path":          "Return-Path: <a@example.org>\r\n" + plainHead + inMultipart("mixed", "b1", plainText, part),
		"by Delivered-To":         "Delivered-To: b@example.org\r\n" + plainHead + inMultipart("mixed", "b1", plainText, part),
		"by Message-ID":           "Message-ID: <1@example.org>\r\n" + plainHead + inMultipart("mixed", "b1", plainText, part),
		"with a preamble":         plainHead + strings.Replace(inMultipart("mixed", "b1", plainText, part), "\r\n\r\n", "\r\n\r\nThis is MIME.\r\n", 1),
	}
}

// TestClamAVFindsWhatPlainVouchesFor has real ClamAV look at every shape of mail whose attachments the gate does not ask it
// about a second time.
func TestClamAVFindsWhatPlainVouchesFor(t *testing.T) {
	program, err := exec.LookPath("clamscan")
	if err != nil {
		t.Skip("no clamscan on this machine (Debian: clamav)")
	}
	dir := t.TempDir()
	mails := filepath.Join(dir, "mails")
	database := filepath.Join(dir, "eicar.ndb")
	if err := os.Mkdir(mails, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(database, []byte("Eicar-Test:0:0:"+hex.EncodeToString(scan.EICAR())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(scan.EICAR())
	var names []string
	for _, typ := range []string{
		"", "application/octet-stream", "image/png", "application/pdf; name=\"x.pdf\"", "application/zip", "audio/x", "x-foo/bar",
		"application/x-foo; charset=utf-8", "application/pgp-signature", "application/pkcs7-mime", "application/ms-tnef",
		"application/mac-binhex40", "application/x-uuencode", "message/partial", "text/html",
	} {
		for _, disposition := range []string{"", "attachment; filename=\"x.exe\"", "inline"} {
			for _, width := range []int{76, 64, 996} {
				for shape, mail := range shapes(inBase64(typ, disposition, scan.EICAR(), width)) {
					if _, ok := plainOf(t, mail)[want]; !ok {
						continue
					}
					if err := os.WriteFile(filepath.Join(mails, fmt.Sprint(len(names))), []byte(mail), 0o600); err != nil {
						t.Fatal(err)
					}
					names = append(names, fmt.Sprintf("%s: %q, %q, lines of %d", shape, typ, disposition, width))
				}
			}
		}
	}
	for _, typ := range []string{"text/plain; charset=utf-8", "text/plain", "text/html", "Text/HTML; charset=iso-8859-1"} {
		for _, encoding := range []string{"", "7bit", "8bit", "8BIT"} {
			part := "Content-Type: " + typ + "\r\n"
			if encoding != "" {
				part += "Content-Transfer-Encoding: " + encoding + "\r\n"
			}
			for shape, mail := range shapes(part + "\r\n" + string(scan.EICAR()) + "\r\n") {
				if _, ok := plainOf(t, mail)[want]; !ok {
					t.Errorf("a text is not vouched for: %s, %q, %q", shape, typ, encoding)
					continue
				}
				if err := os.WriteFile(filepath.Join(mails, fmt.Sprint(len(names))), []byte(mail), 0o600); err != nil {
					t.Fatal(err)
				}
				names = append(names, fmt.Sprintf("%s: text, %q, %q", shape, typ, encoding))
			}
		}
	}
	if len(names) < 12*3*3*12 {
		t.Fatalf("only %d mails were plain", len(names))
	}
	// It exits with 1, because it finds something.
	out, _ := exec.Command(program, "--database="+database, "--no-summary", "--infected", mails).Output() //nolint:gosec // the program that was looked up
	found := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if path, _, ok := strings.Cut(line, ": Eicar-Test"); ok {
			found[filepath.Base(path)] = true
		}
	}
	for i, name := range names {
		if !found[fmt.Sprint(i)] {
			t.Errorf("ClamAV does not find it: %s", name)
		}
	}
}

// TestPlainVouchesForNothingUnusual lists what is asked about in any case.
func TestPlainVouchesForNothingUnusual(t *testing.T) {
	eicar := inBase64("application/octet-stream", "", scan.EICAR(), 76)
	ordinary := plainHead + inMultipart("mixed", "b1", plainText, eicar)
	if got := plainOf(t, ordinary); len(got) != 3 || got[sha256.Sum256(scan.EICAR())].Type != "application/octet-stream" {
		t.Fatalf("of the ordinary mail this is known: %v", got)
	}
	replaced := func(old, to string) string {
		t.Helper()
		if !strings.Contains(ordinary, old) {
			t.Fatalf("nothing to replace: %q", old)
		}
		return strings.Replace(ordinary, old, to, 1)
	}
	for name, mail := range map[string]string{
		"an unknown beginning":       "X-Foo: bar\r\n" + ordinary,
		"signed":                     plainHead + inMultipart("signed", "b1", plainText, eicar),
		"a mail in the mail":         plainHead + inMultipart("mixed", "b1", "Content-Type: message/rfc822\r\n\r\n"+ordinary),
		"part of a message":          replaced("application/octet-stream", "message/partial"),
		"two encodings":              replaced("Content-Transfer-Encoding: base64\r\n", "Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit\r\n"),
		"two boundaries":             replaced("boundary=\"b1\"", "boundary=\"b1\"; boundary=\"b2\""),
		"a multipart without an end": replaced("--b1--\r\n", ""),
		"bare line feeds":            strings.ReplaceAll(ordinary, "\r\n", "\n"),
		"something behind padding":   replaced("--b1--", "AA==QUJD\r\n--b1--"),
		"other characters":           replaced("--b1--", "*AAA\r\n--b1--"),
		"no padding":                 replaced("--b1--", "AA\r\n--b1--"),
		"an encoding nearly right":   replaced("Transfer-Encoding: base64", "Transfer-Encoding: base-64"),
		"six multiparts": plainHead + inMultipart("mixed", "a1", inMultipart("mixed", "c2", inMultipart("mixed", "d3",
			inMultipart("mixed", "e4", inMultipart("mixed", "f5", inMultipart("mixed", "g6", eicar)))))),
	} {
		if got := plainOf(t, mail); len(got) != 0 {
			t.Errorf("%s: vouches for %d attachments", name, len(got))
		}
	}
	for name, mail := range map[string]string{
		"a text in base64":           replaced("application/octet-stream", "text/html"),
		"an attached text":           plainHead + inMultipart("mixed", "b1", plainText, "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\n"+string(scan.EICAR())+"\r\n"),
		"a text with a name":         plainHead + inMultipart("mixed", "b1", plainText, "Content-Type: text/plain; name=x.com\r\n\r\n"+string(scan.EICAR())+"\r\n"),
		"a text without any field":   plainHead + inMultipart("mixed", "b1", plainText, "\r\n"+string(scan.EICAR())+"\r\n"),
		"a text in quoted-printable": plainHead + inMultipart("mixed", "b1", plainText, "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"+string(scan.EICAR())+"\r\n"),
	} {
		if _, ok := plainOf(t, mail)[sha256.Sum256(scan.EICAR())]; ok {
			t.Errorf("%s is vouched for", name)
		}
	}
	// The same bytes may be a text elsewhere in the mail, where NULs count for nothing.
	also := plainHead + inMultipart("mixed", "b1", "Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n"+strings.SplitN(eicar, "\r\n\r\n", 2)[1], eicar)
	if v, ok := plainOf(t, also)[sha256.Sum256(scan.EICAR())]; !ok || v.Type != "" {
		t.Errorf("known of what is a text, too: %+v %v", v, ok)
	}
}

// TestPlainKnowsEveryPartOfOrdinaryMails: what package message finds in an ordinary mail is what Plain has seen, byte for byte.
func TestPlainKnowsEveryPartOfOrdinaryMails(t *testing.T) {
	long := inBase64("application/pdf", "attachment; filename=\"x.pdf\"", bytes.Repeat([]byte("content\x00"), 300), 76)
	for name, mail := range shapes(long) {
		if name == "with a preamble" {
			continue // nobody vouches for that
		}
		pool := newPool(t)
		b, err := pool.Of([]byte(mail))
		if err != nil {
			t.Fatal(err)
		}
		known, err := Plain(b)
		if err != nil {
			t.Fatal(err)
		}
		parts := 0
		problems := message.Find(t.Context(), pool, b, content.Default(), func(p content.Part) error {
			parts++
			if _, ok := known[p.Blob.SHA256()]; !ok {
				t.Errorf("%s: %s with %d bytes is not known", name, p.Path, p.Blob.Size())
			}
			return nil
		})
		if len(problems) > 0 || parts < 2 {
			t.Errorf("%s: %d parts, %v", name, parts, problems)
		}
		_ = b.Close()
	}
}
