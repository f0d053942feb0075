package quarantine

import (
	"bufio"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// Errors that callers tell apart.
var (
	ErrNone     = errors.New("there is no quarantine here")
	ErrNotFound = errors.New("there is no such entry")
	ErrTooLarge = errors.New("larger than the whole quarantine may become (max_size)")
	ErrFull     = errors.New("there is no room in the quarantine")
)

// Options say how a Store is opened.
type Options struct {
	Create bool // make the folder and a key where there is none; otherwise that is ErrNone
	Log    *slog.Logger
}

// Store is an open quarantine. It is safe for use by many goroutines, and by several processes.
type Store struct {
	cfg        Config
	dir        string
	objects    string
	lockPath   string
	recipients []age.Recipient
	db         *sql.DB
	slots      *semaphore.Weighted
	log        *slog.Logger
}

// Open opens the quarantine in dir. What a killed process has left there is put in order, unless another process is changing
// something just now: then Maintain does it later.
func Open(ctx context.Context, cfg Config, dir string, opt Options) (s *Store, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("quarantine: %w", err)
	}
	s = &Store{
		cfg: cfg, dir: dir, objects: filepath.Join(dir, "objects"), lockPath: filepath.Join(dir, "lock"),
		slots: semaphore.NewWeighted(int64(cfg.Concurrent)), log: opt.Log,
	}
	if _, err := os.Stat(s.objects); errors.Is(err, fs.ErrNotExist) && !opt.Create {
		return nil, fmt.Errorf("%w: %s", ErrNone, dir)
	}
	if err := os.MkdirAll(s.objects, 0o700); err != nil {
		return nil, fmt.Errorf("quarantine: %w", err)
	}
	if s.recipients, err = loadRecipients(dir); err != nil {
		return nil, err
	}
	if err := s.openDB(ctx); err != nil {
		return nil, err
	}
	if err := s.repair(ctx); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

func (s *Store) openDB(ctx context.Context) (err error) {
	path := filepath.Join(s.dir, "index.db")
	if s.db, err = openIndex(ctx, path); err == nil || !damaged(err) {
		return err
	}
	unlock, ok, lockErr := s.exclusive()
	if lockErr != nil || !ok {
		return errors.Join(err, lockErr)
	}
	defer unlock()
	aside, asideErr := putAside(path)
	if asideErr != nil {
		return errors.Join(err, asideErr)
	}
	s.log.Error("the quarantine's index was damaged; it is made anew from the entries", "error", err, "aside", aside)
	s.db, err = openIndex(ctx, path)
	return err
}

// Close ends the use of the Store. Nothing may be under way.
func (s *Store) Close() error { return s.db.Close() }

// Put keeps an original: e describes it, with its ID and size, and content gives its bytes. When Put returns without an error
// the entry is durable. The same content that came on the same way before is not kept again: the ID returned is then that of
// the former entry. Errors are ErrTooLarge, ErrFull, ctx's, or the system's; then nothing was kept.
func (s *Store) Put(ctx context.Context, e Entry, content io.Reader) (id string, err error) {
	if err := e.prepare(); err != nil {
		return "", fmt.Errorf("quarantine: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout.Std())
	defer cancel()
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return "", fmt.Errorf("quarantine: waiting for others to be written: %w", err)
	}
	defer s.slots.Release(1)
	unlock, err := s.shared(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if id, err := s.again(ctx, &e); id != "" || err != nil {
		return id, err
	}
	if err := s.reserve(ctx, &e); err != nil {
		return "", err
	}
	if err := s.write(ctx, &e, content); err != nil {
		s.undo(e.ID)
		return "", err
	}
	return e.ID, nil
}

// again looks for an entry of the same content from the same way, counts it up, and returns its ID; empty where there is none.
func (s *Store) again(ctx context.Context, e *Entry) (string, error) {
	if e.SHA256 == "" {
		return "", nil
	}
	found, err := pick(ctx, s.db, `WHERE sha256 = ? AND state = ? AND size = ? AND protocol = ? AND direction = ? AND client = ? AND server = ?
		AND user = ? LIMIT 1`, e.SHA256, string(Stored), e.Size, e.Protocol, e.Direction, e.Client, e.Server, e.User)
	if err != nil || len(found) == 0 {
		return "", err
	}
	if _, err := os.Stat(s.path(found[0].id)); err != nil {
		return "", nil //nolint:nilerr // kept anew: it cannot be relied on
	}
	r, err := s.db.ExecContext(ctx, "UPDATE entries SET seen = seen + 1, last_seen = max(last_seen, ?) WHERE id = ? AND state = ?",
		(*stamp)(&e.Time), found[0].id, string(Stored))
	if err != nil {
		return "", fmt.Errorf("quarantine: index: %w", err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return "", err // somebody has deleted it meanwhile
	}
	return found[0].id, nil
}

// reserve makes room for an entry, and puts it into the index as one that is being written.
func (s *Store) reserve(ctx context.Context, e *Entry) error {
	e.State = writing
	e.Stored = e.Size + e.Size/(64<<10)*16 + 16<<10 // what encryption and description add, at most
	if err := s.freeDisk(e.Stored); err != nil {
		return err
	}
	var victims []sized
	err := s.transact(ctx, func(tx *sql.Tx) (err error) {
		if victims, err = s.victims(ctx, tx, e.Stored); err != nil {
			return err
		}
		for _, v := range victims {
			if err := setState(ctx, tx, v.state, deleting, v.id); err != nil {
				return err
			}
		}
		return insert(ctx, tx, e)
	})
	if err != nil {
		return err
	}
	for _, v := range victims {
		s.log.Warn("the oldest entry of the quarantine was deleted to make room", "reference", v.id, "size", v.stored)
		s.note("evict", v.id, "to make room for "+e.ID)
		if err := s.unlink(ctx, v.id); err != nil {
			s.log.Error("an entry of the quarantine could not be deleted; it is tried again later", "reference", v.id, "error", err)
		}
	}
	return nil
}

// victims returns the oldest entries that have to go so that one of n bytes fits.
func (s *Store) victims(ctx context.Context, tx *sql.Tx, n int64) ([]sized, error) {
	if n > int64(s.cfg.MaxSize) {
		return nil, fmt.Errorf("quarantine: %d bytes: %w", n, ErrTooLarge)
	}
	var count, bytes int64
	err := tx.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(stored), 0) FROM entries WHERE state <> ?", string(deleting)).Scan(&count, &bytes)
	if err != nil {
		return nil, fmt.Errorf("quarantine: index: %w", err)
	}
	fits := func() bool { return count < int64(s.cfg.MaxEntries) && bytes+n <= int64(s.cfg.MaxSize) }
	if fits() {
		return nil, nil
	}
	const batch = 256
	all, err := pick(ctx, tx, "WHERE state IN (?, ?) ORDER BY last_seen, id LIMIT ?", string(Stored), string(Missing), batch)
	if err != nil {
		return nil, err
	}
	for i, v := range all {
		count--
		bytes -= v.stored
		if fits() {
			return all[:i+1], nil
		}
	}
	// Many small ones for one that is huge; or all that is there is being written at this moment.
	if len(all) < batch {
		return nil, fmt.Errorf("quarantine: others are being written: %w", ErrFull)
	}
	return nil, fmt.Errorf("quarantine: more than %d entries would have to go: %w", batch, ErrFull)
}

// freeDisk says whether n bytes can be had of the disk, apart from what is left to others.
func (s *Store) freeDisk(n int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.objects, &st); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < n+int64(s.cfg.MinFree) {
		return fmt.Errorf("quarantine: the disk has %d bytes left, and %v of them are for others (min_free): %w", free, s.cfg.MinFree, ErrFull)
	}
	return nil
}

func (s *Store) path(id string) string { return filepath.Join(s.objects, id+".age") }
func (s *Store) part(id string) string { return filepath.Join(s.objects, id+".part") }

// write writes the entry's file under another name, has it last, gives it its name, has that last, and enters that it is there.
func (s *Store) write(ctx context.Context, e *Entry, content io.Reader) error {
	f, err := os.OpenFile(s.part(e.ID), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	err = s.encrypt(ctx, f, e, content)
	if err == nil {
		err = f.Sync()
	}
	st, statErr := f.Stat()
	if err = errors.Join(err, statErr, f.Close()); err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return fmt.Errorf("quarantine: %w: %w", ErrFull, err)
		}
		return fmt.Errorf("quarantine: %w", err)
	}
	if err := os.Rename(s.part(e.ID), s.path(e.ID)); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if err := syncDir(s.objects); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	_, err = s.db.ExecContext(ctx, "UPDATE entries SET state = ?, stored = ?, sha256 = ? WHERE id = ?", string(Stored), st.Size(), e.SHA256, e.ID)
	if err != nil {
		return fmt.Errorf("quarantine: index: %w", err)
	}
	return nil
}

// magic begins what is encrypted: this line, a line of JSON that is the Entry, the original.
const magic = "lazaret quarantine 1\n"

func (s *Store) encrypt(ctx context.Context, f io.Writer, e *Entry, content io.Reader) error {
	out := bufio.NewWriterSize(f, 64<<10)
	w, err := age.Encrypt(out, s.recipients...)
	if err != nil {
		return err
	}
	about := *e
	about.State, about.Stored = "", 0
	head, err := json.Marshal(about)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, magic+string(head)+"\n"); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), &patient{ctx, io.LimitReader(content, e.Size+1)})
	if err != nil {
		return err
	}
	if n != e.Size {
		return fmt.Errorf("the original was said to have %d bytes and has %d or more", e.Size, n)
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	if e.SHA256 != "" && e.SHA256 != digest {
		return errors.New("the original has not the digest that it was said to have")
	}
	e.SHA256 = digest
	if err := w.Close(); err != nil {
		return err
	}
	return out.Flush()
}

// patient reads until the context ends.
type patient struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}

// undo removes what a Put that failed has left. What it cannot remove now, the next repair does.
func (s *Store) undo(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := os.Remove(s.part(id))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err := errors.Join(err, s.unlink(ctx, id)); err != nil {
		s.log.Error("an entry of the quarantine that was not finished could not be removed; it is tried again later", "reference", id, "error", err)
	}
}

// unlink removes an entry's file for good, and then what the index has of it.
func (s *Store) unlink(ctx context.Context, id string) error {
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("quarantine: %w", err)
	}
	if err := syncDir(s.objects); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if _, err := s.db.ExecContext(ctx, "DELETE FROM entries WHERE id = ? AND state IN (?, ?)", id, string(deleting), string(writing)); err != nil {
		return fmt.Errorf("quarantine: index: %w", err)
	}
	return nil
}
