package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryLimitOfTheControlGroup(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("fs/system.slice/lazaret.service/memory.max", "max\n")
	write("fs/system.slice/memory.max", "1073741824\n")
	for self, want := range map[string]int64{
		"0::/system.slice/lazaret.service\n":              1 << 30, // of the one above
		"1:memory:/x\n0::/system.slice/lazaret.service\n": 1 << 30,
		"0::/\n":           0,
		"0::/elsewhere\n":  0,
		"2:memory:/only\n": 0,
		"":                 0,
	} {
		write("self", self)
		if got := cgroupMemory(filepath.Join(root, "self"), filepath.Join(root, "fs")); got != want {
			t.Errorf("%q: %d, want %d", self, got, want)
		}
	}
	write("self", "0::/system.slice/lazaret.service\n")
	write("fs/system.slice/lazaret.service/memory.max", "536870912\n")
	if got := cgroupMemory(filepath.Join(root, "self"), filepath.Join(root, "fs")); got != 512<<20 {
		t.Errorf("its own, which is less: %d", got)
	}
	if got := cgroupMemory(filepath.Join(root, "missing"), root); got != 0 {
		t.Errorf("without control groups: %d", got)
	}
}

func TestMemoryLimitIsAShare(t *testing.T) {
	for _, c := range []struct{ cgroup, machine, want int64 }{
		{0, 8 << 30, 4 << 30}, {1 << 30, 8 << 30, 768 << 20}, {8 << 30, 8 << 30, 4 << 30}, {1 << 30, 0, 768 << 20}, {0, 0, 0},
	} {
		if got := memoryLimit(c.cgroup, c.machine); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	if n := machineMemory(); n < 64<<20 {
		t.Errorf("this machine is said to have %d bytes", n)
	}
}
