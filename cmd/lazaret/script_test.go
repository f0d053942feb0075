package main

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lazaret/internal/scan"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lazaret": func() { os.Exit(lazaretMain()) }})
}

// TestScripts runs the command as its users do; see testdata/script. Each script finds eicar.com, eicar.zip, eicar.com.gz,
// eicar.eml and clean.zip in its folder, and a quarantine in kept; the files are made here because no file of the repository is to hold EICAR.
func TestScripts(t *testing.T) {
	smtp := serveMail(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("SMTP", smtp)
			if err := keepOriginals(t.Context(), e.WorkDir); err != nil {
				return err
			}
			for name, content := range map[string][]byte{
				"eicar.com":    scan.EICAR(),
				"eicar.zip":    zipOf(t, "eicar.com", scan.EICAR()),
				"eicar.com.gz": gzipOf(t, scan.EICAR()),
				"eicar.eml":    oddMail(),
				"clean.zip":    zipOf(t, "readme.txt", []byte("nothing to see")),
			} {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), content, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// oddMail returns a mail that does not begin as one, with EICAR attached.
func oddMail() []byte {
	return []byte("X-Filler: " + strings.Repeat("a", 10_000) + "\nContent-Type: multipart/mixed; boundary=XX\n\n--XX\n" +
		"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString(scan.EICAR()) + "\n--XX--\n")
}

func zipOf(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
