package spam

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"lazaret/internal/mail/header"
	"lazaret/internal/spool"
)

// edit replaces the bytes from start to end.
type edit struct {
	start, end int
	text       string
}

// Mark returns b, or another blob with r's marks in the header, which the caller closes. New fields are put in at the offset
// at, which is where a field begins, and nothing before it is changed. X-Spam fields that the mail came with are taken out of
// a mail that gets some: somebody else wrote them. The body is never changed. On an error b is to be delivered as it is.
func (c *Checker) Mark(pool *spool.Pool, b *spool.Blob, r Result, at int) (*spool.Blob, error) {
	if c == nil || r.State == NotChecked || c.cfg.Mark == markNone && (c.cfg.Subject == "" || r.State != Spam) || r.State == Ham && c.cfg.Mark != markAll {
		return b, nil
	}
	head, h, err := headOf(b)
	if err != nil {
		return b, err
	}
	if h.Body < 0 && (b.Size() > maxHeader || h.Odd) { // a header may be all that there is of a mail (RFC 5322, 3.5)
		return b, errors.New("the mail has no end of its header within 1 MiB, and is not marked")
	}
	if at > len(head) {
		return b, fmt.Errorf("fields at %d, behind the header", at)
	}
	added := ""
	if c.cfg.Mark != markNone {
		added = string(r.fields)
		if added == "" {
			added = r.own()
		}
	}
	edits := c.edits(h, r, at, added)
	return rewrite(pool, b, edits)
}

func (c *Checker) edits(h header.Header, r Result, at int, added string) []edit {
	var edits []edit
	subjects := 0
	for _, f := range h.Fields {
		switch {
		case f.Start < at:
		case strings.HasPrefix(f.Name, "x-spam-") && added != "" && !h.Odd:
			edits = append(edits, edit{f.Start, f.End, ""})
		case f.Name == "subject" && r.State == Spam && c.cfg.Subject != "":
			subjects++
			colon := f.Start + bytes.IndexByte(f.Raw, ':') + 1
			edits = append(edits, edit{colon, colon, " " + header.Encode(c.cfg.Subject)})
			if f.Raw[colon-f.Start] != ' ' && f.Raw[colon-f.Start] != '\t' {
				edits[len(edits)-1].text += " "
			}
		}
	}
	if subjects == 0 && r.State == Spam && c.cfg.Subject != "" {
		added += "Subject: " + header.Encode(c.cfg.Subject) + "\r\n"
	}
	edits = append(edits, edit{at, at, added})
	slices.SortStableFunc(edits, func(a, b edit) int { return a.start - b.start })
	return edits
}

// rewrite returns b with the edits, which are in their order and do not overlap.
func rewrite(pool *spool.Pool, b *spool.Blob, edits []edit) (*spool.Blob, error) {
	w := pool.New()
	defer w.Discard()
	w.Expect(b.Size() + 1024)
	last := 0
	for _, e := range edits {
		if _, err := io.Copy(w, io.NewSectionReader(b, int64(last), int64(e.start-last))); err != nil {
			return b, err
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			return b, err
		}
		last = e.end
	}
	if _, err := io.Copy(w, io.NewSectionReader(b, int64(last), b.Size()-int64(last))); err != nil {
		return b, err
	}
	out, err := w.Seal()
	if err != nil {
		return b, err
	}
	return out, nil
}

// own returns the fields that say r, as SpamAssassin has them.
func (r Result) own() string {
	word, flag := "No", "NO"
	if r.State == Spam {
		word, flag = "Yes", "YES"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "X-Spam-Flag: %s\r\nX-Spam-Score: %.1f\r\n", flag, r.Score)
	if n := min(int(r.Score), 50); n > 0 {
		b.WriteString("X-Spam-Level: " + strings.Repeat("*", n) + "\r\n")
	}
	fmt.Fprintf(&b, "X-Spam-Status: %s, score=%.1f required=%.1f", word, r.Score, r.Required)
	for i, s := range r.Symbols {
		if i == 0 {
			b.WriteString("\r\n\ttests=" + s)
			continue
		}
		b.WriteString(",\r\n\t" + s)
	}
	b.WriteString("\r\n")
	return b.String()
}
