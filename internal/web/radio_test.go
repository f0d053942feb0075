package web

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"lazaret/internal/notice"
	"lazaret/internal/scan"
)

// airtime returns so many frames of MPEG audio, 128 kbit/s at 44.1 kHz, with something within the tenth.
func airtime(frames int, within []byte) []byte {
	const size = 417
	r := rand.New(rand.NewPCG(7, 8))
	b := make([]byte, frames*size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for i := range frames {
		copy(b[i*size:], "\xff\xfb\x90\x44")
	}
	if frames > 9 {
		copy(b[9*size+10:], within)
	}
	return b
}

// radio sends the first part of what it has at once, and the second when it is told to.
func radio(header []string, first, second []byte, next chan bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "audio/mpeg")
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		_, _ = w.Write(first)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-next:
			_, _ = w.Write(second)
		case <-r.Context().Done():
		}
	}
}

func TestRadioIsHeardAsItComes(t *testing.T) {
	r := newRig(t)
	first, second := airtime(100, nil)[200:], airtime(50, nil)
	next := make(chan bool)
	for _, u := range []string{r.origin(radio(nil, first, second, next)).URL, r.tlsOrigin(radio([]string{"Icy-Name", "x"}, first, second, next)).URL} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(first))
		if _, err := io.ReadFull(resp.Body, got); err != nil || !bytes.Equal(got, first) || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%v, the same %v, %v", err, bytes.Equal(got, first), resp.Header)
		}
		next <- true // what came before has arrived
		if rest, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(rest, second) {
			t.Errorf("%d bytes at the end, %v", len(rest), err)
		}
		resp.Body.Close()
	}
	r.audit.wait(t, "the stream", exempted(listening))
}

// zipped returns an archive, stored, of something that no engine knows.
func zipped(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.CreateHeader(&zip.FileHeader{Name: "a.com"})
	if err == nil {
		_, err = w.Write([]byte("something"))
	}
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestVirusInRadioIsCutOff(t *testing.T) {
	for name, second := range map[string][]byte{
		"a virus":        airtime(50, scan.EICAR()),
		"an archive":     airtime(50, zipped(t)),
		"another file":   append(airtime(4, nil), bytes.Repeat([]byte("this is no music. "), 2000)...),
		"between frames": append(airtime(4, nil), scan.EICAR()...),
	} {
		r := newRig(t)
		next := make(chan bool, 1)
		next <- true
		u := r.origin(radio(nil, airtime(20, nil), second, next)).URL
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil || bytes.Contains(got, scan.EICAR()[20:40]) || bytes.Contains(got, []byte("PK\x03\x04")) || bytes.Count(got, []byte("music")) > 1000 {
			t.Errorf("%s: %d bytes came, %v", name, len(got), err)
		}
	}
}

// TestWhatIsCalledAudioAndIsNotIsHeld has files pass for radio, and audio that is a file.
func TestWhatIsCalledAudioAndIsNotIsHeld(t *testing.T) {
	next := make(chan bool, 1)
	long := append([]byte(strings.Repeat("no music at all, ", 10_000)), scan.EICAR()...)
	music := airtime(200, nil)
	for name, x := range map[string]struct {
		header        []string
		first, second []byte
	}{
		"another file":                   {nil, long, nil},
		"a short one":                    {nil, scan.EICAR(), nil},
		"behind frames":                  {nil, append(airtime(2, nil), scan.EICAR()...), nil},
		"a file of audio":                {[]string{"Etag", `"1"`}, music, scan.EICAR()},
		"one with a date":                {[]string{"Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT"}, music, scan.EICAR()},
		"one to be saved":                {[]string{"Content-Disposition", "attachment"}, music, scan.EICAR()},
		"one with a length":              {[]string{"Content-Length", fmt.Sprint(len(music) + len(scan.EICAR()))}, music, scan.EICAR()},
		"one that has parts":             {[]string{"Accept-Ranges", "bytes"}, music, scan.EICAR()},
		"of a kind that is not followed": {[]string{"Content-Type", "audio/flac"}, music, scan.EICAR()},
	} {
		r := newRig(t)
		next <- true
		resp, body := get(t, r.client(), r.origin(radio(x.header, x.first, x.second, next)).URL)
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s:", name)
		}
		wantPage(t, resp, body, 403, notice.Infected)
	}
}

func TestShortAudioIsHeld(t *testing.T) {
	r := newRig(t)
	next := make(chan bool, 1)
	next <- true
	clip := airtime(8, nil)
	resp, body := get(t, r.client(), r.origin(radio(nil, clip, nil, next)).URL)
	if resp.StatusCode != http.StatusOK || body != string(clip) {
		t.Errorf("%s, %d bytes of %d", resp.Status, len(body), len(clip))
	}
}
