package web

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/units"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// coder is a gRPC encoding.
type coder struct {
	name  string
	write func(io.Writer) (io.WriteCloser, error)
	read  func(io.Reader) (io.Reader, error)
}

func (c coder) Name() string                                 { return c.name }
func (c coder) Compress(w io.Writer) (io.WriteCloser, error) { return c.write(w) }
func (c coder) Decompress(r io.Reader) (io.Reader, error)    { return c.read(r) }
func noCloser(w io.Writer) (io.WriteCloser, error) {
	return struct {
		io.Writer
		io.Closer
	}{w, io.NopCloser(nil)}, nil
}
func plainReader(r io.Reader) (io.Reader, error) { return r, nil }

func init() { //nolint:gochecknoinits // gRPC wants encodings registered before anything else
	encoding.RegisterCompressor(coder{
		"deflate",
		func(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriter(w), nil },
		func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) },
	})
	encoding.RegisterCompressor(coder{
		"zstd",
		func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)) },
		func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) },
	})
	encoding.RegisterCompressor(coder{
		"snappy",
		func(w io.Writer) (io.WriteCloser, error) { return snappy.NewBufferedWriter(w), nil },
		func(r io.Reader) (io.Reader, error) { return snappy.NewReader(r), nil },
	})
	encoding.RegisterCompressor(coder{"mystery", noCloser, plainReader})
}

// grpcPeer is a gRPC server whose every method answers each message with the same one, or with what give makes of it, in the
// encoding that x-coding asks for: the gateway takes out what the request's own was.
type grpcPeer struct {
	mu   sync.Mutex
	got  [][]byte
	ends []error // what each call's messages ended with
	meta []metadata.MD
	give func(b []byte) []byte
}

func (p *grpcPeer) serve(_ any, stream grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	p.mu.Lock()
	p.meta = append(p.meta, md)
	p.mu.Unlock()
	if coding := strings.Join(md.Get("x-coding"), ""); coding != "" {
		if err := grpc.SetSendCompressor(stream.Context(), coding); err != nil {
			return err
		}
	}
	for {
		var m wrapperspb.BytesValue
		err := stream.RecvMsg(&m)
		p.mu.Lock()
		if err == nil {
			p.got = append(p.got, m.GetValue())
		} else {
			p.ends = append(p.ends, err)
		}
		p.mu.Unlock()
		if errors.Is(err, io.EOF) {
			stream.SetTrailer(metadata.Pairs("x-farewell", "bye"))
			return nil
		}
		if err != nil {
			return err
		}
		b := m.GetValue()
		if p.give != nil {
			b = p.give(b)
		}
		if err := stream.SendMsg(wrapperspb.Bytes(b)); err != nil {
			return err
		}
	}
}

// leaked says whether any message that came had what must not come, and how many there were.
func (p *grpcPeer) leaked() (bool, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.got {
		if bytes.Contains(b, scan.EICAR()) || bytes.Contains(b, []byte("PK\x03\x04")) {
			return true, len(p.got)
		}
	}
	return false, len(p.got)
}

// ended returns what the calls ended with so far.
func (p *grpcPeer) ended() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]error(nil), p.ends...)
}

// grpcOrigin starts p, and returns a client of it that goes through the gateway.
func (r *rig) grpcOrigin(p *grpcPeer) *grpc.ClientConn {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	creds := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{r.root.leaf(r.t)}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}})
	s := grpc.NewServer(grpc.Creds(creds), grpc.UnknownServiceHandler(p.serve), grpc.MaxRecvMsgSize(64<<20))
	go func() { _ = s.Serve(l) }()
	r.t.Cleanup(s.Stop)
	pool := x509.NewCertPool()
	pool.AddCert(r.ca.Certificate())
	cc, err := grpc.NewClient("passthrough:///"+l.Addr().String(),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithContextDialer(func(_ context.Context, addr string) (net.Conn, error) {
			c := r.dial().send("CONNECT " + addr + " HTTP/1.1\r\nHost: " + addr + "\r\n\r\n")
			if line, err := c.br.ReadString('\n'); err != nil || !strings.Contains(line, " 200 ") {
				return nil, fmt.Errorf("CONNECT: %q, %w", line, err)
			}
			for {
				if line, err := c.br.ReadString('\n'); err != nil || line == "\r\n" {
					return c.Conn, err
				}
			}
		}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// grpcCodings are the encodings that the tests' peers have in common with the gateway.
var grpcCodings = []string{"", "gzip", "deflate", "zstd", "snappy"}

// use returns the options of a call in an encoding.
func use(coding string) []grpc.CallOption {
	if coding == "" {
		return nil
	}
	return []grpc.CallOption{grpc.UseCompressor(coding)}
}

var bidi = &grpc.StreamDesc{StreamName: "Talk", ClientStreams: true, ServerStreams: true}

func TestGRPCWorks(t *testing.T) {
	r := newRig(t)
	p := &grpcPeer{}
	cc := r.grpcOrigin(p)
	ctx, cancel := patient()
	defer cancel()
	messages := [][]byte{[]byte("hello"), {}, seq(100), seq(1 << 20), []byte(strings.Repeat("compress me ", 100_000))}
	for _, coding := range grpcCodings {
		ctx := metadata.AppendToOutgoingContext(ctx, "x-coding", coding)
		for _, m := range messages {
			var got wrapperspb.BytesValue
			var trailer metadata.MD
			err := cc.Invoke(ctx, "/svc/Call", wrapperspb.Bytes(m), &got, append(use(coding), grpc.Trailer(&trailer))...)
			if err != nil || !bytes.Equal(got.GetValue(), m) || len(trailer.Get("x-farewell")) != 1 {
				t.Errorf("%q: %d bytes came back as %d, %v, %v", coding, len(m), len(got.GetValue()), trailer, err)
			}
		}
		s, err := cc.NewStream(ctx, bidi, "/svc/Talk", use(coding)...)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range messages { // each is sent when the one before has come back
			if err := s.SendMsg(wrapperspb.Bytes(m)); err != nil {
				t.Fatal(err)
			}
			var got wrapperspb.BytesValue
			if err := s.RecvMsg(&got); err != nil || !bytes.Equal(got.GetValue(), m) {
				t.Fatalf("%q: message %d came back as %d bytes, %v", coding, i, len(got.GetValue()), err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(&wrapperspb.BytesValue{}); !errors.Is(err, io.EOF) {
			t.Errorf("%q: the end is %v", coding, err)
		}
	}
	for _, d := range []policy.Direction{policy.Upload, policy.Download} {
		r.audit.wait(t, "the call", func(x audit.Record) bool {
			return exempted("gRPC, scanned by message")(x) && x.Facts.Direction == d && x.Kind == "grpc"
		})
	}
	for _, x := range r.audit.list() {
		if x.Event == audit.Object {
			t.Errorf("a clean message was recorded: %+v", x)
		}
	}
	for _, md := range p.meta {
		if accept := strings.Join(md.Get("grpc-accept-encoding"), ","); strings.Contains(accept, "mystery") || !strings.Contains(accept, "gzip") || !strings.Contains(accept, "zstd") {
			t.Errorf("the origin is told of %q", accept)
		}
	}
}

// TestManyMessagesOfACallKeepTheirOrder, although several are judged at a time, both ways.
func TestManyMessagesOfACallKeepTheirOrder(t *testing.T) {
	r := newRig(t)
	cc := r.grpcOrigin(&grpcPeer{})
	ctx, cancel := patient()
	defer cancel()
	s, err := cc.NewStream(ctx, bidi, "/svc/Talk", use("gzip")...)
	if err != nil {
		t.Fatal(err)
	}
	const n = 300
	go func() {
		for i := range n {
			if s.SendMsg(wrapperspb.Bytes(fmt.Appendf(nil, "message %d", i))) != nil {
				return
			}
		}
		_ = s.CloseSend()
	}()
	for i := range n {
		var got wrapperspb.BytesValue
		if err := s.RecvMsg(&got); err != nil || string(got.GetValue()) != fmt.Sprintf("message %d", i) {
			t.Fatalf("%d: %q, %v", i, got.GetValue(), err)
		}
	}
	if err := s.RecvMsg(&wrapperspb.BytesValue{}); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
}

// TestVirusInAGRPCMessageDoesNotArrive, either way, however it is compressed, alone or after good messages.
func TestVirusInAGRPCMessageDoesNotArrive(t *testing.T) {
	var r *rig
	virus := scan.EICAR()
	hidden := map[string][]byte{"plain": virus, "in a zip": zipWith(t, "a.com", virus), "in gzip": gzipOf(t, virus), "far behind": append(seq(100_000), virus...)}
	for _, way := range []policy.Direction{policy.Upload, policy.Download} {
		r = newRig(t)
		p := &grpcPeer{}
		if way == policy.Download {
			p.give = func(b []byte) []byte { return hidden[string(b)] }
		}
		cc := r.grpcOrigin(p)
		ctx, cancel := patient()
		defer cancel()
		for _, coding := range grpcCodings {
			ctx := metadata.AppendToOutgoingContext(ctx, "x-coding", coding)
			for name, body := range hidden {
				s, err := cc.NewStream(ctx, bidi, "/svc/Talk", use(coding)...)
				if err != nil {
					t.Fatal(err)
				}
				bad := body
				if way == policy.Download {
					bad = []byte(name)
				} else {
					var got wrapperspb.BytesValue
					if err := errors.Join(s.SendMsg(wrapperspb.Bytes([]byte("good"))), s.RecvMsg(&got)); err != nil || string(got.GetValue()) != "good" {
						t.Fatalf("before it: %q, %v", got.GetValue(), err)
					}
				}
				if err := s.SendMsg(wrapperspb.Bytes(bad)); err != nil {
					t.Fatal(err)
				}
				var got wrapperspb.BytesValue
				err = s.RecvMsg(&got)
				record := r.audit.wait(t, "the virus", func(x audit.Record) bool {
					return x.Event == audit.Object && x.Kind == "grpc" && x.Facts.Direction == way && x.Verdict.Outcome == scan.Infected &&
						strings.Contains(fmt.Sprint(err), x.Reference)
				})
				if status.Code(err) != codes.PermissionDenied || len(got.GetValue()) > 0 || !strings.Contains(fmt.Sprint(err), "a virus was found in a message") {
					t.Errorf("%s, %s, %q: %d bytes, %v (%v)", way, name, coding, len(got.GetValue()), err, record.Reference)
				}
			}
		}
		if way == policy.Upload {
			eventually(t, "the origin sees all calls broken off", func() bool { return len(p.ended()) == len(grpcCodings)*len(hidden) })
			for _, err := range p.ended() {
				if errors.Is(err, io.EOF) {
					t.Error("the origin saw a proper end")
				}
			}
			if bad, n := p.leaked(); bad || n != len(grpcCodings)*len(hidden) {
				t.Errorf("%d messages came to the origin, infected: %v", n, bad)
			}
		}
	}
}

// TestVirusInAUnaryCallIsAnswered before there was any answer of the origin's.
func TestVirusInAUnaryCallIsAnswered(t *testing.T) {
	r := newRig(t)
	p := &grpcPeer{}
	cc := r.grpcOrigin(p)
	ctx, cancel := patient()
	defer cancel()
	var head metadata.MD
	err := cc.Invoke(ctx, "/svc/Call", wrapperspb.Bytes(scan.EICAR()), &wrapperspb.BytesValue{}, grpc.UseCompressor("gzip"), grpc.Header(&head))
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "a virus was found in a message, reference ") {
		t.Errorf("%v, %v", err, head)
	}
	if bad, n := p.leaked(); bad || n > 0 {
		t.Errorf("%d messages came to the origin", n)
	}
}

// TestGRPCMessagesThatCannotBeJudgedFollowPolicy, and are never delivered in part.
func TestGRPCMessagesThatCannotBeJudgedFollowPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*plan)
		coding string
		code   codes.Code
		reason scan.Reason
	}{
		"too large":                    {func(p *plan) { p.web.GRPC.MaxMessage = units.KiB }, "", codes.ResourceExhausted, scan.TooLarge},
		"too large, decompressed":      {func(p *plan) { p.web.GRPC.MaxMessage = units.KiB }, "gzip", codes.ResourceExhausted, scan.TooLarge},
		"too large, which passes":      {func(p *plan) { p.web.GRPC.MaxMessage, p.policy.TooLarge = units.KiB, policy.Pass }, "", codes.PermissionDenied, scan.TooLarge},
		"an encoding that is unknown":  {func(*plan) {}, "mystery", codes.PermissionDenied, scan.Undecodable},
		"scanner down":                 {func(p *plan) { p.engine = failing{scan.Unavailable} }, "", codes.Unavailable, scan.Unavailable},
		"scanner's error, not allowed": {func(p *plan) { p.engine, p.policy.EngineError = failing{scan.EngineError}, policy.Block }, "", codes.PermissionDenied, scan.EngineError},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.change)
			p := &grpcPeer{}
			ctx, cancel := patient()
			defer cancel()
			err := r.grpcOrigin(p).Invoke(ctx, "/svc/Call", wrapperspb.Bytes(bytes.Repeat([]byte("x"), 2000)), &wrapperspb.BytesValue{}, use(c.coding)...)
			if _, n := p.leaked(); n > 0 || status.Code(err) != c.code {
				t.Errorf("%v; %d messages came", err, n)
			}
			r.audit.wait(t, "the message", func(x audit.Record) bool { return x.Kind == "grpc" && x.Verdict.Reason == c.reason })
		})
	}
	t.Run("an encoding that is unknown, which passes", func(t *testing.T) {
		r := newRig(t, func(p *plan) { p.policy.Undecodable = policy.Pass })
		ctx, cancel := patient()
		defer cancel()
		var got wrapperspb.BytesValue
		if err := r.grpcOrigin(&grpcPeer{}).Invoke(ctx, "/svc/Call", wrapperspb.Bytes([]byte("hi")), &got, use("mystery")...); err != nil || string(got.GetValue()) != "hi" {
			t.Errorf("%q, %v", got.GetValue(), err)
		}
	})
}

// zipWith returns a zip archive of one file.
func zipWith(t testing.TB, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	if err == nil {
		_, err = w.Write(content)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// gzipOf returns content in gzip.
func gzipOf(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(content)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
