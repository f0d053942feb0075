package attachment

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"lazaret/internal/unpack"
)

// TestEditingTakesNoDecodersMemory has mails edited and judged while decoders have none: nobody is kept waiting with a mail, and none
// is deferred, because archives are unpacked elsewhere. What undoes more here than base64 and its like has to take part in decision 16.
func TestEditingTakesNoDecodersMemory(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(program())
	_ = w.Close()
	unpack.Memory().Resize(0)
	t.Cleanup(func() { unpack.Memory().Resize(unpack.Default().TotalMemory) })
	d, err := unpack.NewDecoder(bytes.NewReader(z.Bytes()), []string{"gzip"}, unpack.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(d); err == nil {
		t.Fatal("there is memory: the test sees nothing")
	}
	for name, fields := range map[string]string{"clear": "", "read in several ways": "Content-Type: text/plain\r\n"} {
		packed := mixed(attached("a.gz")+fields, wrapped(z.Bytes()))
		if got := apply(t, Config{Strip: programs}, packed); got.text != packed {
			t.Errorf("%s: %+v", name, got.Outcome)
		}
		if got := apply(t, Config{Replace: programs}, mixed(attached("a.exe")+fields, wrapped(program()))); got.Replace == nil {
			t.Errorf("%s: %+v", name, got.Outcome)
		}
		page := strings.Replace(packed, "text/plain\r\n\r\nHello", "text/html\r\n\r\n<script>a</script>", 1)
		if d, out := disarmed(t, disarmActive, page); strings.Contains(out, "script") || d.Parts == 0 && d.Body != nil {
			t.Errorf("%s: %+v %s", name, d, out)
		}
	}
}
