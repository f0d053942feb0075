package daemon

import (
	"strings"
	"testing"

	"lazaret/internal/config"

	"golang.org/x/sys/unix"
)

func TestDescriptorsAreSharedOut(t *testing.T) {
	cfg := config.Default()
	cfg.POP3.Listen, cfg.POP3.ListenTLS = nil, nil
	for _, c := range []struct {
		limit, connections int
		warns              bool
	}{{256, 96, true}, {1024, 448, true}, {20_000, 8750, true}, {65_536, 28_672, false}, {262_144, 114_688, false}} {
		s := shareDescriptors(cfg, c.limit)
		if s.connections != c.connections || s.connections+s.origins+spareDescriptors > c.limit {
			t.Errorf("%d: %+v", c.limit, s)
		}
		if w := s.warning(cfg); (w != "") != c.warns || c.warns && !strings.HasPrefix(w, "web.max_connections is 20000, and a limit of") {
			t.Errorf("%d: %q", c.limit, w)
		}
	}
	cfg.POP3.Listen, cfg.POP3.MaxSessions = []string{"127.0.0.1:110"}, 1000
	if s := shareDescriptors(cfg, 20_000); s.connections != 7750 {
		t.Errorf("with mail: %+v", s)
	}
	cfg.POP3.MaxSessions = 1_000_000
	if s := shareDescriptors(cfg, 300); s.connections < 50 {
		t.Errorf("with very much mail: %+v", s)
	}
}

// TestGoRaisesTheLimitOnOpenFiles looks at what openFiles relies on.
func TestGoRaisesTheLimitOnOpenFiles(t *testing.T) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Cur+1 < l.Max || openFiles() <= 0 {
		t.Errorf("soft %d, hard %d; openFiles says %d", l.Cur, l.Max, openFiles())
	}
}
