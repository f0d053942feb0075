package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lazaret/internal/quarantine"
	"lazaret/internal/scan"

	"github.com/emersion/go-smtp"
)

// keepOriginals makes a quarantine of two entries under dir/kept, and their originals in dir.
func keepOriginals(ctx context.Context, dir string) error {
	cfg := quarantine.Default()
	cfg.MinFree = 0
	s, err := quarantine.Open(ctx, cfg, filepath.Join(dir, "kept", "quarantine"), quarantine.Options{Create: true})
	if err != nil {
		return err
	}
	defer s.Close()
	mail := append([]byte("From: a@example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe=1B?=\r\n\r\n"), scan.EICAR()...)
	for _, k := range []struct {
		file    string
		content []byte
		e       quarantine.Entry
	}{
		{"original.eml", mail, quarantine.Entry{
			ID: "MAIL-0001", Protocol: "pop3", Client: "192.0.2.7", User: "alice", Name: "message-1.eml", Type: "message/rfc822",
			Signature: "Eicar-Test-Signature", Engine: "clamd",
		}},
		{"original.exe", []byte("MZ"), quarantine.Entry{
			ID: "FILE-0002", Protocol: "https", Client: "2001:db8::7", URL: "https://u:p@example.org/x", Name: "a\x1b[31m.exe", Rule: "policy.rule.programs",
		}},
	} {
		k.e.Time, k.e.Size = time.Now(), int64(len(k.content))
		if k.e.Type != "" {
			k.e.DescribeMail(bytes.NewReader(k.content))
		}
		if _, err := s.Put(ctx, k.e, bytes.NewReader(k.content)); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, k.file), k.content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// mailServer takes mails by SMTP and forgets them.
type mailServer struct{}

func (mailServer) NewSession(*smtp.Conn) (smtp.Session, error) { return mailServer{}, nil }
func (mailServer) Reset()                                      {}
func (mailServer) Logout() error                               { return nil }
func (mailServer) Mail(string, *smtp.MailOptions) error        { return nil }
func (mailServer) Rcpt(string, *smtp.RcptOptions) error        { return nil }

func (mailServer) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func serveMail(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := smtp.NewServer(mailServer{})
	go s.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}
