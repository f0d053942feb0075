package intercept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"lazaret/internal/relay"

	"golang.org/x/crypto/cryptobyte"
)

// The bounds of what is read before it is known what the client speaks. A ClientHello with post-quantum key shares has
// about 2 KiB, and session tickets seldom make it longer than 8.
const (
	maxHello   = 64 << 10
	recordHead = 5
	maxRecord  = 16 << 10 // of plaintext (RFC 8446, 5.1)
	maxTickets = 5        // as many as crypto/tls looks at
)

// TLS's numbers (RFC 8446 and RFC 5246).
const (
	recordHandshake    = 22
	typeClientHello    = 1
	extServerName      = 0
	extALPN            = 16
	extSessionTicket   = 35
	extPreSharedKey    = 41
	serverNameHost     = 0
	sslv2ClientHello   = 0x80
	maxExtensionsCount = 256
)

// clientHello is what is looked at in a ClientHello (RFC 8446, 4.1.2).
type clientHello struct {
	serverName string   // as sent; empty: none was
	alpn       []string // in the client's order; nil: none was sent
	tickets    [][]byte // what may be a session ticket of ours: of TLS 1.2, or the identities of TLS 1.3
}

// opening is the first thing that a client sent.
type opening struct {
	hello *clientHello // nil: not TLS
	http  bool         // a request of HTTP/1 or the preface of HTTP/2, without TLS
	conn  net.Conn     // the client's connection with everything put back
	near  bool         // neither, but a lenient server might take it for one of them; known where others are tunnelled
	head  []byte       // the first bytes, for the log
}

// clientError is an end of the client's making, or of its connection: there is nobody to show a page to.
type clientError struct {
	what   string
	err    error
	silent bool // nothing came in time
}

func (e *clientError) Error() string {
	if e.err == nil {
		return e.what
	}
	return e.what + ": " + e.err.Error()
}
func (e *clientError) Unwrap() error { return e.err }

// errNotHello says that TLS was begun with something that is no ClientHello, or a broken one.
var errNotHello = errors.New("not a valid TLS ClientHello")

// readOpening reads what a client sends first, at most until timeout, and puts it back. Only the bytes that are needed are
// read: the ClientHello, over however many records and segments it is spread, or as much as tells HTTP from other things,
// and with others what is like it from what is not.
func readOpening(ctx context.Context, client net.Conn, timeout time.Duration, others bool) (*opening, error) {
	stop := context.AfterFunc(ctx, func() { _ = client.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := client.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, &clientError{what: "the connection is gone", err: err}
	}
	r := &recorder{c: client, others: others}
	o, err := r.opening()
	if err != nil {
		var ne net.Error
		switch {
		case errors.As(err, &ne) && ne.Timeout() && len(r.read) == 0:
			err = &clientError{fmt.Sprintf("the client sent nothing for %v", timeout), err, true}
		case errors.As(err, &ne) && ne.Timeout():
			err = &clientError{what: fmt.Sprintf("the client did not finish its first message within %v (%d bytes came)", timeout, len(r.read)), err: err}
		case errors.Is(err, io.EOF):
			err = &clientError{what: fmt.Sprintf("the client went away during its first message (%d bytes came)", len(r.read)), err: err}
		}
		return nil, err
	}
	if !stop() && ctx.Err() != nil {
		return nil, &clientError{what: "given up", err: context.Cause(ctx)}
	}
	if err := client.SetReadDeadline(time.Time{}); err != nil {
		return nil, &clientError{what: "the connection is gone", err: err}
	}
	o.head = r.read[:min(len(r.read), 16)]
	o.conn = relay.NewPrefixed(client, r.read)
	return o, nil
}

// recorder reads a connection and keeps what it read.
type recorder struct {
	c      net.Conn
	read   []byte
	others bool // what is neither TLS nor HTTP is told from what is like them
}

// want reads until n bytes are there.
func (r *recorder) want(n int) error {
	if n > maxHello {
		return fmt.Errorf("%w: longer than %d bytes", errNotHello, maxHello)
	}
	for len(r.read) < n {
		if cap(r.read)-len(r.read) < n-len(r.read) {
			grown := make([]byte, len(r.read), max(n, 2<<10))
			copy(grown, r.read)
			r.read = grown
		}
		m, err := r.c.Read(r.read[len(r.read):cap(r.read)])
		r.read = r.read[:len(r.read)+m]
		if err != nil && len(r.read) < n {
			return err
		}
	}
	return nil
}

// opening tells TLS from HTTP from other things.
func (r *recorder) opening() (*opening, error) {
	if err := r.want(1); err != nil {
		return nil, err
	}
	if r.read[0] == recordHandshake {
		h, err := r.clientHello()
		if err != nil {
			return nil, err
		}
		return &opening{hello: h}, nil
	}
	for n := 1; ; n++ {
		if err := r.want(n); err != nil {
			return nil, err
		}
		isHTTP, more := looksHTTP(r.read)
		near := false
		if !isHTTP && !more && r.others {
			near, more = nearHTTP(r.read)
		}
		if !more {
			return &opening{http: isHTTP, near: near}, nil
		}
		n = max(n, len(r.read))
	}
}

// maxMethod is the longest method that is taken for HTTP; the longest registered one has 16 letters.
const maxMethod = 32

// looksHTTP says whether b begins like a request of HTTP (RFC 9112, 3): a method of upper-case letters, a space, and a
// target. With more it says that too little is there to tell.
func looksHTTP(b []byte) (is, more bool) {
	for i, c := range b {
		switch {
		case c >= 'A' && c <= 'Z', c == '-', c == '_':
			if i >= maxMethod {
				return false, false
			}
		case c == ' ' && i >= 3:
			if len(b) == i+1 {
				return false, true
			}
			next := b[i+1]
			return next == '/' || next == '*' || (next|0x20 >= 'a' && next|0x20 <= 'z'), false
		default:
			return false, false
		}
	}
	return false, true
}

// clientHello collects the handshake message from its records (RFC 8446, 5.1) and reads it.
func (r *recorder) clientHello() (*clientHello, error) {
	var msg []byte
	for at := 0; ; {
		if err := r.want(at + recordHead); err != nil {
			return nil, err
		}
		head := r.read[at : at+recordHead]
		size := int(head[3])<<8 | int(head[4])
		if head[0] != recordHandshake || head[1] != 3 || size == 0 || size > maxRecord {
			return nil, fmt.Errorf("%w: a record of type %d, version %d.%d and %d bytes", errNotHello, head[0], head[1], head[2], size)
		}
		if err := r.want(at + recordHead + size); err != nil {
			return nil, err
		}
		msg = append(msg, r.read[at+recordHead:at+recordHead+size]...)
		at += recordHead + size
		if msg[0] != typeClientHello {
			return nil, fmt.Errorf("%w: a handshake message of type %d", errNotHello, msg[0])
		}
		if len(msg) < 4 {
			continue
		}
		if n := 4 + (int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3])); len(msg) >= n {
			return parseClientHello(msg[4:n])
		} else if n > maxHello {
			return nil, fmt.Errorf("%w: it would be %d bytes long", errNotHello, n)
		}
	}
}

// parseClientHello reads the body of a ClientHello. Extensions that nobody here looks at are only walked over. An
// extension that comes twice is refused, as RFC 8446, 4.2 wants: two parsers might read different ones.
func parseClientHello(body []byte) (*clientHello, error) {
	var (
		h                            clientHello
		legacy                       uint16
		random                       []byte
		session, suites, compression cryptobyte.String
		extensions                   cryptobyte.String
		seen                         = map[uint16]bool{}
	)
	s := cryptobyte.String(body)
	if !s.ReadUint16(&legacy) || !s.ReadBytes(&random, 32) || !s.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!s.ReadUint16LengthPrefixed(&suites) || len(suites)%2 != 0 || !s.ReadUint8LengthPrefixed(&compression) {
		return nil, fmt.Errorf("%w: cut short", errNotHello)
	}
	if s.Empty() {
		return &h, nil
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return nil, fmt.Errorf("%w: its extensions' length is wrong", errNotHello)
	}
	for !extensions.Empty() {
		var (
			id  uint16
			ext cryptobyte.String
		)
		if !extensions.ReadUint16(&id) || !extensions.ReadUint16LengthPrefixed(&ext) {
			return nil, fmt.Errorf("%w: an extension is cut short", errNotHello)
		}
		if seen[id] || len(seen) >= maxExtensionsCount {
			return nil, fmt.Errorf("%w: extension %d comes twice, or there are too many", errNotHello, id)
		}
		seen[id] = true
		if !h.extension(id, ext) {
			return nil, fmt.Errorf("%w: extension %d is malformed", errNotHello, id)
		}
	}
	return &h, nil
}

// extension reads one extension and says whether it was well formed.
func (h *clientHello) extension(id uint16, ext cryptobyte.String) bool {
	switch id {
	case extServerName:
		return h.readServerName(ext)
	case extALPN: // RFC 7301, 3.1
		var list, proto cryptobyte.String
		if !ext.ReadUint16LengthPrefixed(&list) || !ext.Empty() || list.Empty() {
			return false
		}
		for !list.Empty() {
			if !list.ReadUint8LengthPrefixed(&proto) || proto.Empty() {
				return false
			}
			h.alpn = append(h.alpn, string(proto))
		}
	case extSessionTicket: // RFC 5077, 3.2
		if len(ext) > 0 {
			h.tickets = append(h.tickets, ext)
		}
	case extPreSharedKey:
		return h.readIdentities(ext)
	}
	return true
}

// readServerName reads the server_name extension (RFC 6066, 3).
func (h *clientHello) readServerName(ext cryptobyte.String) bool {
	var list, name cryptobyte.String
	if !ext.ReadUint16LengthPrefixed(&list) || !ext.Empty() || list.Empty() {
		return false
	}
	for !list.Empty() {
		var typ uint8
		if !list.ReadUint8(&typ) || !list.ReadUint16LengthPrefixed(&name) || name.Empty() {
			return false
		}
		if typ != serverNameHost {
			continue
		}
		if h.serverName != "" {
			return false // two names of one type are forbidden
		}
		h.serverName = string(name)
	}
	return true
}

// readIdentities reads the identities of the pre_shared_key extension (RFC 8446, 4.2.11), the binders aside.
func (h *clientHello) readIdentities(ext cryptobyte.String) bool {
	var list, label, binders cryptobyte.String
	if !ext.ReadUint16LengthPrefixed(&list) || !ext.ReadUint16LengthPrefixed(&binders) || !ext.Empty() || list.Empty() {
		return false
	}
	for n := 0; !list.Empty(); n++ {
		var age uint32
		if !list.ReadUint16LengthPrefixed(&label) || !list.ReadUint32(&age) || label.Empty() {
			return false
		}
		if n < maxTickets {
			h.tickets = append(h.tickets, label)
		}
	}
	return true
}

// describe returns the first bytes of what is neither TLS nor HTTP in words.
func describe(head []byte) string {
	switch {
	case strings.HasPrefix(string(head), "SSH-"):
		return "SSH"
	case len(head) > 2 && head[0]&sslv2ClientHello != 0 && head[2] == 1:
		return "an SSLv2 ClientHello"
	}
	return fmt.Sprintf("bytes that begin with %q", head)
}
