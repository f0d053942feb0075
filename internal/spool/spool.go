// Package spool holds objects while they wait for a verdict: in memory while they are small, in an unlinked file beyond,
// bounded one by one and in all.
//
// A Pool hands out Writers. A Writer takes the bytes, hashes them on the way, and is sealed into a Blob. A Blob is
// immutable, may be read by many at once, from the start each time, and is counted: the last Close gives its room back.
package spool

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"lazaret/internal/units"

	"golang.org/x/sys/unix"
)

// Errors of a Writer. They are conditions of one object, never of the service.
var (
	// ErrTooLarge says that the object exceeds the limit for a single object.
	ErrTooLarge = errors.New("object is larger than the spool's limit for one object")
	// ErrFull says that the spool, or the disk under it, has no room at present.
	ErrFull = errors.New("the spool has no room")
	// ErrClosed says that a Writer or a Blob was used after its end.
	ErrClosed = errors.New("spool: used after close")
)

// Config bounds a Pool.
type Config struct {
	Dir         string         `toml:"dir" doc:"where objects wait that do not fit in memory; empty: <state_dir>/spool. The files have no names and vanish with the process."`
	Memory      units.Size     `toml:"memory" doc:"up to this size one object waits in memory"`
	MaxObject   units.Size     `toml:"max_object" doc:"a larger object is not taken: its verdict is Incomplete (too large)"`
	TotalMemory units.Size     `toml:"total_memory" doc:"memory for all waiting objects together; beyond it they go to disk"`
	TotalDisk   units.Size     `toml:"total_disk" doc:"disk for all waiting objects together; beyond it objects wait for room"`
	Wait        units.Duration `toml:"wait" doc:"how long an object waits for room on disk before it is refused"`
	MinFree     units.Size     `toml:"min_free" doc:"free disk space that is left to others"`
}

// Default returns the settings that work without a file.
func Default() Config {
	return Config{
		Memory:      256 * units.KiB,
		MaxObject:   4 * units.GiB,
		TotalMemory: 128 * units.MiB,
		TotalDisk:   32 * units.GiB,
		MinFree:     256 * units.MiB,
		Wait:        units.Duration(5 * time.Minute),
	}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	if c.MaxObject <= 0 {
		errs = append(errs, errors.New("max_object: must be greater than zero"))
	}
	if c.TotalDisk < c.MaxObject {
		errs = append(errs, fmt.Errorf("total_disk: %v cannot hold one object of max_object (%v)", c.TotalDisk, c.MaxObject))
	}
	if c.TotalMemory < c.Memory {
		errs = append(errs, fmt.Errorf("total_memory: %v cannot hold one object of memory (%v)", c.TotalMemory, c.Memory))
	}
	if c.Wait < 0 {
		errs = append(errs, errors.New("wait: must not be negative; write \"0s\" to refuse objects at once"))
	}
	return errors.Join(errs...)
}

// Pool is the room that all waiting objects share. It is safe for use by many goroutines.
type Pool struct {
	cfg    Config
	memory atomic.Int64
	disk   atomic.Int64
	shrink atomic.Pointer[func() bool]
	room   room

	waiting atomic.Int64 // Writers that wait for room
}

// OnShortage has give called when an object finds no room on disk, as long as it returns true and there is still none: it gives
// up something that is kept without need, and says whether there was anything. It must not write to the pool.
func (p *Pool) OnShortage(give func() bool) { p.shrink.Store(&give) }

// reclaim asks for room, and says whether there may be some.
func (p *Pool) reclaim() bool {
	give := p.shrink.Load()
	return give != nil && (*give)()
}

// NewPool returns a pool bounded by cfg, and an error when the directory cannot be used. The directory is made when it
// is missing, for the owner alone.
func NewPool(cfg Config) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Dir == "" {
		cfg.Dir = os.TempDir()
	} else if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool directory: %w", err)
	}
	p := &Pool{cfg: cfg, room: room{growing: map[*Writer]struct{}{}}}
	f, err := p.unlinked()
	if err != nil {
		return nil, fmt.Errorf("spool directory %s cannot be written: %w", cfg.Dir, err)
	}
	return p, f.Close()
}

// Usage is what a pool holds at one moment, in bytes.
type Usage struct{ Memory, Disk int64 }

// Waiting returns how many objects wait for room now.
func (p *Pool) Waiting() int { return int(p.waiting.Load()) }

// Usage returns what is held now.
func (p *Pool) Usage() Usage { return Usage{Memory: p.memory.Load(), Disk: p.disk.Load()} }

// Config returns the bounds the pool was made with.
func (p *Pool) Config() Config { return p.cfg }

// unlinked returns a new open file that has no name.
func (p *Pool) unlinked() (*os.File, error) {
	fd, err := unix.Open(p.cfg.Dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), p.cfg.Dir+"/(unlinked)"), nil
	}
	// Some file systems (overlayfs of old kernels, NFS) have no O_TMPFILE.
	f, err := os.CreateTemp(p.cfg.Dir, "lazaret-spool-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// take adds n to the counter unless that exceeds limit, and says whether it did.
func take(counter *atomic.Int64, n int64, limit units.Size) bool {
	if counter.Add(n) > int64(limit) {
		counter.Add(-n)
		return false
	}
	return true
}

// roomOnDisk says whether the file system has room for n more bytes and what is to be left to others.
func (p *Pool) roomOnDisk(n int64) bool {
	if p.cfg.MinFree <= 0 {
		return true
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p.cfg.Dir, &st); err != nil {
		return false
	}
	return int64(st.Bavail)*st.Bsize >= n+int64(p.cfg.MinFree)
}
