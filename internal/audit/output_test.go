package audit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gateWriter takes nothing while its gate is closed.
type gateWriter struct {
	buffer
	gate    chan struct{}
	entered chan struct{}
	once    sync.Once
}

func newGateWriter() *gateWriter {
	return &gateWriter{gate: make(chan struct{}), entered: make(chan struct{})}
}

func (w *gateWriter) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.entered) })
	<-w.gate
	return w.buffer.Write(p)
}

func stallingLog(t *testing.T, w *gateWriter, limit int64, patience time.Duration) (*Log, *Output, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "overflow")
	out := newOutput(w, nil, &overflow{path: path, limit: limit})
	out.patience = patience
	h := newHandler(out, false, slog.LevelInfo)
	out.setResumed(h.resumed)
	return New(slog.New(h), Default()), out, path
}

func TestStalledLogNeverStopsScanningAndLosesNoBlock(t *testing.T) {
	w := newGateWriter()
	l, out, path := stallingLog(t, w, 8<<20, time.Millisecond)
	var wg sync.WaitGroup
	const workers, each = 8, 1000
	for i := range workers {
		wg.Go(func() {
			for j := range each {
				r := block()
				r.Reference = "REF-" + strconv.Itoa(i*each+j) + "-"
				l.Record(r)
			}
		})
	}
	wg.Wait() // would never end if a stalled writer stalled whoever records
	if s := out.Status(); !s.Stalled || s.Overflowed == 0 || s.Lost != 0 {
		t.Errorf("while stalled: %+v", s)
	}
	close(w.gate)
	for i := 0; !strings.Contains(w.String(), "takes lines again"); i++ {
		time.Sleep(time.Millisecond)
	}
	l.Record(block())
	if err := out.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := out.Status(); s.Stalled {
		t.Errorf("after the stall: %+v", s)
	}
	over, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, m := range regexp.MustCompile(`REF-[0-9]+-`).FindAllString(w.String()+string(over), -1) {
		seen[m]++
	}
	for i := range workers * each {
		if n := seen["REF-"+strconv.Itoa(i)+"-"]; n != 1 {
			t.Fatalf("record %d is there %d times", i, n)
		}
	}
	if bytes.Count(over, []byte("\n")) != int(out.Status().Overflowed) {
		t.Errorf("%d lines in the overflow file, %d counted", bytes.Count(over, []byte("\n")), out.Status().Overflowed)
	}
}

func TestFloodOfCleanRecordsCannotPushOutBlocks(t *testing.T) {
	w := newGateWriter()
	const limit = 64 << 10
	l, out, path := stallingLog(t, w, limit, time.Millisecond)
	for out.Status().LostClean < 100 {
		l.Record(clean())
	}
	for range 10 {
		l.Record(block())
	}
	over, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(over), `"outcome":"infected"`); n != 10 {
		t.Errorf("%d of 10 blocks are in the overflow file", n)
	}
	if s := out.Status(); s.Lost != 0 || s.Err == nil {
		t.Errorf("%+v", s)
	}
	for out.Status().Lost == 0 {
		l.Record(block())
	}
	if info, err := os.Stat(path); err != nil || info.Size() > limit {
		t.Errorf("the overflow file has %d bytes, its limit is %d: %v", info.Size(), limit, err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	lost := out.Status().Lost
	l.Record(block())
	if s := out.Status(); s.Lost != lost {
		t.Error("moving the full overflow file away did not make room")
	}
	close(w.gate)
	if err := out.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestSlowLogSlowsDownAndLosesNothing(t *testing.T) {
	w := newGateWriter()
	l, out, path := stallingLog(t, w, 1<<20, time.Hour)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 4 * queueBytes / 500 { // lines have more than 500 bytes
			l.Record(clean())
		}
	}()
	<-w.entered
	for waiting := 0; waiting < queueBytes-1000; {
		time.Sleep(time.Millisecond)
		out.mu.Lock()
		waiting = len(out.pending)
		out.mu.Unlock()
		if waiting > queueBytes {
			t.Fatalf("%d bytes wait: the queue is not bounded", waiting)
		}
	}
	select {
	case <-done:
		t.Fatal("the queue is not bounded: everything was taken while nothing was written")
	default:
	}
	close(w.gate)
	<-done
	if err := out.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(w.String(), "\n"); n != 4*queueBytes/500 {
		t.Errorf("%d lines of %d", n, 4*queueBytes/500)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an overflow file was made: %v", err)
	}
}

func TestFullDiskUnderTheLogGoesToTheOverflowFile(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	cfg := Default()
	cfg.Overflow = filepath.Join(t.TempDir(), "overflow")
	logger, out, err := NewLogger(full, cfg)
	if err != nil {
		t.Fatal(err)
	}
	New(logger, cfg).Record(block())
	if err := out.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	over, err := os.ReadFile(cfg.Overflow)
	if err != nil || strings.Count(string(over), "4FJ2-9QX0-K7") != 1 {
		t.Errorf("the overflow file has %q: %v", over, err)
	}
	if s := out.Status(); !errors.Is(s.Err, unix.ENOSPC) || s.Overflowed != 1 {
		t.Errorf("Status is %+v", s)
	}
}

func TestCloseOfAStalledLogKeepsTheLastLines(t *testing.T) {
	w := newGateWriter()
	l, out, path := stallingLog(t, w, 1<<20, time.Hour)
	l.Record(clean())
	<-w.entered
	l.Record(block())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := out.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close says %v", err)
	}
	l.Record(block()) // after the end
	over, err := os.ReadFile(path)
	if err != nil || strings.Count(string(over), `"infected"`) != 2 {
		t.Errorf("the overflow file has %q: %v", over, err)
	}
	close(w.gate)
	<-out.done
	if err := out.overflow.release(); err != nil {
		t.Fatal(err)
	}
}

func TestReopenAfterRotation(t *testing.T) {
	cfg := Default()
	cfg.File = filepath.Join(t.TempDir(), "log")
	logger, out, err := NewLogger(nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	logger.Info("first")
	for {
		if b, err := os.ReadFile(cfg.File); err == nil && bytes.Contains(b, []byte("first")) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := os.Rename(cfg.File, cfg.File+".1"); err != nil {
		t.Fatal(err)
	}
	if err := out.Reopen(); err != nil {
		t.Fatal(err)
	}
	logger.Info("second")
	if err := out.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{cfg.File + ".1": "first", cfg.File: "second"} {
		b, err := os.ReadFile(name)
		if err != nil || strings.Count(string(b), "\n") != 1 || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s has %q, want one line with %q: %v", name, b, want, err)
		}
	}
	if err := out.Close(t.Context()); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestFormatFollowsTheTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skip(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skip(err)
	}
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer tty.Close()
	logger, out, err := NewLogger(tty, Default())
	if err != nil {
		t.Fatal(err)
	}
	New(logger, Default()).Record(block())
	if err := out.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	k, err := master.Read(buf)
	if err != nil || !strings.Contains(string(buf[:k]), "level=WARN msg=object reference=4FJ2-9QX0-K7") {
		t.Errorf("on a terminal: %q, %v", buf[:k], err)
	}
}

func TestLinesThatGatherKeepTheirPlaceAndAreWritten(t *testing.T) {
	w := newGateWriter()
	close(w.gate)
	out := newOutput(w, nil, &overflow{})
	written := func(want string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); w.String() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("written: %q, want %q", w.String(), want)
			}
		}
	}
	out.put([]byte("clean 1\n"), true)
	out.put([]byte("clean 2\n"), true)
	out.put([]byte("block\n"), false)
	written("clean 1\nclean 2\nblock\n")
	out.put([]byte("clean 3\n"), true)
	written("clean 1\nclean 2\nblock\nclean 3\n") // though nothing else comes
	out.put([]byte("clean 4\n"), true)
	if err := out.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	written("clean 1\nclean 2\nblock\nclean 3\nclean 4\n")
}
