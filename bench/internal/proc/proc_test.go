package proc

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	good := `17 (a ) b (c) S 9 17 17 0 -1 4194560 1 2 3 4 100 50 7 3 20 0 1 0 4242 0 0`
	s, err := parseStat([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if s.pid != 17 || s.ppid != 9 || s.cpu != 1600*time.Millisecond || s.start != 4242 {
		t.Errorf("got %+v", s)
	}
	for _, bad := range []string{"", "17", "17 (x", "x (y) S 9", "17 (y) S 9 1", "17 (y) S x" + good[len("17 (a ) b (c) S 9"):]} {
		if s, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, s)
		}
	}
}

func TestParseBusy(t *testing.T) {
	used, stolen, err := parseBusy([]byte("cpu  100 10 50 9999 8888 1 2 33 0 0\ncpu0 1\n"))
	if err != nil || used != 1630*time.Millisecond || stolen != 330*time.Millisecond {
		t.Errorf("got %v, %v, %v", used, stolen, err)
	}
	if _, _, err := parseBusy([]byte("intr 1 2 3 4 5 6 7 8 9\n")); err == nil {
		t.Error("a line of another kind was taken")
	}
}

// A shell that burns processor time in a child: the child's time must be found, while it lives and afterwards.
func TestCPUOfChildren(t *testing.T) {
	cmd := exec.Command("sh", "-c", `sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; read x`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = cmd.Wait() // read fails at the end of its input
	}()
	seen := 0
	for range 1000 {
		procs, err := Tree(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		seen = max(seen, len(procs))
		if cpu, err := CPU(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		} else if cpu >= 50*time.Millisecond && len(procs) == 1 {
			if seen < 2 {
				t.Error("the child was never seen")
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the child's processor time does not show")
}

func TestMemoryAndPeak(t *testing.T) {
	self := os.Getpid()
	if err := ResetPeak(self); err != nil {
		t.Fatal(err)
	}
	before, err := MemoryOf(self)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	big := make([]byte, size)
	for i := range big {
		big[i] = byte(i)
	}
	after, err := MemoryOf(self)
	if err != nil {
		t.Fatal(err)
	}
	if after.Peak-before.RSS < size*9/10 || after.RSS-before.RSS < size*9/10 || after.PSS-before.PSS < size*9/10 {
		t.Errorf("%d bytes more in use, but %+v became %+v", size, before, after)
	}
	if big[size-1] != 255 {
		t.Error("the memory was not used")
	}
}

func TestUnlinked(t *testing.T) {
	before, err := Unlinked(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 1 << 20
	if _, err := f.Write(bytes.Repeat([]byte("x"), size)); err != nil || f.Sync() != nil {
		t.Fatal(err)
	}
	if now, err := Unlinked(os.Getpid()); err != nil || now != before {
		t.Errorf("with a name: %d bytes, before %d, %v", now, before, err)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if now, err := Unlinked(os.Getpid()); err != nil || now < before+size {
		t.Errorf("without a name: %d bytes, before %d, %v", now, before, err)
	}
}
