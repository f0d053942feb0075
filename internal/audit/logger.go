package audit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// NewLogger returns the service's logger and the Output behind it, which the caller closes at the end. Lines go to the
// configured file, or else to w: as text where that is a terminal, as JSON otherwise, unless the format is configured.
//
// Nothing that is logged can forge a line or move a terminal's cursor: control characters, and others that do not show,
// are escaped. The logger never waits for w for long: see Output. An error says what is wrong with the settings, or that
// the file cannot be opened.
func NewLogger(w io.Writer, cfg Config) (*slog.Logger, *Output, error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	var reopen func() (io.WriteCloser, error)
	if cfg.File != "" {
		reopen = func() (io.WriteCloser, error) {
			f, err := os.OpenFile(cfg.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				return nil, fmt.Errorf("file: the log cannot be opened: %w", err)
			}
			return f, nil
		}
		f, err := reopen()
		if err != nil {
			return nil, nil, err
		}
		w = f
	}
	out := newOutput(w, reopen, &overflow{path: cfg.Overflow, limit: int64(cfg.MaxOverflow)})
	h := newHandler(out, cfg.Format == "text" || (cfg.Format == "auto" && isTerminal(w)), levels[cfg.Level])
	out.setResumed(h.resumed)
	return slog.New(h), out, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// cleanKey marks in a context that a record is about a clean object.
type cleanKey struct{}

var cleanContext = context.WithValue(context.Background(), cleanKey{}, true)

// handler formats records by slog's own handlers, and gives the lines to an Output.
type handler struct {
	inner slog.Handler
	line  *lineBuffer
	out   *Output
}

// lineBuffer is what the inner handlers write to, one record at a time.
type lineBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	json bool
}

func newHandler(out *Output, text bool, level slog.Level) *handler {
	line := &lineBuffer{json: !text}
	opts := &slog.HandlerOptions{Level: level}
	var inner slog.Handler = slog.NewJSONHandler(&line.buf, opts)
	if text {
		inner = slog.NewTextHandler(&line.buf, opts)
	}
	return &handler{inner: inner, line: line, out: out}
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(ctx context.Context, l slog.Level) bool { return h.inner.Enabled(ctx, l) }

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{inner: h.inner.WithAttrs(attrs), line: h.line, out: h.out}
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{inner: h.inner.WithGroup(name), line: h.line, out: h.out}
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	line, err := h.format(ctx, r)
	if err != nil {
		return err
	}
	clean, _ := ctx.Value(cleanKey{}).(bool)
	h.out.put(line, clean)
	return nil
}

func (h *handler) format(ctx context.Context, r slog.Record) ([]byte, error) {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.line.buf.Reset()
	if err := h.inner.Handle(ctx, r); err != nil {
		return nil, err
	}
	if h.line.json {
		return escapeUnseen(h.line.buf.Bytes()), nil
	}
	return bytes.Clone(h.line.buf.Bytes()), nil // the text handler quotes what does not print
}

// resumed returns the line that tells about a stall that is over.
func (h *handler) resumed(s OutputStatus) []byte {
	r := slog.NewRecord(time.Now(), slog.LevelError, "the log takes lines again; meanwhile lines went to the overflow file", 0)
	r.AddAttrs(slog.String("file", h.out.overflow.path), slog.Uint64("overflowed", s.Overflowed),
		slog.Uint64("lost_clean", s.LostClean), slog.Uint64("lost", s.Lost))
	if !s.Since.IsZero() {
		r.AddAttrs(slog.Time("since", s.Since))
	}
	line, err := h.format(context.Background(), r)
	if err != nil {
		return nil
	}
	return line
}

// escapeUnseen returns a copy of one line of JSON in which what JSON allows but a terminal obeys is escaped: DEL, the C1
// controls, directional and zero-width characters. They can only be inside strings, so the meaning stays the same.
func escapeUnseen(line []byte) []byte {
	out := make([]byte, 0, len(line)+16)
	i := slices.IndexFunc(line, func(b byte) bool { return b >= 0x7f })
	if i < 0 {
		return append(out, line...)
	}
	out = append(out, line[:i]...)
	for i < len(line) {
		if line[i] < 0x7f {
			out = append(out, line[i])
			i++
			continue
		}
		r, n := utf8.DecodeRune(line[i:])
		switch {
		case unicode.IsPrint(r):
			out = append(out, line[i:i+n]...)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		i += n
	}
	return out
}
