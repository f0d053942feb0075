package config

import (
	"reflect"
	"strings"
	"testing"
)

// TestExamplesOfTheMailDocument: the examples load, and use every table of [mail] otherwise than by default.
func TestExamplesOfTheMailDocument(t *testing.T) {
	all := blocks(t, "../../docs/operators/mail.md")
	changed := map[string]bool{}
	for i, b := range all {
		c, err := Parse("block", []byte(b))
		if err != nil {
			t.Errorf("block %d: %v", i+1, err)
			continue
		}
		d := Default()
		for name, pair := range map[string][2]any{
			"pop3": {c.POP3, d.POP3}, "notice": {c.Mail.Notice, d.Mail.Notice}, "attachments": {c.Mail.Attachments, d.Mail.Attachments}, "spam": {c.Mail.Spam, d.Mail.Spam},
		} {
			changed[name] = changed[name] || !reflect.DeepEqual(pair[0], pair[1])
		}
	}
	if len(all) < 5 || len(changed) != 4 {
		t.Fatalf("%d blocks", len(all))
	}
	for name, yes := range changed {
		if !yes {
			t.Errorf("no example of %s", name)
		}
	}
}

// TestErrorsOfMailSettingsHavePlaces: a section's complaint is shown with the line of its key.
func TestErrorsOfMailSettingsHavePlaces(t *testing.T) {
	_, err := Parse("f", []byte("[mail.attachments]\nstrip = [\"executables\"]\n[mail.spam]\ntype = \"bayes\"\n[mail.notice]\nlanguage = \"tlh\"\n"))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"f:2:", "mail.attachments.strip:", "f:4:", "mail.spam.type:", "f:6:", "mail.notice.language:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}
