package clamd

import (
	"slices"
	"strings"
	"testing"
	"time"

	"lazaret/internal/scan"
)

func TestReplies(t *testing.T) {
	for _, c := range []struct {
		line      string
		outcome   scan.Outcome
		reason    scan.Reason
		signature string
	}{
		{"7: fd[10]: OK", scan.Clean, "", ""},
		{"7: stream: OK", scan.Clean, "", ""},
		{"7: fd[10]: Win.Test.EICAR_HDB-1 FOUND", scan.Infected, "", "Win.Test.EICAR_HDB-1"},
		{"7: stream: Eicar-Test.UNOFFICIAL FOUND", scan.Infected, "", "Eicar-Test.UNOFFICIAL"},
		{"7: stream: a: b FOUND", scan.Infected, "", "a: b"},
		{"7: stream: OK FOUND", scan.Infected, "", "OK"},
		{"7: stream:  FOUND", scan.Infected, "", "unknown"},
		{"7: Something FOUND", scan.Infected, "", "Something"},
		{"7: stream: bad\x1b[31m\xffname FOUND", scan.Infected, "", "bad?[31m?name"},
		{"7: stream: Heuristics.Phishing.Email.SpoofedDomain FOUND", scan.Infected, "", "Heuristics.Phishing.Email.SpoofedDomain"},
		{"7: stream: Heuristics.OLE2.ContainsMacros.VBA FOUND", scan.Infected, "", "Heuristics.OLE2.ContainsMacros.VBA"},
		{"7: stream: Heuristics.Limits.Exceeded FOUND", scan.Incomplete, scan.TooLarge, ""},
		{"7: stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND", scan.Incomplete, scan.TooLarge, ""},
		{"7: stream: Heuristics.Limits.Exceeded.MaxScanSize FOUND", scan.Incomplete, scan.TooLarge, ""},
		{"7: stream: Heuristics.Limits.Exceeded.MaxRecursion FOUND", scan.Incomplete, scan.TooDeep, ""},
		{"7: stream: Heuristics.Limits.Exceeded.MaxFiles FOUND", scan.Incomplete, scan.TooMany, ""},
		{"7: stream: Heuristics.Limits.Exceeded.MaxScanTime FOUND", scan.Incomplete, scan.Timeout, ""},
		{"7: stream: Heuristics.Limits.Exceeded.EmailMIMEPartsPerMessage FOUND", scan.Incomplete, scan.TooMany, ""},
		{"7: stream: Heuristics.Encrypted.Zip FOUND", scan.Incomplete, scan.Encrypted, ""},
		{"7: INSTREAM size limit exceeded. ERROR", scan.Incomplete, scan.TooLarge, ""},
		{"7: fd[9]: Can't allocate memory ERROR", scan.Incomplete, scan.EngineError, ""},
		{"7: fd[9]: CL_ETIMEOUT: Time limit reached ERROR", scan.Incomplete, scan.Timeout, ""},
		{"7: Error processing command. ERROR", scan.Incomplete, scan.EngineError, ""},
		{"7: ERROR", scan.Incomplete, scan.EngineError, ""},
		{"7: UNKNOWN COMMAND", scan.Incomplete, scan.Unknown, ""},
		{"7: stream: Excluded", scan.Incomplete, scan.Unknown, ""},
		{"7: stream: Empty file", scan.Incomplete, scan.Unknown, ""},
		{"7: stream: ok", scan.Incomplete, scan.Unknown, ""},
		{"7: stream: OK ", scan.Incomplete, scan.Unknown, ""},
		{"7: stream: OK\n", scan.Incomplete, scan.Unknown, ""},
		{"7: stream: NOT OK", scan.Incomplete, scan.Unknown, ""},
		{"7: /etc/passwd: OK", scan.Incomplete, scan.Unknown, ""},
		{"7: OK", scan.Incomplete, scan.Unknown, ""},
		{"OK", scan.Incomplete, scan.Unknown, ""},
		{"stream: OK", scan.Incomplete, scan.Unknown, ""},
		{"6: stream: OK", scan.Incomplete, scan.Unknown, ""},
		{"8: stream: OK", scan.Incomplete, scan.Unknown, ""},
		{"07: stream: OK", scan.Incomplete, scan.Unknown, ""},
		{"6: stream: Eicar FOUND", scan.Incomplete, scan.Unknown, ""},
		{"", scan.Incomplete, scan.Unknown, ""},
		{"PONG", scan.Incomplete, scan.Unknown, ""},
		{"COMMAND READ TIMED OUT\n", scan.Incomplete, scan.Unknown, ""},
	} {
		v := judged(c.line, 7)
		if v.Outcome != c.outcome || v.Reason != c.reason {
			t.Errorf("%q: %v %q (%s), want %v %q", c.line, v.Outcome, v.Reason, v.Detail, c.outcome, c.reason)
		}
		if c.signature != "" && (len(v.Findings) != 1 || v.Findings[0].Signature != c.signature) {
			t.Errorf("%q: findings %+v, want %q", c.line, v.Findings, c.signature)
		}
	}
}

func judged(line string, id uint32) scan.Verdict {
	r, err := parseScan([]byte(line), id)
	if err != nil {
		return scan.FromError("clamd", err)
	}
	return r.verdict("clamd", "")
}

func FuzzScanReply(f *testing.F) {
	for _, s := range []string{
		"1: stream: OK", "1: fd[10]: OK", "1: fd[10]: X FOUND", "1: Heuristics.Limits.Exceeded FOUND", "1: ERROR", "2: stream: OK",
		"COMMAND READ TIMED OUT\n", "1: stream: \xff FOUND", "1: : FOUND", "1:  FOUND",
	} {
		f.Add([]byte(s), uint32(1))
	}
	f.Fuzz(func(t *testing.T, line []byte, id uint32) {
		v := judged(string(line), id)
		switch v.Outcome {
		case scan.Clean:
			if !strings.HasSuffix(string(line), ": OK") || strings.ContainsAny(string(line), "\n\x00") {
				t.Errorf("%q is said clean", line)
			}
		case scan.Infected:
			name := v.Findings[0].Signature
			if name == "" || len(name) > maxSignature || scan.Printable(name, maxSignature) != name {
				t.Errorf("%q gives the signature %q", line, name)
			}
		case scan.Incomplete:
			if !slices.Contains(scan.Reasons(), v.Reason) {
				t.Errorf("%q gives the reason %q", line, v.Reason)
			}
		default:
			t.Errorf("%q gives %v", line, v.Outcome)
		}
	})
}

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		text, engine, signatures string
		updated                  time.Time
		ok                       bool
	}{
		{"ClamAV 1.4.3/27453/Mon Nov 24 09:01:01 2025", "ClamAV 1.4.3", "27453", time.Date(2025, 11, 24, 9, 1, 1, 0, time.Local), true},
		{"ClamAV 0.103.12/26000/Thu Jan  1 00:00:00 1970", "ClamAV 0.103.12", "26000", time.Date(1970, 1, 1, 0, 0, 0, 0, time.Local), true},
		{"ClamAV 1.4.6", "ClamAV 1.4.6", "", time.Time{}, true},
		{"ClamAV 1.4.6/0/never", "ClamAV 1.4.6", "", time.Time{}, true},
		{"ClamAV 1.4.6/27453", "ClamAV 1.4.6", "27453", time.Time{}, true},
		{"PONG", "", "", time.Time{}, false},
		{"", "", "", time.Time{}, false},
		{"ClamAV " + strings.Repeat("1", 1000), "", "", time.Time{}, false},
	} {
		v, err := parseVersion(c.text)
		if (err == nil) != c.ok || v.Engine != c.engine || v.Signatures != c.signatures || !v.Updated.Equal(c.updated) {
			t.Errorf("%q: %+v, %v", c.text, v, err)
		}
	}
}

func FuzzVersion(f *testing.F) {
	f.Add("ClamAV 1.4.3/27453/Mon Nov 24 09:01:01 2025")
	f.Add("ClamAV 1.4.6")
	f.Add("ClamAV //")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseVersion(text)
		if err == nil && (v.Engine == "" || scan.Printable(v.Engine, maxSignature) != v.Engine) {
			t.Errorf("%q gives the engine %q", text, v.Engine)
		}
	})
}

func TestEndpoints(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"unix:/run/clamav/clamd.ctl", "unix:/run/clamav/clamd.ctl"},
		{"unix:///run//clamav/clamd.ctl", "unix:/run/clamav/clamd.ctl"},
		{"unix:@lazaret", "unix:@lazaret"},
		{"tcp:localhost:3310", "tcp:localhost:3310"},
		{"tcp://127.0.0.1:3310", "tcp:127.0.0.1:3310"},
		{"tcp:[::1]:3310", "tcp:[::1]:3310"},
		{"unix:", ""},
		{"unix:@", ""},
		{"unix:run/clamd", ""},
		{"unix:/" + strings.Repeat("x", 108), ""},
		{"tcp:localhost", ""},
		{"tcp::3310", ""},
		{"tcp:localhost:0", ""},
		{"tcp:localhost:clamd", ""},
		{"tcp:localhost:65536", ""},
		{"/run/clamav/clamd.ctl", ""},
		{"127.0.0.1:3310", ""},
		{"", ""},
	} {
		e, err := parseEndpoint(c.in)
		if c.want == "" {
			if err == nil {
				t.Errorf("%q is taken for %v", c.in, e)
			}
			continue
		}
		if err != nil || e.String() != c.want {
			t.Errorf("%q: %v, %v", c.in, e, err)
		}
		if again, err := parseEndpoint(e.String()); err != nil || again != e {
			t.Errorf("%q read again: %v, %v", e, again, err)
		}
	}
}

func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"unix:/run/clamav/clamd.ctl", "tcp:127.0.0.1:3310", "tcp:[::1]:3310", "unix:@x", "tcp://h:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseEndpoint(s)
		if err != nil {
			return
		}
		if again, err := parseEndpoint(e.String()); err != nil || again != e {
			t.Errorf("%q gives %q, and that %q, %v", s, e, again, err)
		}
	})
}

func TestConfigErrorsNameTheirKey(t *testing.T) {
	good := Default()
	good.Addresses = Addresses{"unix:/run/clamav/clamd.ctl"}
	if err := good.Validate(); err != nil {
		t.Fatalf("the default with an address: %v", err)
	}
	for _, c := range []struct {
		key    string
		change func(*Config)
	}{
		{"address: ", func(c *Config) { c.Addresses = nil }},
		{"address: ", func(c *Config) { c.Addresses = Addresses{"clamd"} }},
		{"address: ", func(c *Config) { c.Addresses = Addresses{"tcp:a:1", "tcp:a:1"} }},
		{"max_connections: ", func(c *Config) { c.MaxConnections = 0 }},
		{"connect_timeout: ", func(c *Config) { c.ConnectTimeout = 0 }},
		{"command_timeout: ", func(c *Config) { c.CommandTimeout = 0 }},
		{"timeout: ", func(c *Config) { c.Timeout = 0 }},
		{"idle_timeout: ", func(c *Config) { c.IdleTimeout = 0 }},
		{"refresh: ", func(c *Config) { c.Refresh = 0 }},
		{"max_scan_size", func(c *Config) { c.MaxScanSize = -1 }},
	} {
		cfg := good
		c.change(&cfg)
		err := cfg.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), c.key) {
			t.Errorf("%s: the error is %v", c.key, err)
		}
		if s, err := New(cfg); err == nil {
			_ = s.Close()
			t.Errorf("%s: New takes it", c.key)
		}
	}
}

// TestHTMLIsKnownWhereverClamdKnowsIt has each form in which clamd's type recognition finds HTML.
func TestHTMLIsKnownWhereverClamdKnowsIt(t *testing.T) {
	wide := func(s string, before, after int) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			b.WriteString(strings.Repeat("\x00", before) + string(c) + strings.Repeat("\x00", after))
		}
		return b.String()
	}
	for _, tag := range []string{
		"<html>", "<HTML>", "<HtMl lang=en>", "<head>", "<a href=", "<A  HREF=", "<iframe", "<IMG", "<Object", "<SCRIPT", "<table",
		`<%@ LANGUAGE = "VBScript"%>`, "<!DOCTYPE html>",
	} {
		last := strings.Repeat(" ", headSize-len(tag)) + tag
		for _, form := range []string{tag, last, wide(tag, 0, 1), wide(tag, 1, 0), wide(tag, 3, 0), "\xef\xbb\xbf" + tag} {
			if !mayBeHTML([]byte(form)) {
				t.Errorf("%q is not taken for HTML", form)
			}
		}
	}
	for _, s := range []string{"", "plain text", "a < b and c > d", "PK\x03\x04", "%PDF-1.7"} {
		if mayBeHTML([]byte(s)) {
			t.Errorf("%q is taken for HTML", s)
		}
	}
}
