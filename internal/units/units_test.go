package units

import (
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]Size{
		"0": 0, "1048576": MiB, "256 KiB": 256 * KiB, "1.5GiB": 1536 * MiB, " 10 MB ": 10_000_000, "4g": 4 * GiB, "2t": 2 * TiB,
	} {
		got, err := ParseSize(in)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "MiB", "-1", "1 XB", "1..2 MiB", "9e9", "99999999999 TiB", "1 MiB x"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", in, got)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"2s": 2 * time.Second, "500ms": 500 * time.Millisecond, "36h": 36 * time.Hour, "7d": 7 * 24 * time.Hour, "1h30m": 90 * time.Minute,
	} {
		got, err := ParseDuration(in)
		if err != nil || got.Std() != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "5", "-1s", "1 day", "-3d"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", in, got)
		}
	}
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	for _, z := range []Size{0, 1, KiB, 256 * KiB, 1536 * MiB, 4 * GiB, TiB} {
		if got, err := ParseSize(z.String()); err != nil || got != z {
			t.Errorf("%d is written %q and read %d, %v", z, z.String(), got, err)
		}
	}
	for _, d := range []time.Duration{0, time.Millisecond, 90 * time.Second, 5 * time.Minute, time.Hour, 36 * time.Hour, 48 * time.Hour} {
		if got, err := ParseDuration(Duration(d).String()); err != nil || got.Std() != d {
			t.Errorf("%v is written %q and read %v, %v", d, Duration(d), got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"256 KiB", "1.5GiB", "7d", "500ms", "-1", "1e9", "٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if z, err := ParseSize(s); err == nil && z < 0 {
			t.Errorf("ParseSize(%q) = %d", s, z)
		}
		if d, err := ParseDuration(s); err == nil && d < 0 {
			t.Errorf("ParseDuration(%q) = %v", s, d)
		}
	})
}
