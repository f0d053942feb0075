package peers

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"lazaret/internal/scan"
)

// Database says how large clamd's synthetic database is, besides EICAR.
type Database struct {
	Bodies int // body signatures, of 16 to 64 fixed bytes, one in four with a wildcard
	Hashes int // SHA-256 of whole files
}

// write writes the database into dir, the same one each time.
func (d Database) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	rng := rand.NewChaCha8([32]byte{1}) // repeatable: the benchmark's figures depend on the signatures
	random := func(n int) string {
		b := make([]byte, n)
		_, _ = rng.Read(b) // never fails
		return hex.EncodeToString(b)
	}
	if err := writeDaily(filepath.Join(dir, "daily.cud")); err != nil {
		return err
	}
	err := writeLines(filepath.Join(dir, "bench.ndb"), d.Bodies+1, func(i int) string {
		if i == 0 {
			return "Eicar-Test-Signature:0:*:" + hex.EncodeToString(scan.EICAR())
		}
		body := random(16 + int(rng.Uint64()%48))
		if i%4 == 0 {
			body += "{4-64}" + random(8)
		}
		return fmt.Sprintf("Bench.Body-%d:0:*:%s", i, body)
	})
	if err != nil {
		return err
	}
	return writeLines(filepath.Join(dir, "bench.hsb"), d.Hashes, func(i int) string {
		return fmt.Sprintf("%s:%d:Bench.Hash-%d", random(32), 1000+rng.Uint64()%1_000_000, i)
	})
}

// writeDaily writes an unsigned container by the name of ClamAV's daily updates, with one signature in it. It gives the
// database a version, which only a container has: what remembers verdicts cannot do so without knowing of which signatures.
func writeDaily(file string) error {
	const sig = "Bench.Daily-1:0:*:0123456789abcdeffedcba9876543210\n"
	now := time.Now()
	// Time, version, signatures, level of functions, MD5 and signature of the rest (not looked at), builder, time again.
	head := fmt.Sprintf("ClamAV-VDB:%s:1:1:90:%032d:x:bench:%d", now.UTC().Format("02 Jan 2006 15-04 -0700"), 0, now.Unix())
	info := fmt.Sprintf("%s\ndaily.ndb:%d:%x\n", head, len(sig), sha256.Sum256([]byte(sig)))
	var b bytes.Buffer
	fmt.Fprintf(&b, "%-512s", head)
	gz := gzip.NewWriter(&b)
	tw := tar.NewWriter(gz)
	for _, m := range []struct{ name, body string }{{"daily.info", info}, {"daily.ndb", sig}} {
		h := &tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.body)), Format: tar.FormatUSTAR}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(tw, m.body); err != nil {
			return err
		}
	}
	if err := errors.Join(tw.Close(), gz.Close()); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

func writeLines(file string, n int, line func(int) string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for i := range n {
		fmt.Fprintln(w, line(i)) // the error stays with w until Flush
	}
	if err := w.Flush(); err != nil {
		_ = f.Close() // the first error is the one that counts
		return err
	}
	return f.Close()
}

// Clamd is a running clamd.
type Clamd struct {
	*Child
	Socket string // path of its unix socket
}

// StartClamd runs clamd in dir with a database of its own. Its limits are as high as they go, so that every gateway can
// have everything scanned, and what it has not looked at to the end it does not call clean.
func StartClamd(ctx context.Context, dir string, d Database) (*Clamd, error) {
	db, tmp, sock := filepath.Join(dir, "db"), filepath.Join(dir, "clamd-tmp"), filepath.Join(dir, "clamd.sock")
	if err := d.write(db); err != nil {
		return nil, fmt.Errorf("clamd's database: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "clamd.conf")
	settings := fmt.Sprintf(`Foreground yes
DatabaseDirectory %s
TemporaryDirectory %s
LocalSocket %s
LocalSocketMode 666
MaxThreads 12
IdleTimeout 30
SelfCheck 0
AlertExceedsMax yes
MaxScanTime 0
MaxScanSize 4000M
MaxFileSize 2000M
StreamMaxLength 2000M
`, db, tmp, sock)
	if os.Getuid() == 0 {
		settings += "User root\n"
	}
	if err := os.WriteFile(conf, []byte(settings), 0o644); err != nil {
		return nil, err
	}
	c, err := Start("clamd", dir, "clamd", "--config-file="+conf)
	if err != nil {
		return nil, err
	}
	err = c.WaitReady(ctx, 5*time.Minute, func() error { return ask("unix", sock, "zPING\x00", "PONG") })
	if err != nil {
		c.Stop()
		return nil, err
	}
	return &Clamd{c, sock}, nil
}
