package pop3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
)

// Response codes (RFC 3206).
const (
	temporary = "[SYS/TEMP]"
	permanent = "[SYS/PERM]"
)

// errEnd ends a session: everything was said.
var errEnd = errors.New("the session has ended")

// maxListing bounds a list that is not passed on line by line.
const maxListing = 64 << 10

// maxErrors is how many lines that are no commands a client may send.
const maxErrors = 20

// session is a client's connection.
type session struct {
	s          *Server
	set        *settings
	log        *slog.Logger
	client     *peer
	clientAddr netip.AddrPort
	original   netip.AddrPort // where a redirected client wanted to go
	tls        bool           // the client uses TLS
	server     server
	byLogin    bool  // the server was part of a login, "user#server"
	up         *peer // nil: not chosen yet; set by join
	upTLS      bool
	facts      policy.Facts
	errors     int

	last   *letter   // what TOP has fetched, for a RETR that follows
	ahead  []*errand // what RETRs are to give that have come, and whose turn it is not yet; in their order
	failed failures

	mu      sync.Mutex
	waiting bool // for a command
}

// refuse records that the client is turned away, and tells it.
func (x *session) refuse(kind notice.Kind, code, text, detail string) {
	n := x.s.opt.Gate.Refuse(x.facts, kind, text, detail)
	_ = x.say("-ERR " + code + " " + text + "; reference " + n.Reference) // it may have gone
}

// say sends a line of the gateway's own. What is in it from outside is made fit for a line.
func (x *session) say(text string) error {
	return x.reply(append([]byte(notice.Clean(text, 480)), '\r', '\n'))
}

func (x *session) reply(b []byte) error { return x.client.send(b) }

// hurry ends the session where its client is silent; otherwise the next wait for a command does.
func (x *session) hurry() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.waiting {
		_ = x.client.conn.SetReadDeadline(time.Unix(1, 0)) // a connection that cannot have one has ended
	}
}

// swap exchanges the client's side for its TLS.
func (x *session) swap(p *peer) {
	x.s.mu.Lock() // a shutdown closes it
	defer x.s.mu.Unlock()
	x.client = p
}

// join gives the session its server's side.
func (x *session) join(p *peer) {
	x.s.mu.Lock() // a shutdown closes it
	defer x.s.mu.Unlock()
	x.up = p
}

// cutOff ends both sides. The server's lock is held.
func (x *session) cutOff() {
	for _, p := range []*peer{x.client, x.up} {
		if p != nil {
			_ = p.conn.Close() // time is up
		}
	}
}

// command reads the client's next line.
func (x *session) command() ([]byte, error) {
	ending := x.s.ending()
	x.mu.Lock()
	d := x.set.IdleTimeout.Std()
	if ending {
		d = 0
	}
	if err := x.client.expect(d); err != nil {
		x.mu.Unlock()
		return nil, err
	}
	x.waiting = true
	x.mu.Unlock()
	if x.s.ending() {
		x.hurry()
	}
	line, err := x.client.line()
	x.mu.Lock()
	x.waiting = false
	x.mu.Unlock()
	var ne net.Error
	switch {
	case errors.Is(err, errTooLong):
		_ = x.say("-ERR the line is too long") // the end, either way
	case errors.As(err, &ne) && ne.Timeout() && x.s.ending():
		_ = x.say("-ERR " + temporary + " the gateway is restarted") // the end, either way
	case errors.As(err, &ne) && ne.Timeout():
		_ = x.say("-ERR no command came for too long") // the end, either way
	}
	return line, err
}

// loop serves commands until the session ends.
func (x *session) loop(ctx context.Context) {
	defer x.forget()
	defer x.abandon()
	for {
		line, err := x.command()
		if err == nil {
			err = x.handle(ctx, line)
		}
		if err != nil {
			if !errors.Is(err, errEnd) && !errors.Is(err, io.EOF) {
				x.log.Debug("a POP3 session has ended", "client", x.clientAddr, "host", x.facts.Host, "error", err)
			}
			return
		}
	}
}

func (x *session) handle(ctx context.Context, line []byte) error {
	c, err := parseCommand(line)
	if err == nil {
		err = c.mistaken()
	}
	if err != nil {
		if x.errors++; x.errors > maxErrors {
			_ = x.say("-ERR too many lines that are no commands") // the end, either way
			return errEnd
		}
		return x.say("-ERR " + err.Error())
	}
	if x.up == nil {
		return x.local(ctx, c)
	}
	switch c.verb {
	case "RETR", "TOP", "NOOP", "LIST", "UIDL", "STAT":
	default:
		x.forget()
	}
	switch c.reply() {
	case message:
		return x.retr(ctx, c)
	case topOf:
		return x.top(ctx, c)
	case multi:
		return x.listing(c)
	case capabilities:
		return x.filtered(c, func(line []byte) []byte { return capability(line, x.tls || x.upTLS) })
	case mechanisms:
		return x.filtered(c, mechanism)
	case exchange:
		return x.authenticate(c)
	case startTLS:
		return x.startTLS(ctx)
	case single:
		return x.one(c)
	case unknown:
	}
	return x.say("-ERR the gateway does not know this command")
}

// one serves a command whose reply is one line.
func (x *session) one(c command) error {
	switch c.verb {
	case "USER":
		name := strings.Join(c.args, " ")
		if x.byLogin {
			return x.again(name)
		}
		x.facts.User = name
	case "APOP":
		if len(c.args) > 0 {
			x.facts.User = c.args[0]
		}
	case "DELE":
		if ref, bad := x.failed.of(c.number()); bad {
			return x.say("-ERR " + temporary + " this message could not be given to you in this session, so it is not deleted; reference " + ref)
		}
	}
	return x.relayed(c)
}

// relayed passes a command on, and its status line back.
func (x *session) relayed(c command) error {
	line, _, err := x.ask(c.line)
	if err != nil {
		return x.upstreamGone(err)
	}
	if err := x.reply(line); err != nil {
		return err
	}
	if c.verb == "QUIT" {
		return errEnd
	}
	return nil
}

// ask sends the server a line, and reads its status line. Servers that lose patience say so unasked, and then end the connection: an
// -ERR that was there before is the reply to a command that was not sent.
func (x *session) ask(line []byte) (status []byte, ok bool, err error) {
	err = x.up.order(line)
	if err != nil && !errors.Is(err, errUnasked) {
		return nil, false, err
	}
	status, ok, rerr := x.up.reply()
	if err != nil && (rerr != nil || ok) {
		return nil, false, fmt.Errorf("%w: %.100q", err, status)
	}
	return status, ok, rerr
}

// upstreamGone tells the client that the server cannot be talked to any more, and ends the session.
func (x *session) upstreamGone(err error) error {
	x.refuse(notice.OriginProtocol, temporary, "the mail server cannot be talked to any more", "the mail server: "+err.Error())
	return errEnd
}

// listing passes a list through, as it comes.
func (x *session) listing(c command) error {
	line, ok, err := x.ask(c.line)
	if err != nil {
		return x.upstreamGone(err)
	}
	if !ok {
		return x.reply(line)
	}
	if _, err := x.client.w.Write(line); err != nil {
		return err
	}
	l := &lines{p: x.up, pace: pace{rate: int64(x.set.MinRate)}, wire: x.client.w}
	if _, err := io.Copy(io.Discard, onlyReader{l}); err != nil {
		// The list has been begun: an -ERR would be taken for a part of it.
		x.s.opt.Gate.Refuse(x.facts, notice.OriginProtocol, "", "in the middle of a list: "+err.Error())
		return err
	}
	return x.client.w.Flush()
}

// onlyReader keeps io.Copy from ways around the buffer.
type onlyReader struct{ io.Reader }

// filtered passes a short list on, each line as keep makes it.
func (x *session) filtered(c command, keep func(line []byte) []byte) error {
	line, ok, err := x.ask(c.line)
	if err != nil {
		return x.upstreamGone(err)
	}
	if !ok {
		return x.reply(line)
	}
	list, err := x.up.list(maxListing)
	if err != nil {
		return x.upstreamGone(err)
	}
	out := bytes.Clone(line)
	for _, l := range list {
		var s stuffer
		out = s.append(out, keep(l))
	}
	return x.reply(append(out, ".\r\n"...))
}

// authenticate passes a SASL exchange through (RFC 5034), unread and never logged.
func (x *session) authenticate(c command) error {
	if channelBound(c.args[0]) {
		return x.say("-ERR this mechanism is bound to the TLS connection, which the gateway ends; choose another one")
	}
	next, responses := c.line, 0
	heard := func(response string) {
		if user := saslUser(c.args[0], responses, response); user != "" {
			x.facts.User = user
		}
		responses++
	}
	if len(c.args) > 1 {
		heard(c.args[1])
	}
	for {
		if err := x.up.order(next); err != nil {
			return x.upstreamGone(err)
		}
		if err := x.up.expect(x.up.timeout); err != nil {
			return x.upstreamGone(err)
		}
		line, err := x.up.line()
		if err != nil {
			return x.upstreamGone(err)
		}
		if !challenge(line) {
			if _, err := status(line); err != nil {
				return x.upstreamGone(err)
			}
			return x.reply(line)
		}
		if err := x.reply(line); err != nil {
			return err
		}
		answer, err := x.command()
		if err != nil {
			return err
		}
		if next, err = responseLine(answer); err != nil {
			_ = x.say("-ERR " + err.Error()) // the exchange cannot be taken up again
			return errEnd
		}
		heard(string(next))
	}
}

// responseLine returns a client's response as it is passed on: one line for every reader.
func responseLine(line []byte) ([]byte, error) {
	text := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if bytes.ContainsAny(text, "\r\n\x00") {
		return nil, errBadCommand("a response must not have CR, LF or NUL in it")
	}
	return append(bytes.Clone(text), '\r', '\n'), nil
}
