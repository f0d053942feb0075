package intercept

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// visit makes a TLS connection and one round trip over it.
func visit(b *testing.B, at netip.AddrPort, conf *tls.Config) bool {
	b.Helper()
	c, err := tls.Dial("tcp", at.String(), conf)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		b.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 4)); err != nil {
		b.Fatal(err)
	}
	return c.ConnectionState().DidResume
}

// measure runs visits and reports the processor time of one, all parties together: client, gateway and origin.
func measure(b *testing.B, one func(n int)) {
	b.Helper()
	n, before := 0, cpu(b)
	for b.Loop() {
		one(n)
		n++
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(n), "cpu-ns/op")
}

// BenchmarkVisits compares what a connection costs: to the origin directly, and through the gateway for the first time,
// again, and resumed. A gateway cannot avoid two handshakes, and for a first visit one signature of its CA.
func BenchmarkVisits(b *testing.B) {
	root := newRoot(b)
	cert := root.leaf([]string{"site.example"}, nil)
	org := rawOrigin(b, &tls.Config{Certificates: []tls.Certificate{cert}})
	roots := rootFile(b, root)
	i := gatewayOf(b, root, func(c *Config) { c.ExtraRoots = []string{roots}; c.Certificates = 1 << 20 })
	d := openDoor(b, i, to("site.example", org))
	go d.drain()
	b.Cleanup(func() { close(d.sessions) })
	pool := i.ca.pool()
	pool.AddCert(root.cert)

	b.Run("signature", func(b *testing.B) {
		sum := sha256.Sum256([]byte("to be signed"))
		measure(b, func(int) {
			if _, err := i.ca.key.Sign(rand.Reader, sum[:], nil); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("direct", func(b *testing.B) {
		measure(b, func(int) { visit(b, org, &tls.Config{RootCAs: pool, ServerName: "site.example"}) })
	})
	b.Run("direct resumed", func(b *testing.B) {
		conf := &tls.Config{RootCAs: pool, ServerName: "site.example", ClientSessionCache: &browser{}}
		visit(b, org, conf)
		measure(b, func(int) { visit(b, org, conf) })
	})
	b.Run("mint", func(b *testing.B) {
		measure(b, func(int) {
			if _, err := i.leaves.mint("site.example", parsed(b, cert), ecdsaLeaf); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("first", func(b *testing.B) {
		measure(b, func(int) {
			i.leaves.cache = newLRU[leafKey, *tls.Certificate](16, time.Now)
			visit(b, d.addr, &tls.Config{RootCAs: pool, ServerName: "site.example"})
		})
	})
	// Resumption in TLS 1.3 keeps the key exchange, which costs most; that in TLS 1.2 does not.
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		b.Run("resumed "+tls.VersionName(version), func(b *testing.B) {
			org := rawOrigin(b, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version})
			d := openDoor(b, i, to("site.example", org))
			go d.drain()
			b.Cleanup(func() { close(d.sessions) })
			conf := &tls.Config{RootCAs: pool, ServerName: "site.example", ClientSessionCache: &browser{}}
			visit(b, d.addr, conf)
			measure(b, func(n int) {
				if !visit(b, d.addr, conf) {
					b.Fatalf("visit %d did not resume", n)
				}
			})
		})
		b.Run("again "+tls.VersionName(version), func(b *testing.B) {
			org := rawOrigin(b, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version})
			d := openDoor(b, i, to("site.example", org))
			go d.drain()
			b.Cleanup(func() { close(d.sessions) })
			measure(b, func(int) { visit(b, d.addr, &tls.Config{RootCAs: pool, ServerName: "site.example"}) })
		})
	}
}

// drain takes the sessions, so that the door does not fill up.
func (d *door) drain() {
	for range d.sessions { //nolint:revive // nothing is done with them
	}
}
