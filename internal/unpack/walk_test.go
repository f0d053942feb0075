package unpack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"lazaret/internal/spool"
)

// found is what a walk came to.
type found struct {
	parts    map[string][]byte
	order    []string
	problems []Problem
}

func (f *found) String() string {
	var b strings.Builder
	for _, p := range f.order {
		fmt.Fprintf(&b, "  %s (%d bytes)\n", p, len(f.parts[p]))
	}
	for _, p := range f.problems {
		fmt.Fprintf(&b, "  problem: %v\n", p)
	}
	return b.String()
}

// has says whether some member contains b.
func (f *found) has(b []byte) bool {
	for _, p := range f.parts {
		if bytes.Contains(p, b) {
			return true
		}
	}
	return false
}

// kinds returns the kinds of the problems, each once.
func (f *found) kinds() []Kind {
	var k []Kind
	for _, p := range f.problems {
		if !slices.Contains(k, p.Kind) {
			k = append(k, p.Kind)
		}
	}
	return k
}

func walk(t testing.TB, name string, b []byte, lim Limits) *found {
	t.Helper()
	return walkIn(t, testPool(t, nil), name, b, lim)
}

func walkIn(t testing.TB, pool *spool.Pool, name string, b []byte, lim Limits) *found {
	t.Helper()
	src, err := pool.Of(b)
	if err != nil {
		t.Fatal(err)
	}
	f := &found{parts: map[string][]byte{}}
	f.problems = Walk(context.Background(), pool, Source{Blob: src, Name: name}, lim, func(p Part) error {
		content, err := io.ReadAll(p.Blob.NewReader())
		if err != nil {
			t.Errorf("%s: %v", p.Path, err)
		}
		if len(content) == 0 {
			t.Errorf("%s: an empty part was visited", p.Path)
		}
		f.parts[p.Path] = append(f.parts[p.Path], content...)
		f.order = append(f.order, p.Path)
		return nil
	})
	src.Close()
	if u := pool.Usage(); u != (spool.Usage{}) {
		t.Errorf("%s: after the walk the pool holds %+v", name, u)
	}
	return f
}

// wantClean checks that everything was read, and that the members are those.
func (f *found) wantClean(t testing.TB, paths ...string) {
	t.Helper()
	if len(f.problems) > 0 {
		t.Errorf("problems:\n%v", f)
	}
	for _, p := range paths {
		if _, ok := f.parts[p]; !ok {
			t.Errorf("no member %q in:\n%v", p, f)
		}
	}
}

// wantEICAR checks that the member has exactly the content of the test file.
func (f *found) wantEICAR(t testing.TB, path string) {
	t.Helper()
	if !bytes.Equal(f.parts[path], eicar()) {
		t.Errorf("%q is not the test file in:\n%v", path, f)
	}
}

// wantKinds checks that there are problems of these kinds, and of no others.
func (f *found) wantKinds(t testing.TB, want ...Kind) {
	t.Helper()
	got := f.kinds()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("problems of kinds %v, want %v:\n%v", got, want, f)
	}
}
