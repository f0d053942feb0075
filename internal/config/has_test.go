package config

import "testing"

func TestHas(t *testing.T) {
	for key, want := range map[string]bool{
		"state_dir": true, "pop3.max_sessions": true, "web.tls.tunnel": true, "policy.rule": true, "mail.notice.subject": true,
		"": false, "pop3": false, "web.tls": false, "pop3.": false, "pop3.max_sessions.x": false, "POP3.listen": false, "quarantine.enable": false,
	} {
		if Has(key) != want {
			t.Errorf("%s: %v", key, !want)
		}
	}
}
