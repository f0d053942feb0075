package quarantine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

// schemaVersion is the index's PRAGMA user_version.
const schemaVersion = 1

const schema = `
CREATE TABLE IF NOT EXISTS entries (
	id TEXT PRIMARY KEY, time INTEGER NOT NULL, last_seen INTEGER NOT NULL, seen INTEGER NOT NULL,
	protocol TEXT NOT NULL, direction TEXT NOT NULL, client TEXT NOT NULL, server TEXT NOT NULL, user TEXT NOT NULL, url TEXT NOT NULL,
	sender TEXT NOT NULL, recipient TEXT NOT NULL, subject TEXT NOT NULL, date TEXT NOT NULL,
	outcome TEXT NOT NULL, reason TEXT NOT NULL, signature TEXT NOT NULL, engine TEXT NOT NULL, path TEXT NOT NULL,
	rule TEXT NOT NULL, action TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL,
	size INTEGER NOT NULL, sha256 TEXT NOT NULL, stored INTEGER NOT NULL, state TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_oldest ON entries (last_seen, stored, state);
CREATE INDEX IF NOT EXISTS entries_sha256 ON entries (sha256);
`

// errDamaged says that the index must be made anew.
var errDamaged = errors.New("is damaged")

func damaged(err error) bool {
	var e *sqlite.Error
	return errors.Is(err, errDamaged) ||
		errors.As(err, &e) && (e.Code()&0xff == sqlitelib.SQLITE_CORRUPT || e.Code()&0xff == sqlitelib.SQLITE_NOTADB)
}

// putAside gives a damaged index another name.
func putAside(path string) (string, error) {
	aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405")
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return aside, nil
}

// openIndex opens the index, and makes it where there is none.
func openIndex(ctx context.Context, path string) (*sql.DB, error) {
	// SQLite gives its other files the rights of this one.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("quarantine: index: %w", err)
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(15000)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-512)", "secure_delete(ON)"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("quarantine: index: %w", err)
	}
	db.SetMaxOpenConns(3)
	if err := setUp(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("quarantine: index %s: %w", path, err), db.Close())
	}
	return db, nil
}

func setUp(ctx context.Context, db *sql.DB) error {
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > schemaVersion {
		return fmt.Errorf("was made by a newer version of Lazaret (%d, this one knows %d)", version, schemaVersion)
	}
	if version == schemaVersion {
		var verdict string
		if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
			return err
		}
		if verdict != "ok" {
			return fmt.Errorf("%w: %s", errDamaged, verdict)
		}
		return nil
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return err
	}
	return tx.Commit()
}

// transact runs f in a transaction that nobody else writes during.
func (s *Store) transact(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("quarantine: index: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("quarantine: index: %w", err)
	}
	return nil
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

var selectSQL = "SELECT " + strings.Join(columns, ", ") + " FROM entries "

var insertSQL = "INSERT INTO entries (" + strings.Join(columns, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ")"

func insert(ctx context.Context, db execer, e *Entry) error {
	if _, err := db.ExecContext(ctx, insertSQL, e.fields()...); err != nil {
		return fmt.Errorf("quarantine: index: %w", err)
	}
	return nil
}

// sized is an entry as far as making room, expiry and repairs are concerned.
type sized struct {
	id     string
	stored int64
	state  State
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// pick returns the entries of a condition, in its order.
func pick(ctx context.Context, db querier, where string, args ...any) ([]sized, error) {
	rows, err := db.QueryContext(ctx, "SELECT id, stored, state FROM entries "+where, args...)
	if err != nil {
		return nil, fmt.Errorf("quarantine: index: %w", err)
	}
	defer rows.Close() // Err tells what there is to be told
	var out []sized
	for rows.Next() {
		var e sized
		if err := rows.Scan(&e.id, &e.stored, (*string)(&e.state)); err != nil {
			return nil, fmt.Errorf("quarantine: index: %w", err)
		}
		out = append(out, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("quarantine: index: %w", err)
	}
	return out, nil
}

// setState changes the state of entries, and of none that has another state than from.
func setState(ctx context.Context, db execer, from, to State, ids ...string) error {
	for _, id := range ids {
		if _, err := db.ExecContext(ctx, "UPDATE entries SET state = ? WHERE id = ? AND state = ?", string(to), id, string(from)); err != nil {
			return fmt.Errorf("quarantine: index: %w", err)
		}
	}
	return nil
}
