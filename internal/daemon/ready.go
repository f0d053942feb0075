package daemon

import (
	"context"
	"fmt"
	"os"
	"time"
)

// unready says what, besides engines and CA, keeps this gateway from doing its work now; a load balancer then sends its
// clients to another one.
func (d *Daemon) unready(context.Context) []string {
	var out []string
	cfg := d.pool.Config()
	if u := d.pool.Usage(); u.Disk >= int64(cfg.TotalDisk) {
		out = append(out, fmt.Sprintf("[spool] total_disk (%v) is used up: new objects are refused", cfg.TotalDisk))
	}
	if f, err := os.CreateTemp(cfg.Dir, ".ready-"); err != nil {
		out = append(out, fmt.Sprintf("the spool cannot be written: %v", err))
	} else {
		_ = f.Close() // it has nothing in it
		if err := os.Remove(f.Name()); err != nil {
			out = append(out, fmt.Sprintf("the spool: %v", err))
		}
	}
	if st := d.output.Status(); st.Stalled {
		out = append(out, fmt.Sprintf("the log has taken no lines since %s; they go to the overflow file", st.Since.Format(time.RFC3339)))
	}
	return append(out, d.tooOld()...)
}
