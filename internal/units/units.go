// Package units holds the value types that settings are written in: sizes and durations as people write them.
//
// Both implement encoding.TextUnmarshaler and encoding.TextMarshaler, so that a settings file says "256 KiB" or "2s"
// and the program has a number.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes.
type Size int64

// The multiples that a Size is written with.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

var sizeUnits = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "kib": 1 << 10, "kb": 1e3,
	"m": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gib": 1 << 30, "gb": 1e9,
	"t": 1 << 40, "tib": 1 << 40, "tb": 1e12,
}

// ParseSize reads "1048576", "256 KiB", "1.5GiB", "10 MB". KiB, MiB, GiB and TiB, and the bare letters k, m, g and t, are
// powers of 1024; KB, MB, GB and TB are powers of 1000. It returns an error for anything else, negatives included.
func ParseSize(s string) (Size, error) {
	t := strings.TrimSpace(s)
	cut := strings.IndexFunc(t, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if cut < 0 {
		cut = len(t)
	}
	mul, ok := sizeUnits[strings.ToLower(strings.TrimSpace(t[cut:]))]
	if !ok || cut == 0 {
		return 0, fmt.Errorf("%q is not a size: write a number and a unit, such as \"256 KiB\" or \"1.5 GiB\"", s)
	}
	n, err := strconv.ParseFloat(t[:cut], 64)
	if err != nil || n*mul >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size: the number cannot be used", s)
	}
	return Size(n * mul), nil
}

// UnmarshalText implements encoding.TextUnmarshaler by ParseSize.
func (z *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	if err != nil {
		return err
	}
	*z = v
	return nil
}

// MarshalText implements encoding.TextMarshaler by String.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

// String writes the size in the largest binary unit that divides it, or else with one decimal.
func (z Size) String() string {
	for _, u := range []struct {
		n    Size
		name string
	}{{TiB, "TiB"}, {GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}} {
		if z >= u.n && z%u.n == 0 {
			return strconv.FormatInt(int64(z/u.n), 10) + " " + u.name
		}
		if z >= u.n*10 {
			return strconv.FormatFloat(float64(z)/float64(u.n), 'f', 1, 64) + " " + u.name
		}
	}
	return strconv.FormatInt(int64(z), 10)
}

// Duration is a time.Duration that a settings file writes as "2s", "500ms", "36h" or "7d".
type Duration time.Duration

// ParseDuration reads what time.ParseDuration reads, and whole days as "7d". It returns an error for anything else,
// negatives included.
func ParseDuration(s string) (Duration, error) {
	t := strings.TrimSpace(s)
	if days, ok := strings.CutSuffix(t, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return Duration(time.Duration(n) * 24 * time.Hour), nil
		}
	}
	d, err := time.ParseDuration(t)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration: write a number and a unit, such as \"500ms\", \"2s\", \"5m\", \"36h\" or \"7d\"", s)
	}
	return Duration(d), nil
}

// UnmarshalText implements encoding.TextUnmarshaler by ParseDuration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// MarshalText implements encoding.TextMarshaler by String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes whole days as "7d", and everything else as time.Duration does without trailing zero units.
func (d Duration) String() string {
	t := time.Duration(d)
	if t >= 24*time.Hour && t%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(t/(24*time.Hour)), 10) + "d"
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}
