package content

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"lazaret/internal/spool"
)

// formMin is how long a field of a form has to be to hold anything.
const formMin = 24

// form emits the value of each field of a form (application/x-www-form-urlencoded, WHATWG URL 5.1) as the application behind it reads it.
func (f *finder) form(b *spool.Blob, mediaType string) error {
	if strings.TrimSpace(mediaType) != "application/x-www-form-urlencoded" {
		return nil
	}
	r := bufio.NewReaderSize(b.NewReader(), 32<<10)
	v := value{f: f, w: f.Writer()}
	defer func() { v.w.Discard() }()
	named := false
	for fields := 1; ; {
		c, err := r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return v.end(fields)
		case err != nil:
			return err
		case c == '&':
			if err := v.end(fields); err != nil {
				return err
			}
			named = false
			fields++
		case c == '=' && !named: // what came so far was its name
			v.drop()
			named = true
		case c == '+':
			v.add(' ')
		case c == '%':
			if two, err := r.Peek(2); err == nil {
				high, ok1 := hexDigit(two[0])
				if low, ok2 := hexDigit(two[1]); ok1 && ok2 {
					c = high<<4 | low
					_, _ = r.Discard(2) // they were seen
				}
			}
			v.add(c)
		default:
			v.add(c)
		}
	}
}

// value is that of one field.
type value struct {
	f   *finder
	w   *spool.Writer
	buf []byte // comes behind what is in w
}

func (v *value) add(c byte) {
	if v.buf = append(v.buf, c); len(v.buf) >= 16<<10 {
		v.flush()
	}
}

func (v *value) flush() {
	_, _ = v.w.Write(v.buf) // Emit reports what a Writer could not take
	v.buf = v.buf[:0]
}

func (v *value) drop() {
	v.buf = v.buf[:0]
	if v.w.Size() > 0 {
		v.w.Discard()
		v.w = v.f.Writer()
	}
}

// end emits the value, and begins the next one.
func (v *value) end(field int) error {
	if v.w.Size()+int64(len(v.buf)) < formMin {
		v.drop()
		return nil
	}
	v.flush()
	w := v.w
	v.w = v.f.Writer()
	return v.f.Emit(w, fmt.Sprintf("field %d", field), "", nil)
}
