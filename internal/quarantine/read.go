package quarantine

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
)

// Filter says which entries are meant: those that every condition is true of. The zero value means all.
type Filter struct {
	Since, Until time.Time    // when it was last seen; Until itself is not in
	Signature    string       // a part of the name, in any case
	Client       netip.Prefix // network of the client
	User         string
	Protocol     string
	Address      string // a part of From or To, in any case
	SHA256       string
	Limit        int // the newest so many; 0: all
}

// where returns the filter as a condition of SQL. Networks are not in it.
func (f Filter) where() (string, []any) {
	cond, args := []string{"state IN (?, ?)"}, []any{string(Stored), string(Missing)}
	add := func(c string, a ...any) { cond, args = append(cond, c), append(args, a...) }
	if !f.Since.IsZero() {
		add("last_seen >= ?", f.Since.UnixMilli())
	}
	if !f.Until.IsZero() {
		add("last_seen < ?", f.Until.UnixMilli())
	}
	if f.Signature != "" {
		add(`signature LIKE ? ESCAPE '\'`, within(f.Signature))
	}
	if f.User != "" {
		add("user = ?", f.User)
	}
	if f.Protocol != "" {
		add("protocol = ?", f.Protocol)
	}
	if f.Address != "" {
		add(`(sender LIKE ? ESCAPE '\' OR recipient LIKE ? ESCAPE '\')`, within(f.Address), within(f.Address))
	}
	if f.SHA256 != "" {
		add("sha256 = ?", strings.ToLower(f.SHA256))
	}
	return "WHERE " + strings.Join(cond, " AND "), args
}

// within returns the pattern of LIKE for texts that s is in.
func within(s string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(s) + "%"
}

// List calls each with the entries that f means, the newest first, until there are no more or it returns an error. It must not
// change the quarantine.
func (s *Store) List(ctx context.Context, f Filter, each func(Entry) error) error {
	where, args := f.where()
	rows, err := s.db.QueryContext(ctx, selectSQL+where+" ORDER BY last_seen DESC, id", args...)
	if err != nil {
		return fmt.Errorf("quarantine: index: %w", err)
	}
	defer rows.Close() // Err tells what there is to be told
	for n := 0; rows.Next() && (f.Limit <= 0 || n < f.Limit); {
		var e Entry
		if err := rows.Scan(e.fields()...); err != nil {
			return fmt.Errorf("quarantine: index: %w", err)
		}
		if f.Client.IsValid() {
			a, err := netip.ParseAddr(e.Client)
			if err != nil || !f.Client.Contains(a.Unmap().WithZone("")) {
				continue
			}
		}
		n++
		if err := each(e); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("quarantine: index: %w", err)
	}
	return nil
}

// Get returns an entry, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (Entry, error) {
	id, err := ParseID(id)
	if err != nil {
		return Entry{}, err
	}
	rows, err := s.db.QueryContext(ctx, selectSQL+"WHERE id = ? AND state IN (?, ?)",
		id, string(Stored), string(Missing))
	if err != nil {
		return Entry{}, fmt.Errorf("quarantine: index: %w", err)
	}
	defer rows.Close() // Err tells what there is to be told
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return Entry{}, fmt.Errorf("quarantine: index: %w", err)
		}
		return Entry{}, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	var e Entry
	if err := rows.Scan(e.fields()...); err != nil {
		return Entry{}, fmt.Errorf("quarantine: index: %w", err)
	}
	return e, nil
}

// identityPath is where the secret key is looked for.
func (s *Store) identityPath() string {
	if s.cfg.Identity != "" {
		return s.cfg.Identity
	}
	return filepath.Join(s.dir, keyFile)
}

// Original returns an entry and what it keeps; the caller closes it. Identity is the file of the secret key; empty: the
// configured one. Reading ends with an error where the content is not what was kept.
func (s *Store) Original(ctx context.Context, id, identity string) (Entry, io.ReadCloser, error) {
	e, err := s.Get(ctx, id)
	if err != nil {
		return Entry{}, nil, err
	}
	if identity == "" {
		identity = s.identityPath()
	}
	about, content, err := s.open(e.ID, identity)
	if errors.Is(err, fs.ErrNotExist) && e.State == Missing {
		return Entry{}, nil, fmt.Errorf("%s: its file is gone", e.ID)
	}
	if err != nil {
		return Entry{}, nil, err
	}
	content.digest = about.SHA256
	if e.SHA256 != "" && about.SHA256 != "" && e.SHA256 != about.SHA256 {
		return Entry{}, nil, errors.Join(fmt.Errorf("%s: the index has another digest than the entry itself", e.ID), content.Close())
	}
	if content.digest == "" {
		content.digest = e.SHA256
	}
	content.size = about.Size
	return e, content, nil
}

// maxHead bounds the description in an entry's file.
const maxHead = 256 << 10

// open decrypts an entry's file up to its description.
func (s *Store) open(id, identity string) (Entry, *original, error) {
	ids, err := loadIdentities(identity)
	if err != nil {
		return Entry{}, nil, err
	}
	f, err := os.Open(s.path(id))
	if err != nil {
		return Entry{}, nil, fmt.Errorf("quarantine: %w", err)
	}
	fail := func(err error) (Entry, *original, error) {
		return Entry{}, nil, errors.Join(fmt.Errorf("quarantine: %s: %w", s.path(id), err), f.Close())
	}
	plain, err := age.Decrypt(bufio.NewReaderSize(f, 64<<10), ids...)
	if err != nil {
		return fail(err)
	}
	r := bufio.NewReaderSize(plain, maxHead)
	if line, err := r.ReadSlice('\n'); err != nil || string(line) != magic {
		return fail(errors.Join(errors.New("this is no entry of a quarantine"), err))
	}
	line, err := r.ReadSlice('\n')
	if err != nil {
		return fail(fmt.Errorf("the description: %w", err))
	}
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return fail(fmt.Errorf("the description: %w", err))
	}
	if e.ID != id {
		return fail(fmt.Errorf("is that of the entry %.40q", e.ID))
	}
	return e, &original{r: r, f: f, sum: sha256.New()}, nil
}

// original is what an entry keeps, while it is read.
type original struct {
	r      io.Reader
	f      *os.File
	sum    hash.Hash
	digest string // empty: not known
	size   int64
	n      int64
}

// Read implements io.Reader.
func (o *original) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	o.sum.Write(p[:n])
	o.n += int64(n)
	if errors.Is(err, io.EOF) && (o.n != o.size || o.digest != "" && hex.EncodeToString(o.sum.Sum(nil)) != o.digest) {
		return n, fmt.Errorf("quarantine: %s: the content is not what was kept", o.f.Name())
	}
	return n, err
}

// Close implements io.Closer.
func (o *original) Close() error { return o.f.Close() }

// Usage returns how many entries there are, and how many bytes they take.
func (s *Store) Usage(ctx context.Context) (entries, bytes int64, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(stored), 0) FROM entries WHERE state IN (?, ?)", string(Stored), string(Missing)).
		Scan(&entries, &bytes)
	if err != nil {
		err = fmt.Errorf("quarantine: index: %w", err)
	}
	return entries, bytes, err
}

// Delete deletes entries for good. Those before one that cannot be deleted are gone; unknown ones are ErrNotFound.
func (s *Store) Delete(ctx context.Context, ids ...string) error {
	unlock, err := s.shared(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, id := range ids {
		e, err := s.Get(ctx, id)
		if err != nil {
			return err
		}
		if err := setState(ctx, s.db, e.State, deleting, e.ID); err != nil {
			return err
		}
		if err := s.unlink(ctx, e.ID); err != nil {
			return err
		}
	}
	return nil
}

// Purge deletes the entries that f means, and returns how many. Before is called for each one; its error ends the purge.
func (s *Store) Purge(ctx context.Context, f Filter, before func(id string) error) (int, error) {
	var ids []string
	err := s.List(ctx, f, func(e Entry) error {
		ids = append(ids, e.ID)
		return nil
	})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, id := range ids {
		if err := before(id); err != nil {
			return n, err
		}
		switch err := s.Delete(ctx, id); {
		case errors.Is(err, ErrNotFound): // somebody else was faster
		case err != nil:
			return n, err
		default:
			n++
		}
	}
	return n, nil
}
