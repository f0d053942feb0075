package admin

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/policy"
	"lazaret/internal/scan"

	"golang.org/x/net/html"
)

// outline returns the elements with the names of their attributes, and the text of a page.
func outline(t *testing.T, page string) (elements []string, text string) {
	t.Helper()
	void := []string{"meta", "br"}
	var open []string
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		switch z.Next() {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("not closed: %v", open)
			}
			return elements, text
		case html.StartTagToken, html.SelfClosingTagToken:
			tok := z.Token()
			s := tok.Data
			for _, a := range tok.Attr {
				s += " " + a.Key
			}
			elements = append(elements, s)
			if !slices.Contains(void, tok.Data) {
				open = append(open, tok.Data)
			}
		case html.EndTagToken:
			name := z.Token().Data
			if len(open) == 0 || open[len(open)-1] != name {
				t.Errorf("</%s> closes %v", name, open)
				return elements, text
			}
			open = open[:len(open)-1]
		case html.TextToken:
			text += z.Token().Data
		}
	}
}

func TestPageEscapesEverything(t *testing.T) {
	show := func(x string) ([]string, string) {
		src := sources(t)
		src.Version = x
		ca := authority(t, x, time.Now().Add(time.Hour))
		src.CA = func() *x509.Certificate { return ca }
		src.Scanners = func() []audit.ScannerStatus {
			return []audit.ScannerStatus{{Name: x, Address: x, Problem: x, Up: true, Version: scan.Version{Engine: x, Signatures: x}}}
		}
		src.Ready = func(context.Context) []string { return []string{x} }
		l := src.Records.(*audit.Log)
		for _, e := range []audit.Event{audit.Object, audit.Exempt, audit.Refuse} {
			l.Record(audit.Record{
				Event: e, Kind: x, Reference: x, Detail: x, Facts: policy.Facts{Host: x, URL: x, User: x},
				Verdict: scan.InfectedVerdict(x, x, x),
			})
		}
		l.Record(audit.Record{Event: audit.Object, Facts: policy.Facts{Host: x}, Verdict: scan.Verdict{Reason: scan.Reason(x)}})
		res, body := get(server(t, Default(), src), http.MethodGet, "127.0.0.1", insider, "/")
		if res.StatusCode != http.StatusOK {
			t.Fatalf("status %d", res.StatusCode)
		}
		_, rest, _ := strings.Cut(res.Header.Get("Content-Security-Policy"), "'nonce-")
		nonce, _, _ := strings.Cut(rest, "'")
		if len(nonce) != 32 || strings.Count(body, `<style nonce="`+nonce+`">`) != 1 {
			t.Errorf("nonce %q is not that of the page", nonce)
		}
		return outline(t, body)
	}
	want, text := show("harmless")
	if len(want) < 100 || strings.Count(text, "harmless") < 15 {
		t.Fatalf("%d elements, %d values: there is nothing to look at", len(want), strings.Count(text, "harmless"))
	}
	for _, x := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</td></table><iframe src=//evil>`, `' onclick='alert(1)`, `{{.}}`,
		`</style><script>`, `<!--`,
	} {
		got, text := show(x)
		if !slices.Equal(got, want) {
			t.Errorf("%q changes the page", x)
		}
		if strings.Count(text, x) < 15 {
			t.Errorf("%q is shown %d times: there is nothing to look at", x, strings.Count(text, x))
		}
	}
	if _, text := show("a\u202eb\x1bc"); strings.ContainsAny(text, "\u202e\x1b") || !strings.Contains(text, `a\u202eb\u001bc`) {
		t.Error("deceptive characters are shown as they are")
	}
}

func TestPageShowsTheState(t *testing.T) {
	src := sources(t)
	l := src.Records.(*audit.Log)
	l.Record(audit.Record{
		Event: audit.Object, Reference: "4FJ2-9QX0-K7", Facts: policy.Facts{URL: "http://h.example/x", Client: netip.MustParseAddr("192.0.2.9")},
		Verdict: scan.InfectedVerdict("clamd", "Eicar", ""), Size: 4096,
	})
	s := server(t, Default(), src)
	_, body := get(s, http.MethodGet, "127.0.0.1:8128", insider, "/")
	for _, want := range []string{
		">Ready<", "1.2.3", "clamd", "ClamAV 1.4.3", "27453", "2 days ago", "2 KiB in memory, 3 MiB on disk", "<strong>1</strong> objects judged",
		"4 KiB", "Eicar", "http://h.example/x", "192.0.2.9", "4FJ2-9QX0-K7", "infected, block", "Lazaret CA of gw", fingerprint(src.CA()),
		"127.0.0.1:3128", "http://127.0.0.1:8128/proxy.pac", "/ca.mobileconfig",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "in the future", 0: "just now", time.Minute: "1 minute ago", 90 * time.Minute: "1 hour ago",
		47 * time.Hour: "1 day ago", 2000 * 24 * time.Hour: "2000 days ago",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %q, want %q", d, got, want)
		}
	}
}
