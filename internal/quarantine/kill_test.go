package quarantine

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// childEnv has the test program be the process that is killed. It works in its current folder.
const childEnv = "LAZARET_TEST_QUARANTINE"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child("quarantine"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// originalOf returns what the entry number n of a round keeps.
func originalOf(round string, n int) []byte {
	line := fmt.Sprintf("round %s entry %d\r\n", round, n)
	return []byte(strings.Repeat(line, 1+n%7*800))
}

// child puts and deletes until it is killed. It says "+ID" when a Put has returned, and "-ID" before it deletes.
func child(dir string) error {
	cfg := testConfig()
	s, err := Open(context.Background(), cfg, dir, Options{Create: true})
	if err != nil {
		return err
	}
	round := os.Getenv(childEnv + "_ROUND")
	fmt.Println("ready")
	var wg sync.WaitGroup
	errs := make(chan error, 3)
	for worker := range 3 {
		wg.Go(func() {
			for n := worker; ; n += 3 {
				content := originalOf(round, n)
				e := entry(n, content)
				e.ID = "R" + round + "-" + strconv.Itoa(n)
				id, err := s.Put(context.Background(), e, bytes.NewReader(content))
				if err != nil {
					errs <- err
					return
				}
				fmt.Println("+" + id)
				if n%4 == 3 {
					fmt.Println("-" + id)
					if err := s.Delete(context.Background(), id); err != nil {
						errs <- err
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return <-errs
}

// TestKilledAtAnyMoment kills a process that puts and deletes, again and again: what it had been told is kept must be there
// and whole, what is listed must be readable, and nothing else may be left.
func TestKilledAtAnyMoment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "quarantine")
	rounds := 30
	if testing.Short() {
		rounds = 10
	}
	kept := map[string]bool{}
	leftParts, total := 0, 0
	for round := range rounds {
		acked, deleted := killed(t, dir, strconv.Itoa(round))
		total += len(acked)
		for id := range acked {
			kept[id] = true
		}
		for id := range deleted {
			delete(kept, id)
		}
		parts, err := filepath.Glob(filepath.Join(dir, "objects", "*.part"))
		if err != nil {
			t.Fatal(err)
		}
		leftParts += len(parts)
		check(t, dir, kept, deleted)
	}
	if total < rounds/2 || leftParts == 0 {
		t.Fatalf("%d entries were put, and %d were interrupted: nothing is tested", total, leftParts)
	}
	t.Logf("%d kills, %d entries, %d interrupted while they were written", rounds, total, leftParts)
}

// killed runs a child, kills it after a random time, and returns what it has said.
func killed(t *testing.T, dir, round string) (acked, deleted map[string]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1", childEnv+"_ROUND="+round)
	cmd.Dir = filepath.Dir(dir)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewScanner(out)
	if !r.Scan() || r.Text() != "ready" {
		t.Fatalf("%q %s", r.Text(), &complaints)
	}
	// The moment is one after so many lines, so that a slow machine gets as far as a fast one.
	acked, deleted = map[string]bool{}, map[string]bool{}
	lines := rand.IntN(8)
	for n := 0; n == lines || r.Scan(); n++ {
		if n == lines {
			timer := time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
			continue
		}
		if id, ok := strings.CutPrefix(r.Text(), "+"); ok {
			acked[id] = true
		} else if id, ok := strings.CutPrefix(r.Text(), "-"); ok {
			deleted[id] = true
		}
	}
	if err := cmd.Wait(); err == nil || complaints.Len() > 0 {
		t.Fatalf("the child was not killed: %v %s", err, &complaints)
	}
	return acked, deleted
}

func check(t *testing.T, dir string, kept, maybe map[string]bool) {
	t.Helper()
	s, err := Open(t.Context(), testConfig(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	listed := map[string]bool{}
	err = s.List(t.Context(), Filter{}, func(e Entry) error { listed[e.ID] = true; return nil })
	if err != nil {
		t.Fatal(err)
	}
	for id := range kept {
		if !listed[id] {
			t.Errorf("%s is lost", id)
		}
	}
	for id := range listed {
		e, r, err := s.Original(t.Context(), id, "")
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		got, err := io.ReadAll(r)
		round, n, _ := strings.Cut(strings.TrimPrefix(id, "R"), "-")
		number, _ := strconv.Atoi(n)
		if err != nil || !bytes.Equal(got, originalOf(round, number)) || e.State != Stored || e.From != "a@example" {
			t.Errorf("%s is half an entry: %v %+v", id, err, e)
		}
		r.Close()
		// What was written to its end, or not deleted to its end, and nobody was told of.
		if !kept[id] {
			kept[id] = true
		}
	}
	for id := range maybe {
		if !listed[id] {
			delete(kept, id)
		}
	}
	files, err := os.ReadDir(s.objects)
	if err != nil || len(files) != len(listed) {
		t.Errorf("%d files for %d entries, %v", len(files), len(listed), err)
	}
	if all, err := pick(t.Context(), s.db, ""); err != nil || len(all) != len(listed) {
		t.Errorf("the index has %d entries, %d of them are listed, %v", len(all), len(listed), err)
	}
}

// TestStatesAfterAKill makes each state that a kill can leave, and that chance seldom hits.
func TestStatesAfterAKill(t *testing.T) {
	for name, c := range map[string]struct {
		make func(*testing.T, *Store, string)
		want State // empty: no entry
	}{
		"entered, nothing written": {func(t *testing.T, s *Store, id string) { exec1(t, s, writing, id); remove(t, s.path(id)) }, ""},
		"half written": {func(t *testing.T, s *Store, id string) {
			exec1(t, s, writing, id)
			if err := os.Rename(s.path(id), s.part(id)); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"written, not entered as such": {func(t *testing.T, s *Store, id string) { exec1(t, s, writing, id) }, Stored},
		"to be deleted":                {func(t *testing.T, s *Store, id string) { exec1(t, s, deleting, id) }, ""},
		"deleted, not from the index":  {func(t *testing.T, s *Store, id string) { exec1(t, s, deleting, id); remove(t, s.path(id)) }, ""},
		"the file is gone":             {func(t *testing.T, s *Store, id string) { remove(t, s.path(id)) }, Missing},
		"the index does not know it": {func(t *testing.T, s *Store, _ string) {
			if _, err := s.db.ExecContext(t.Context(), "DELETE FROM entries"); err != nil {
				t.Fatal(err)
			}
		}, Stored},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t, nil)
			id := put(t, s, 1, []byte("content"))
			before, err := s.Get(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			c.make(t, s, id)
			if err := s.repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := list(t, s, Filter{})
			files, err := os.ReadDir(s.objects)
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" {
				if len(got) != 0 || len(files) != 0 {
					t.Errorf("%v, files %v", got, files)
				}
				return
			}
			after, err := s.Get(t.Context(), id)
			if err != nil || after.State != c.want {
				t.Fatalf("%+v %v", after, err)
			}
			if c.want == Stored {
				after.Time, after.LastSeen, before.Time, before.LastSeen = after.Time.Truncate(time.Millisecond), time.Time{}, before.Time.Truncate(time.Millisecond), time.Time{}
				if !after.Time.Equal(before.Time) {
					t.Errorf("time %v, was %v", after.Time, before.Time)
				}
				after.Time = before.Time
				if after != before || string(read(t, s, id)) != "content" {
					t.Errorf("%+v, was %+v", after, before)
				}
			}
		})
	}
}

func exec1(t *testing.T, s *Store, state State, id string) {
	t.Helper()
	if _, err := s.db.ExecContext(t.Context(), "UPDATE entries SET state = ? WHERE id = ?", string(state), id); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// TestNoRepairWhileSomebodyWrites: what another process has half written is left to it.
func TestNoRepairWhileSomebodyWrites(t *testing.T) {
	s := testStore(t, nil)
	r, w := io.Pipe()
	content := bytes.Repeat([]byte("x"), 300<<10)
	done := make(chan error, 1)
	go func() {
		_, err := s.Put(t.Context(), entry(1, content), r)
		done <- err
	}()
	if _, err := w.Write(content[:200<<10]); err != nil {
		t.Fatal(err)
	}
	other := open(t, s.dir, testConfig())
	if err := other.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := list(t, other, Filter{}); len(got) != 0 {
		t.Errorf("half an entry is listed: %v", got)
	}
	if _, err := w.Write(content[200<<10:]); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, other, "TEST-0001"), content) {
		t.Error("differs")
	}
}

// TestDamagedIndex: the index is made anew from the entries.
func TestDamagedIndex(t *testing.T) {
	s := testStore(t, nil)
	for i := range 3 {
		put(t, s, i, []byte{byte(i)})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, "index.db")
	for name, damage := range map[string]func() error{
		"garbage": func() error { return os.WriteFile(path, bytes.Repeat([]byte("garbage "), 4096), 0o600) },
		"gone":    func() error { return os.Remove(path) },
		"pages": func() error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 8000), 4096); err != nil {
				return err
			}
			return f.Close()
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		again, err := Open(t.Context(), testConfig(), s.dir, Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := list(t, again, Filter{}); len(got) != 3 {
			t.Errorf("%s: %v", name, got)
		}
		if e, err := again.Get(t.Context(), "TEST-0002"); err != nil || e.Signature != "Eicar-Test-Signature" || e.Subject != "hello" {
			t.Errorf("%s: %+v %v", name, e, err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
