package daemon

import (
	"reflect"

	"lazaret/internal/config"
)

// needRestart lists the settings that differ and that a reload cannot put in force.
func needRestart(old, next *config.Config) []string {
	var keys []string
	for _, c := range []struct {
		key  string
		a, b any
	}{
		{"state_dir", old.StateDir, next.StateDir},
		{"web.listen", old.Web.Listen, next.Web.Listen},
		{"web.transparent", old.Web.Transparent, next.Web.Transparent},
		{"pop3.listen", old.POP3.Listen, next.POP3.Listen},
		{"pop3.listen_tls", old.POP3.ListenTLS, next.POP3.ListenTLS},
		{"quarantine", old.Quarantine, next.Quarantine},
		{"listen", old.Listen, next.Listen},
		{"sandbox", old.Sandbox, next.Sandbox},
		{"redirect", old.Redirect, next.Redirect},
		{"clamav", old.ClamAV, next.ClamAV},
		{"web.max_header", old.Web.MaxHeader, next.Web.MaxHeader},
		{"web.max_response_header", old.Web.MaxResponseHeader, next.Web.MaxResponseHeader},
		{"web.max_streams", old.Web.MaxStreams, next.Web.MaxStreams},
		{"web.header_timeout", old.Web.HeaderTimeout, next.Web.HeaderTimeout},
		{"web.idle_timeout", old.Web.IdleTimeout, next.Web.IdleTimeout},
		{"admin", old.Admin, next.Admin},
		{"spool", old.Spool, next.Spool},
		{"unpack", old.Unpack, next.Unpack},
		{"content", old.Content, next.Content},
		{"gate", old.Gate, next.Gate},
		{"notice", old.Notice, next.Notice},
		{"audit", old.Audit, next.Audit},
	} {
		if !reflect.DeepEqual(c.a, c.b) {
			keys = append(keys, c.key)
		}
	}
	return keys
}
