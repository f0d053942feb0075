package intercept

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// helloOf returns the first flight of a client of crypto/tls.
func helloOf(t testing.TB, conf *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, conf).Handshake()
	}()
	head := make([]byte, recordHead)
	if _, err := io.ReadFull(server, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	<-done
	return append(head, body...)
}

// split puts a record's handshake bytes into records of n bytes.
func split(record []byte, n int) []byte {
	var out []byte
	for part := range slices.Chunk(record[recordHead:], n) {
		out = append(append(out, record[0], record[1], record[2], byte(len(part)>>8), byte(len(part))), part...)
	}
	return out
}

// openingOf reads the opening of a client that sends the segments, each when the one before was taken.
func openingOf(t testing.TB, timeout time.Duration, end bool, segments ...[]byte) (*opening, error) {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, s := range segments {
			if _, err := client.Write(s); err != nil {
				return
			}
		}
		if end {
			_ = client.Close()
		}
	}()
	o, err := readOpening(t.Context(), server, timeout, false)
	if err == nil {
		// What was read is read again.
		want := bytes.Join(segments, nil)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(o.conn, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read again: %d bytes the same %v, error %v", len(got), bytes.Equal(got, want), err)
		}
	}
	_, _ = client.Close(), server.Close()
	<-done
	return o, err
}

func TestClientHelloIsReadHoweverItIsCut(t *testing.T) {
	conf := &tls.Config{ServerName: "Site.Example", NextProtos: []string{"h2", "http/1.1"}, InsecureSkipVerify: true}
	whole := helloOf(t, conf)
	if len(whole) < 1400 {
		t.Fatalf("a ClientHello of %d bytes: the one with a post-quantum key share is longer", len(whole))
	}
	bytewise := slices.Collect(slices.Chunk(whole, 1))
	for what, segments := range map[string][][]byte{
		"whole":                          {whole},
		"one byte at a time":             bytewise,
		"two segments":                   {whole[:700], whole[700:]},
		"records of 100 bytes":           {split(whole, 100)},
		"records of 1 byte":              {split(whole, 1)},
		"records and segments of 7":      slices.Collect(slices.Chunk(split(whole, 7), 7)),
		"cut within the server_name":     {whole[:bytes.Index(whole, []byte("Site"))+3], whole[bytes.Index(whole, []byte("Site"))+3:]},
		"with the next record behind it": {append(slices.Clone(whole), 20, 3, 3, 0, 1, 1)},
	} {
		t.Run(what, func(t *testing.T) {
			o, err := openingOf(t, 10*time.Second, false, segments...)
			if err != nil {
				t.Fatal(err)
			}
			if o.hello == nil || o.hello.serverName != "Site.Example" || !slices.Equal(o.hello.alpn, conf.NextProtos) {
				t.Errorf("read %+v", o.hello)
			}
		})
	}
}

func TestWhatIsNoTLSIsToldApart(t *testing.T) {
	for _, tc := range []struct {
		in   string
		http bool
		what string
	}{
		{"GET / HTTP/1.1\r\n", true, ""},
		{"OPTIONS * HTTP/1.1\r\n", true, ""},
		{"CONNECT site.example:443 HTTP/1.1\r\n", true, ""},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true, ""},
		{"VERSION-CONTROL /x HTTP/1.1\r\n", true, ""},
		{"GET http://site.example/ HTTP/1.1\r\n", true, ""},
		{"SSH-2.0-OpenSSH_9.2\r\n", false, "SSH"},
		{"\x80\x2e\x01\x00\x02", false, "SSLv2"},
		{"EHLO\r\n", false, `"EHLO`},
		{"\x00\x01\x02", false, `"\x00`},
		{"get / HTTP/1.1\r\n", false, `"get`},
		{strings.Repeat("A", maxMethod+1), false, "AAA"},
	} {
		o, err := openingOf(t, 10*time.Second, false, []byte(tc.in))
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
			continue
		}
		if o.hello != nil || o.http != tc.http {
			t.Errorf("%q: TLS %v, HTTP %v", tc.in, o.hello != nil, o.http)
		}
		if got := describe(o.head); !tc.http && !strings.Contains(got, tc.what) {
			t.Errorf("%q is described as %s", tc.in, got)
		}
	}
}

func TestBrokenClientHellosAreRefused(t *testing.T) {
	whole := helloOf(t, &tls.Config{ServerName: "site.example", InsecureSkipVerify: true})
	at := bytes.Index(whole, []byte("\x00\x0csite.example"))
	if at < 0 {
		t.Fatal("the server_name was not found in the ClientHello: nothing to break")
	}
	long := slices.Clone(whole)
	long[at+1]++
	for what, b := range map[string][]byte{
		"a ServerHello":                    {22, 3, 3, 0, 4, 2, 0, 0, 0},
		"a record of no bytes":             {22, 3, 1, 0, 0},
		"a record above the limit":         {22, 3, 1, 0x7f, 0xff, 1},
		"a message above the limit":        {22, 3, 1, 0, 4, 1, 1, 0, 1},
		"another record between":           append(split(whole, 200)[:205], 23, 3, 3, 0, 1, 0),
		"random of 3 bytes":                {22, 3, 1, 0, 7, 1, 0, 0, 3, 3, 3, 9},
		"version 2 of SSL inside a record": {22, 2, 0, 0, 1, 1},
		"a name longer than its extension": long,
	} {
		_, err := openingOf(t, 10*time.Second, true, b)
		if !errors.Is(err, errNotHello) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

func TestDuplicateExtensionIsRefused(t *testing.T) {
	sni := func(name string) []byte {
		return append([]byte{0, 0, 0, byte(5 + len(name)), 0, byte(3 + len(name)), 0, 0, byte(len(name))}, name...)
	}
	hello := func(exts ...[]byte) []byte {
		all := bytes.Join(exts, nil)
		b := append([]byte{3, 3}, make([]byte, 32)...)
		b = append(b, 0, 0, 2, 0x13, 0x01, 1, 0, byte(len(all)>>8), byte(len(all)))
		return append(b, all...)
	}
	if h, err := parseClientHello(hello(sni("a.example"))); err != nil || h.serverName != "a.example" {
		t.Fatalf("one server_name: %+v, %v", h, err)
	}
	if _, err := parseClientHello(hello(sni("a.example"), sni("b.example"))); !errors.Is(err, errNotHello) {
		t.Errorf("two server_name extensions: error %v", err)
	}
}

func TestSilentAndVanishingClientsAreGivenUp(t *testing.T) {
	const gone = "went away"
	whole := helloOf(t, &tls.Config{ServerName: "site.example", InsecureSkipVerify: true})
	for what, tc := range map[string]struct {
		segments [][]byte
		end      bool
		want     string
	}{
		"silent":             {nil, false, "sent nothing"},
		"stops in the hello": {[][]byte{whole[:500]}, false, "did not finish"},
		"goes away at once":  {nil, true, gone},
		"goes away in it":    {[][]byte{whole[:500]}, true, gone},
		"half a method":      {[][]byte{[]byte("GE")}, true, gone},
	} {
		_, err := openingOf(t, 500*time.Millisecond, tc.end, tc.segments...)
		var ce *clientError
		// A pipe whose other end was closed takes no deadline any more, where a socket says the same when it is read.
		early := tc.want == gone && errors.Is(err, io.ErrClosedPipe)
		if !errors.As(err, &ce) || !strings.Contains(err.Error(), tc.want) && !early {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// errSeen ends a handshake of crypto/tls when it has read the ClientHello.
var errSeen = errors.New("seen")

// readByTLS returns what crypto/tls reads in a ClientHello, nil where it refuses it.
func readByTLS(b []byte) *tls.ClientHelloInfo {
	var seen *tls.ClientHelloInfo
	conf := &tls.Config{GetConfigForClient: func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
		seen = chi
		return nil, errSeen
	}}
	_ = tls.Server(&fixedConn{Reader: bytes.NewReader(b)}, conf).Handshake()
	return seen
}

// fixedConn is a connection whose peer sent some bytes and no more.
type fixedConn struct {
	io.Reader
	net.Conn
}

func (c *fixedConn) Read(p []byte) (int, error)       { return c.Reader.Read(p) }
func (c *fixedConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *fixedConn) Close() error                     { return nil }
func (c *fixedConn) SetDeadline(time.Time) error      { return nil }
func (c *fixedConn) SetWriteDeadline(time.Time) error { return nil }
func (c *fixedConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *fixedConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// FuzzClientHello holds our reading against that of crypto/tls: what both accept they must read alike, as one decides and
// the other answers.
func FuzzClientHello(f *testing.F) {
	for _, conf := range []*tls.Config{
		{ServerName: "site.example", NextProtos: []string{"h2", "http/1.1"}},
		{ServerName: "site.example", MaxVersion: tls.VersionTLS12},
		{ServerName: "192.0.2.1", CurvePreferences: []tls.CurveID{tls.X25519}},
	} {
		conf.InsecureSkipVerify = true
		whole := helloOf(f, conf)
		f.Add(whole)
		f.Add(split(whole, 50))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &recorder{c: &fixedConn{Reader: bytes.NewReader(b)}}
		o, err := r.opening()
		if err != nil || o.hello == nil {
			return
		}
		seen := readByTLS(b)
		if seen == nil {
			return
		}
		if seen.ServerName != o.hello.serverName || !slices.Equal(seen.SupportedProtos, o.hello.alpn) {
			t.Errorf("read as %q %q, by crypto/tls as %q %q", o.hello.serverName, o.hello.alpn, seen.ServerName, seen.SupportedProtos)
		}
	})
}
