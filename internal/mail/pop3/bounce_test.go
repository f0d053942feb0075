package pop3

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"lazaret/internal/scan"
)

// bounce is what a mail server says about a mail with this attached to it, of which it returns so many bytes.
func bounce(header, body string, keep int) string {
	returned := bounded("boundary=YY", "YY", header, body)
	if keep > 0 {
		at := strings.LastIndex(returned, "\n\n"+body[:20])
		returned = returned[:at+2+keep]
	}
	return lf(head) + "MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status;\n\tboundary=\"B/1.2\"\n\nThis is MIME.\n\n" +
		"--B/1.2\nContent-Description: Notification\nContent-Type: text/plain; charset=us-ascii\n\n" + hello + "\n--B/1.2\nContent-Type: message/delivery-status\n\n" +
		"Reporting-MTA: dns; mx.example.org\n\nFinal-Recipient: rfc822; b@example.org\nAction: failed\nStatus: 5.1.1\n\n" +
		"--B/1.2\nContent-Description: Undelivered Message\nContent-Type: message/rfc822\n\n" + returned + "\n--B/1.2--\n"
}

func inBase64(b []byte) string { return broken(base64.StdEncoding.EncodeToString(b), 76) }

// infectedZip has EICAR before what is so large that it is cut off.
func infectedZip(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range []struct {
		name string
		body []byte
	}{{"a.com", scan.EICAR()}, {"b.zip", randomZip(t, 100_000)}} {
		f, err := w.Create(m.name)
		if err == nil {
			_, err = f.Write(m.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// cleanBounces return mails that were cut off in the middle of an archive: mail servers do it, and who has written the mail has to
// learn what became of it.
func (c corpus) cleanBounces(t *testing.T) {
	zip, tgz := inBase64(randomZip(t, 100_000)), inBase64(gzipped(t, tarred(t, "a", randomZip(t, 100_000))))
	outer := inBase64(zipped(t, "a.zip", randomZip(t, 100_000)))
	for name, mail := range map[string]string{
		"whole":                    bounce(b64, zip, 0),
		"at the end of a line":     bounce(b64, zip, 77*650),
		"within a line":            bounce(b64, zip, 77*650+33),
		"within the directory":     bounce(b64, zip, len(zip)-60),
		"within the first header":  bounce(b64, zip, 37),
		"tar.gz":                   bounce(b64, tgz, 77*650+7),
		"zip in zip":               bounce(b64, outer, 77*650),
		"the report is cut, too":   strings.TrimSuffix(bounce(b64, zip, 77*650), "--B/1.2--\n"),
		"no attachment, only text": bounce("Content-Type: text/plain\n", hello+hello, 40),
	} {
		c.add(t, "bounce, "+name, crlf(lf(mail)))
	}
}

// TestCutArchivesElsewhere: archives that are cut pass in what mail servers return alone, and what is in them is looked at there, too.
func TestCutArchivesElsewhere(t *testing.T) {
	plain := randomZip(t, 100_000)
	zip := inBase64(plain)
	unknown := bytes.Clone(plain)
	unknown[8] = 98 // PPMd, which other programs can open
	encrypted := bytes.Clone(plain)
	encrypted[6] |= 1
	cutAt := 77 * 650
	good := bounce(b64, zip, cutAt)
	refused(t, corpus{
		"no report":              strings.Replace(good, "multipart/report", "multipart/mixed", 1),
		"two types":              strings.Replace(good, "Content-Type: multipart/report", "Content-Type: multipart/mixed\nContent-Type: multipart/report", 1),
		"another type":           strings.Replace(good, "message/rfc822", "text/plain", 1),
		"the message has an end": strings.Replace(good, "\n--B/1.2--", "\n--YY--\n--B/1.2--", 1),
		"another part behind":    strings.Replace(good, "\n--B/1.2--", "\n--B/1.2\n\nHello\n--B/1.2--", 1),
		"two encodings":          bounce("Content-Transfer-Encoding: 7bit\n"+b64, zip, cutAt),
		"junk in it":             bounce(b64, strings.Replace(zip, "\n", "\n!\n", 3), cutAt),
		"not in a returned mail": mixed(b64, zip[:cutAt]),
		"within the report":      strings.Replace(good, "Content-Type: message/delivery-status\n", b64+"\n"+zip[:cutAt]+"\n--B/1.2\n", 1),
		"unknown method":         bounce(b64, inBase64(unknown), cutAt),
		"encrypted":              bounce(b64, inBase64(encrypted), cutAt),
	})
	found(t, corpus{"a member before the cut": bounce(b64, inBase64(infectedZip(t)), cutAt), "cut behind it": bounce(b64, inBase64(infectedZip(t)), 1001)})
}
