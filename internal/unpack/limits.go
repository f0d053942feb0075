package unpack

import (
	"errors"
	"fmt"

	"lazaret/internal/units"
)

// Limits bounds what is unpacked. It is this package's part of the configuration. A field that is zero stands for the
// default's value, so that nothing is ever unbounded.
type Limits struct {
	Depth       int        `toml:"depth" doc:"how many archives inside each other are opened; beyond it the verdict is Incomplete (too deep)"`
	Parts       int        `toml:"parts" doc:"how many members of one object are unpacked, all levels together; beyond it the verdict is Incomplete (too many)"`
	Bytes       units.Size `toml:"bytes" doc:"how much one object may expand to, all members of all levels together; beyond it the verdict is Incomplete (too large)"`
	MemberBytes units.Size `toml:"member_bytes" doc:"how large one member, or one decoded HTTP body, may be; a larger one is not unpacked, the others are"`
	Ratio       int        `toml:"ratio" doc:"how many times its own size an object may expand to; beyond it, it is taken for a decompression bomb"`
	RatioFrom   units.Size `toml:"ratio_from" doc:"the ratio counts only when this much was unpacked: small files of zeros are no bombs"`
	Memory      units.Size `toml:"memory" doc:"memory for the dictionaries of the decoders (7z, RAR, xz, zstd, ...) that one object needs at a time; archives made with a larger dictionary are not opened"`
	TotalMemory units.Size `toml:"total_memory" doc:"memory for the windows and dictionaries of all decoders together, of HTTP's content codings (br, zstd, gzip) and of archives; beyond it they wait"`
}

// Default returns the settings that work without a file.
func Default() Limits {
	return Limits{
		Depth:       16,
		Parts:       10_000,
		Bytes:       4 * units.GiB,
		MemberBytes: 4 * units.GiB,
		Ratio:       1000,
		RatioFrom:   64 * units.MiB,
		Memory:      256 * units.MiB,
		TotalMemory: 256 * units.MiB,
	}
}

// minMemory is what the smallest of the decoders needs.
const minMemory = 8 * units.MiB

// minTotalMemory is what leaves decoders of bodies objectMemory, in their share.
const minTotalMemory = 96 * units.MiB

// Validate returns what cannot be used in l, one error for each key, each beginning with the key's name and a colon.
func (l Limits) Validate() error {
	var errs []error
	for _, c := range []struct {
		key string
		n   int64
	}{
		{"depth", int64(l.Depth)},
		{"parts", int64(l.Parts)},
		{"bytes", int64(l.Bytes)},
		{"member_bytes", int64(l.MemberBytes)},
		{"ratio", int64(l.Ratio)},
		{"ratio_from", int64(l.RatioFrom)},
	} {
		if c.n <= 0 {
			errs = append(errs, fmt.Errorf("%s: must be greater than zero; raise it to open more, but never to nothing", c.key))
		}
	}
	if l.Depth > maxDepth {
		errs = append(errs, fmt.Errorf("depth: %d is more than can be opened; write %d or less", l.Depth, maxDepth))
	}
	if l.Memory < minMemory {
		errs = append(errs, fmt.Errorf("memory: %v is too little for the common formats; write %v or more", l.Memory, minMemory))
	}
	if l.TotalMemory < max(l.Memory, minTotalMemory) {
		errs = append(errs, fmt.Errorf("total_memory: %v is less than what one object may need; write %v or more", l.TotalMemory, max(l.Memory, minTotalMemory)))
	}
	return errors.Join(errs...)
}

// maxDepth bounds the recursion itself, and the open blobs that it holds.
const maxDepth = 100

// orDefault replaces what is not set.
func (l Limits) orDefault() Limits {
	d := Default()
	fill(&l.Depth, d.Depth)
	fill(&l.Parts, d.Parts)
	fill(&l.Bytes, d.Bytes)
	fill(&l.MemberBytes, d.MemberBytes)
	fill(&l.Ratio, d.Ratio)
	fill(&l.RatioFrom, d.RatioFrom)
	fill(&l.Memory, d.Memory)
	fill(&l.TotalMemory, d.TotalMemory)
	l.Depth = min(l.Depth, maxDepth)
	return l
}

func fill[T int | units.Size](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// isBomb says whether out bytes from in bytes are more than the ratio allows.
func (l Limits) isBomb(out, in int64) bool {
	return out > int64(l.RatioFrom) && out/int64(l.Ratio) > in
}
