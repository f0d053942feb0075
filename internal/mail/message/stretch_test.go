package message

import (
	"slices"
	"strings"
	"testing"

	"lazaret/internal/content"
)

// TestMoreBodiesThanAreRead: it is told, and what comes behind is still looked at.
func TestMoreBodiesThanAreRead(t *testing.T) {
	part := "--!\nContent-Transfer-Encoding: base64\n\nQUJD\n"
	for n, want := range map[int]bool{3: false, maxBodies - 2: false, maxBodies + 2: true, 1000: true} {
		_, bodies, problems := readings(t, crlf(top+"\n"+strings.Repeat(part, n)+secret+"\n"))
		told := slices.ContainsFunc(problems, func(p content.Problem) bool { return p.Kind == content.TooMany })
		if told != want || !want && len(problems) > 0 {
			t.Errorf("%d bodies: %v", n, problems)
		}
		if !slices.ContainsFunc(bodies, func(b string) bool { return strings.Contains(b, secret) }) {
			t.Errorf("%d bodies: the end was not looked at", n)
		}
	}
}

// TestOrdinaryMailIsNotReadAgain: no line of dashes in a text, no mail in a mail and no nested multipart makes more readings of it.
func TestOrdinaryMailIsNotReadAgain(t *testing.T) {
	inner := top + "Content-Type: multipart/alternative;\n boundary=\"YY\"\nContent-Transfer-Encoding: 7bit\n\n--YY\nContent-Type: text/plain\n\nHello\n-----Original Message-----\n" +
		"> text\n--YY\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" + coded(strings.Repeat("abcd ", 100)) + "--YY--\n"
	parts, _, problems := readings(t, crlf(top+"Content-Type: multipart/mixed; boundary=\"XX\"\n\nThis is MIME.\n--XX\nContent-Type: message/rfc822\n\n"+inner+
		"\n--XX\n"+strings.TrimPrefix(inner, top)+"\n--XX--\n"))
	if len(problems) > 0 {
		t.Error(problems)
	}
	for _, p := range parts {
		if strings.Contains(p.Path, "as one") {
			t.Errorf("%s (%d bytes)", p.Path, p.Blob.Size())
		}
	}
}
