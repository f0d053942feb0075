package daemon

import (
	"fmt"

	"lazaret/internal/config"

	"golang.org/x/sys/unix"
)

// descriptors is how the file descriptors of the process are shared out.
type descriptors struct {
	limit       int // all that there are
	connections int // of web clients
	origins     int // connections to origins
}

const (
	// spareDescriptors are left at least to what must always work: the console, objects on disk, scanners, the log. It is an eighth of
	// many.
	spareDescriptors = 64
	// enoughDescriptors is what more than which makes no difference.
	enoughDescriptors = 1 << 24
)

// openFiles returns how many files this process may have open. Go has raised that to the hard limit at its start.
func openFiles() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return enoughDescriptors
	}
	return int(min(l.Cur, enoughDescriptors))
}

// shareDescriptors shares limit descriptors out, of which the settings may allow fewer. Each client's connection goes with one to an
// origin; mail sessions have two.
func shareDescriptors(cfg *config.Config, limit int) descriptors {
	rest := limit - max(spareDescriptors, limit/8)
	if len(cfg.POP3.Listen)+len(cfg.POP3.ListenTLS) > 0 {
		rest -= min(2*cfg.POP3.MaxSessions, rest/4)
	}
	half := max(rest/2, 1)
	return descriptors{limit: limit, connections: half, origins: half}
}

// warning says where the limit allows less than the settings; empty: nowhere.
func (s descriptors) warning(cfg *config.Config) string {
	if s.connections >= cfg.Web.MaxConnections {
		return ""
	}
	return fmt.Sprintf("web.max_connections is %d, and a limit of %d open files allows %d of them: no more are taken; raise the limit "+
		"(LimitNOFILE= in the unit, \"ulimit -n\" in a shell), or lower max_connections", cfg.Web.MaxConnections, s.limit, s.connections)
}

// DescriptorsWarning says where this process's limit on open files allows less than the settings; empty: nowhere. The gateway itself may
// run under another limit.
func DescriptorsWarning(cfg *config.Config) string {
	return shareDescriptors(cfg, openFiles()).warning(cfg)
}

// giveUpIdle closes connections that are idle, for lack of file descriptors.
func (d *Daemon) giveUpIdle() {
	s := d.idle.Load()
	if s == nil {
		return // nothing is served yet
	}
	if n := s.GiveUpIdle(); n > 0 {
		d.log.Warn("there are no file descriptors left: connections that have been idle longest are closed", "closed", n)
	}
}
