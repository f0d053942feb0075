package quarantine

import (
	"archive/zip"
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lazaret/internal/scan"
)

// TestZipOpensWithEveryTool has Debian's unzip and 7z open it, which need the right password.
func TestZipOpensWithEveryTool(t *testing.T) {
	noise := make([]byte, 300<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	for name, content := range map[string][]byte{"empty": {}, "eicar": scan.EICAR(), "noise": noise, "text": bytes.Repeat([]byte("text\r\n"), 100_000)} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a.zip")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			when := time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC)
			if err := errors.Join(WriteZip(f, "Grüße.eml", when, ZipPassword, bytes.NewReader(content)), f.Close()); err != nil {
				t.Fatal(err)
			}
			packed, err := os.ReadFile(path)
			if err != nil || bytes.Contains(packed, scan.EICAR()[:30]) {
				t.Errorf("it is not encrypted: %v", err)
			}
			z, err := zip.OpenReader(path)
			if err != nil {
				t.Fatal(err)
			}
			if h := z.File[0]; len(z.File) != 1 || h.Name != "Grüße.eml" || h.UncompressedSize64 != uint64(len(content)) || !h.Modified.Equal(when) {
				t.Errorf("%+v", z.File[0].FileHeader)
			}
			z.Close()
			for _, tool := range [][]string{{"unzip", "-p", "-P"}, {"7z", "x", "-so", "-p"}} {
				for password, right := range map[string]bool{ZipPassword: true, "wrong": false} {
					args := append([]string{}, tool[1:]...)
					if tool[0] == "unzip" {
						args = append(args, password, path)
					} else {
						args[2] += password
						args = append(args, path)
					}
					got, err := exec.Command(tool[0], args...).Output()
					same := err == nil && bytes.Equal(got, content)
					if right && !same {
						t.Errorf("%s: %v, %d bytes of %d", tool[0], err, len(got), len(content))
					}
					if !right && same && len(content) > 0 {
						t.Errorf("%s opens it with another password", tool[0])
					}
				}
			}
			if out, err := exec.Command("unzip", "-t", "-P", ZipPassword, path).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("No errors")) {
				t.Errorf("unzip -t: %v %s", err, out)
			}
		})
	}
}

func TestDescribeMail(t *testing.T) {
	for mail, want := range map[string]Entry{
		"From: A <a@x>\r\nTo: b@x,\r\n c@x\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Mon, 1 Jan 2026 00:00:00 +0000\r\n\r\nSubject: no": {
			From: "A <a@x>", To: "b@x, c@x", Subject: "Grüße", Date: "Mon, 1 Jan 2026 00:00:00 +0000",
		},
		"subject : =?iso-8859-15?Q?=A4?=\nSubject: second\n\n": {Subject: "€"},
		"Subject: =?x-unknown?q?a?=\r\nFrom:\r\n\r\n":          {Subject: "=?x-unknown?q?a?="},
		"garbage\r\nFrom: a\x1b[31m\x00\xff\r\n":               {From: "a [31m \uFFFD"},
		"":                                                     {},
		"\r\nFrom: in the body\r\n":                            {},
		"Subject: " + strings.Repeat("é", 2000) + "\r\n\r\n":   {Subject: strings.Repeat("é", 500)},

		"X: " + strings.Repeat("x", headBytes) + "\r\nFrom: far\r\n\r\n": {},
	} {
		var got Entry
		got.DescribeMail(strings.NewReader(mail))
		if got != want {
			t.Errorf("%.60q: %+v", mail, got)
		}
	}
}

func FuzzDescribeMail(f *testing.F) {
	f.Add([]byte("From: a\r\nTo: =?utf-8?b?w6k=?=\r\n\tx\r\n\r\n"))
	f.Add([]byte("Subject: =?iso-2022-jp?B?GyRC?=\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Entry
		e.DescribeMail(bytes.NewReader(b))
		for _, s := range []string{e.From, e.To, e.Subject, e.Date} {
			if len(s) > maxText || strings.ContainsAny(s, "\r\n\x00\x1b") {
				t.Fatalf("%q", s)
			}
		}
	})
}
