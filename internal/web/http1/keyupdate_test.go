package http1

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func expand(h func() hash.Hash, secret []byte, label string, n int) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(n))
	b = append(b, byte(6+len(label)))
	b = append(b, "tls13 "+label...)
	b = append(b, 0)
	out, err := hkdf.Expand(h, secret, string(b), n)
	if err != nil {
		panic(err)
	}
	return out
}

// updater sends KeyUpdates that ask for one in return, by the keys of a TLS 1.3 server.
type updater struct {
	h      func() hash.Hash
	key    int
	secret []byte
	seq    uint64
}

func (u *updater) update() []byte {
	// key_update, update_requested; a handshake record
	defer func() { u.secret, u.seq = expand(u.h, u.secret, "traffic upd", u.h().Size()), 0 }()
	return u.record([]byte{24, 0, 0, 1, 1, 22})
}

// say returns content.
func (u *updater) say(what string) []byte {
	defer func() { u.seq++ }()
	return u.record(append([]byte(what), 23))
}

func (u *updater) record(plain []byte) []byte {
	block, _ := aes.NewCipher(expand(u.h, u.secret, "key", u.key))
	aead, _ := cipher.NewGCM(block)
	iv := expand(u.h, u.secret, "iv", 12)
	var n [12]byte
	binary.BigEndian.PutUint64(n[4:], u.seq)
	for i := range n {
		n[i] ^= iv[i]
	}
	head := []byte{23, 3, 3, 0, byte(len(plain) + 16)}
	return aead.Seal(head, n[:], plain, head)
}

// flooded returns a connection over TLS whose other side sends KeyUpdates for as long as they are taken, and reads nothing.
func flooded(t *testing.T, start <-chan struct{}) (c *Conn, blocked <-chan struct{}) {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"site.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	near, far := pair(t)
	_ = far.SetDeadline(time.Time{})
	_ = far.SetReadBuffer(4 << 10)
	var keys bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		tc := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, KeyLogWriter: &keys, SessionTicketsDisabled: true, MinVersion: tls.VersionTLS13})
		if err := tc.Handshake(); err != nil {
			t.Error(err)
			return
		}
		u := &updater{h: sha256.New, key: 16}
		switch tc.ConnectionState().CipherSuite {
		case tls.TLS_AES_256_GCM_SHA384:
			u.h, u.key = sha512.New384, 32
		case tls.TLS_AES_128_GCM_SHA256:
		default:
			t.Error("another cipher suite")
			return
		}
		for line := range strings.Lines(keys.String()) {
			if f := strings.Fields(line); f[0] == "SERVER_TRAFFIC_SECRET_0" {
				u.secret, _ = hex.DecodeString(f[2])
			}
		}
		<-start
		out := u.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
		for i := range 400_000 {
			if i%10 == 0 {
				out = append(out, u.say("x")...)
			}
			if out = append(out, u.update()...); len(out) > 32<<10 {
				_ = far.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
				if _, err := far.Write(out); err != nil {
					return // nobody takes anything any more
				}
				out = out[:0]
			}
		}
	}()
	tc := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	return New(tc, near, watcher(t), 4<<10), done
}

// ends fails where f does not end soon after its time.
func ends(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(time.Minute): // closing TLS has five seconds
		t.Errorf("%s never ends", what)
	}
}

func TestARequestEndsWithItsContextUnderKeyUpdates(t *testing.T) {
	start := make(chan struct{})
	c, blocked := flooded(t, start)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { close(start); <-blocked; cancel() }()
	ends(t, "a request whose context has", func() {
		got, err := fetch(c, request(t, http.MethodGet, "/", "").WithContext(ctx))
		if t.Log(len(got), err); err == nil {
			t.Error("it is answered")
		}
	})
	eventually(t, "the descriptor is given back", func() bool { return closedFD(c.tcp) })
}

func closedFD(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}
