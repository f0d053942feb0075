package spam

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"lazaret/internal/mail/header"
)

// spamd speaks SpamAssassin's protocol (spamd/PROTOCOL in its sources, version 1.5): one request a connection.
type spamd struct {
	cfg  Config
	dial func(ctx context.Context) (net.Conn, error)
}

// The bounds of a reply.
const (
	maxLine   = 8 << 10
	maxLines  = 50
	maxReply  = 256 << 10
	maxFields = 64 << 10
)

func (s *spamd) ask(ctx context.Context, m Message) (Result, error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = conn.Close() }() // the answer was read, or there is none
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r, err := s.talk(conn, m)
	if err != nil && ctx.Err() != nil {
		return Result{}, fmt.Errorf("no answer in time: %w", ctx.Err())
	}
	return r, err
}

func (s *spamd) talk(conn net.Conn, m Message) (Result, error) {
	req := fmt.Sprintf("%s SPAMC/1.5\r\nContent-length: %d\r\n", strings.ToUpper(s.cfg.Command), m.Body.Size())
	user := strings.ReplaceAll(s.cfg.User, "%USERNAME%", m.User)
	if u, ok := safe(user); ok && u != "" {
		req += "User: " + u + "\r\n"
	}
	sent := make(chan error, 1)
	go func() { // spamd may answer, and refuse, before it has read everything
		_, err := io.Copy(conn, io.MultiReader(strings.NewReader(req+"\r\n"), m.Body.NewReader()))
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		sent <- err
	}()
	r, err := readSpamd(bufio.NewReaderSize(io.LimitReader(conn, maxReply), maxLine), s.cfg.Command)
	if err != nil {
		_ = conn.Close() // ends the writing
	}
	if werr := <-sent; werr != nil && err == nil {
		return Result{}, fmt.Errorf("it answered before it had the whole mail: %w", werr)
	}
	return r, err
}

// safe says whether s may stand in a line of a request.
func safe(s string) (string, bool) {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return "", false
		}
	}
	return s, len(s) <= maxText
}

// readSpamd reads a reply.
func readSpamd(r *bufio.Reader, command string) (Result, error) {
	line, err := replyLine(r)
	if err != nil {
		return Result{}, err
	}
	f := strings.Fields(line)
	if len(f) < 3 || !strings.HasPrefix(f[0], "SPAMD/1.") {
		return Result{}, fmt.Errorf("this is no spamd: it said %.100q", line)
	}
	if f[1] != "0" {
		return Result{}, fmt.Errorf("it said %.100q", line)
	}
	var res Result
	length := int64(-1)
	for n := 0; ; n++ {
		if line, err = replyLine(r); err != nil {
			return Result{}, err
		}
		if line == "" {
			break
		}
		if n == maxLines {
			return Result{}, errors.New("the reply's header does not end")
		}
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "spam":
			if res, err = verdict(value); err != nil {
				return Result{}, err
			}
		case "content-length":
			if length, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64); err != nil || length < 0 {
				return Result{}, fmt.Errorf("the reply's length is %.50q", value)
			}
		}
	}
	if res.State == NotChecked {
		return Result{}, errors.New("the reply has no Spam field")
	}
	switch command {
	case commandSymbols:
		text, err := io.ReadAll(io.LimitReader(r, maxFields))
		if err == nil && length >= 0 && length < maxFields && int64(len(text)) != length {
			err = fmt.Errorf("the reply has %d bytes, not %d", len(text), length)
		}
		res.Symbols = symbols(strings.FieldsFunc(string(text), func(r rune) bool { return r == ',' || r <= ' ' }))
		return res, err
	case commandHeaders, commandProcess:
		res.fields, err = ownFields(r)
	}
	return res, err
}

// replyLine reads a line, without its end.
func replyLine(r *bufio.Reader) (string, error) {
	b, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", errors.New("the reply has a line that is too long")
	case errors.Is(err, io.EOF):
		return "", fmt.Errorf("the reply was cut off: %w", io.ErrUnexpectedEOF)
	case err != nil:
		return "", err
	}
	return string(bytes.TrimRight(b, "\r\n")), nil
}

// verdict reads "True ; 1000.0 / 5.0".
func verdict(value string) (Result, error) {
	is, scores, ok1 := strings.Cut(value, ";")
	score, required, ok2 := strings.Cut(scores, "/")
	var r Result
	var err1, err2 error
	r.Score, err1 = number(score)
	r.Required, err2 = number(required)
	switch strings.ToLower(strings.TrimSpace(is)) {
	case "true", "yes":
		r.State = Spam
	case "false", "no":
		r.State = Ham
	}
	if !ok1 || !ok2 || err1 != nil || err2 != nil || r.State == NotChecked {
		return Result{}, fmt.Errorf("it said %.100q, which is no verdict", value)
	}
	return r, nil
}

func number(s string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err == nil && (math.IsNaN(f) || math.Abs(f) > 1e6) {
		err = errors.New("no score")
	}
	return f, err
}

// maxSymbols and maxSymbol bound what is said of rules.
const (
	maxSymbols = 100
	maxSymbol  = 60
)

// symbols returns those names that may stand in a header.
func symbols(names []string) []string {
	var out []string
	for _, n := range names {
		n, ok := safe(n)
		if ok && n != "" && len(n) <= maxSymbol && !strings.ContainsAny(n, ",;=?\"<>()") && len(out) < maxSymbols {
			out = append(out, n)
		}
	}
	return out
}

// ownFields returns the X-Spam fields of the header that spamd sends back, with line ends made CRLF.
func ownFields(r *bufio.Reader) ([]byte, error) {
	var head []byte
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		bare := bytes.TrimRight(line, "\r\n")
		head = append(append(head, bare...), "\r\n"...)
		if len(bare) == 0 || err != nil || len(head) > maxReply {
			break
		}
	}
	var out []byte
	for _, f := range header.Parse(head).Fields {
		if strings.HasPrefix(f.Name, "x-spam-") && len(out)+len(f.Raw) <= maxFields && harmless(f.Raw) {
			out = append(out, f.Raw...)
		}
	}
	return out, nil
}

// harmless says whether a field may be put into a mail: printable, with lines of RFC 5322's length.
func harmless(raw []byte) bool {
	for line := range bytes.SplitSeq(bytes.TrimSuffix(raw, []byte("\r\n")), []byte("\r\n")) {
		if len(line) > 998 {
			return false
		}
		for _, c := range line {
			if c < ' ' && c != '\t' || c >= 0x7f {
				return false
			}
		}
	}
	return true
}
