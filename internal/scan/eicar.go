package scan

import (
	"bytes"
	"context"
	"fmt"

	"lazaret/internal/spool"
)

// EICAR returns the standard anti-virus test file of 68 bytes, which every engine reports and which does nothing. It is
// put together here so that neither the source nor the binary is reported itself.
func EICAR() []byte {
	parts := []string{`X5O!P%@AP[4\PZX54(P^)7CC)7}`, `$EICAR-STANDARD-`, `ANTIVIRUS-TEST-FILE!`, `$H+H*`}
	var b bytes.Buffer
	for _, p := range parts {
		b.WriteString(p)
	}
	return b.Bytes()
}

// Prove asks s about EICAR and about a harmless text, and returns an error that explains what is wrong when it does not
// find the one or does not clear the other. A scanner that fails it is of no use.
func Prove(ctx context.Context, pool *spool.Pool, s Scanner) error {
	for _, c := range []struct {
		what string
		body []byte
		want Outcome
	}{
		{"the EICAR test file", EICAR(), Infected},
		{"a harmless text", []byte("Lazaret asks: is this harmless text clean?\n"), Clean},
	} {
		b, err := pool.Of(c.body)
		if err != nil {
			return fmt.Errorf("scanner %s could not be tried: %w", s.Name(), err)
		}
		v := Ask(ctx, s, &Object{Body: b, Name: "self-test"})
		_ = b.Close() // memory only: there is no file to fail
		if v.Outcome != c.want {
			return fmt.Errorf("scanner %s said %v%s of %s, where it must say %v", s.Name(), v.Outcome, because(v), c.what, c.want)
		}
	}
	return nil
}

func because(v Verdict) string {
	switch {
	case v.Outcome == Incomplete:
		return fmt.Sprintf(" (%s: %s)", v.Reason, v.Detail)
	case len(v.Findings) > 0:
		return fmt.Sprintf(" (%s)", v.Findings[0].Signature)
	}
	return ""
}
