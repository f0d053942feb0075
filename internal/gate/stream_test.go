package gate

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// readStream returns what comes of r as a stream of that kind, a byte at a time where slowly, and why it was stopped.
func readStream(t *testing.T, f *fixture, kind string, r io.Reader) (string, *Stopped) {
	t.Helper()
	b, err := io.ReadAll(f.Stream(t.Context(), policy.Facts{}, kind, kind, r))
	var stopped *Stopped
	if err != nil && !errors.As(err, &stopped) {
		t.Fatal(err)
	}
	return string(b), stopped
}

// TestArchiveInAStreamIsStopped has an archive pass for a stream: a window of it shows no engine what the archive holds.
func TestArchiveInAStreamIsStopped(t *testing.T) {
	eicar := string(scan.EICAR())
	inZip, inGzip := zipOf(t, "a.com", eicar), string(gzipped(t, scan.EICAR()))
	for _, kind := range []string{"event-stream", "mixed-replace"} {
		for name, body := range map[string]string{"zip": inZip, "gzip": inGzip, "zip behind an event": "data: x\n\n" + inZip} {
			f := newFixture(t, nil)
			got, stopped := readStream(t, f, kind, strings.NewReader(body))
			if stopped == nil || got != "" || stopped.Notice.Verdict.Outcome != scan.Infected {
				t.Errorf("%s as %s: %d bytes came, %+v", name, kind, len(got), stopped)
			}
		}
	}
}

// TestEventStreamThatIsNotTextIsStopped has no virus in it that a window could show.
func TestEventStreamThatIsNotTextIsStopped(t *testing.T) {
	for name, body := range map[string]string{
		"zero byte": "data: \x00\n\n", "gzip": "\x1f\x8b\x08", "Latin-1": "data: caf\xe9 \n\n", "broken in the middle": "data: \xe2\x82x\n\n",
	} {
		for _, slow := range []bool{false, true} {
			f := newFixture(t, nil)
			r := io.Reader(strings.NewReader(body))
			if slow {
				r = iotest.OneByteReader(r)
			}
			_, stopped := readStream(t, f, "event-stream", r)
			if stopped == nil || stopped.Notice.Verdict.Reason != scan.Undecodable {
				t.Errorf("%s: stopped is %+v", name, stopped)
			}
			if _, stopped := readStream(t, f, "media", strings.NewReader(body)); stopped != nil {
				t.Errorf("%s as a stream that is binary: %+v", name, stopped)
			}
		}
	}
}

func TestEventStreamOfAnyTextPasses(t *testing.T) {
	text := "\ufeffdata: pâté, 日本語, \U0001f600 \ufffd\t\x1b[1m\n\n"
	for name, r := range map[string]io.Reader{
		"at once": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text)),
	} {
		if got, stopped := readStream(t, newFixture(t, nil), "event-stream", r); stopped != nil || got != text {
			t.Errorf("%s: %q, %+v", name, got, stopped)
		}
	}
}
