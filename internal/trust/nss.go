package trust

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// nssPlaces are where programs keep NSS databases, below the home directory. Those of profiles are patterns.
var nssPlaces = []struct{ program, pattern string }{
	{"Chromium, Chrome", ".pki/nssdb"},
	{"Chromium", "snap/chromium/current/.pki/nssdb"},
	{"Firefox", ".mozilla/firefox/*"},
	{"Firefox", ".config/mozilla/firefox/*"},
	{"Firefox", "snap/firefox/common/.mozilla/firefox/*"},
	{"Firefox", ".var/app/org.mozilla.firefox/.mozilla/firefox/*"},
	{"Thunderbird", ".thunderbird/*"},
}

// maxDatabases bounds how many are worked on.
const maxDatabases = 100

// nssDB is one database (cert9.db).
type nssDB struct {
	program  string
	dir      string
	certutil string
	user     *User
}

// databases returns those of the user.
func (u User) databases() []nssDB {
	var out []nssDB
	for _, p := range nssPlaces {
		dirs, _ := filepath.Glob(filepath.Join(globEscape(u.Home), p.pattern)) // the patterns are sound
		for _, dir := range dirs {
			if st, err := os.Stat(filepath.Join(dir, "cert9.db")); err == nil && st.Mode().IsRegular() && len(out) < maxDatabases {
				out = append(out, nssDB{program: p.program, dir: dir, user: &u})
			}
		}
	}
	return out
}

// globEscape has a path match itself alone.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// eachNSS has do done to every database of the user.
func (u User) eachNSS(do func(nssDB) Report) []Report {
	if u.Home == "" {
		return []Report{{Store: "NSS", Detail: "the calling user has no home directory"}}
	}
	dbs := u.databases()
	if len(dbs) == 0 {
		return []Report{{
			Store: "NSS", Place: u.Home, State: Absent,
			Detail: "no browser of " + u.Name + " has a database yet: start Chromium or Firefox once, then run this again",
		}}
	}
	certutil := find("certutil")
	var out []Report
	for _, db := range dbs {
		db.certutil = certutil
		r := Report{Store: "NSS (" + db.program + ")", Place: db.dir}
		if certutil == "" {
			r.Detail = "certutil is not here: install it (Debian: libnss3-tools; Fedora: nss-tools; Arch: nss)"
		} else {
			did := do(db)
			r.State, r.Detail = did.State, did.Detail
		}
		out = append(out, r)
	}
	return out
}

// run runs certutil on the database, as its owner: files that it makes must be the owner's.
func (db nssDB) run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	return command{program: db.certutil, args: append([]string{"-d", "sql:" + db.dir}, args...), stdin: stdin, user: db.user}.run(ctx)
}

// entry is a certificate in the database.
type entry struct{ nickname, trust string }

// trusted says whether it is trusted to issue certificates of servers.
func (e entry) trusted() bool {
	ssl, _, _ := strings.Cut(e.trust, ",")
	return strings.Contains(ssl, "C")
}

// list returns the certificates in the database whose nicknames have "lazaret" in them.
func (db nssDB) list(ctx context.Context) ([]entry, error) {
	out, err := db.run(ctx, nil, "-L")
	if err != nil {
		return nil, err
	}
	var list []entry
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := strings.TrimRight(lines.Text(), " ")
		i := strings.LastIndexByte(line, ' ')
		if i > 0 && strings.Count(line[i:], ",") == 2 && strings.Contains(strings.ToLower(line), "lazaret") {
			list = append(list, entry{strings.TrimRight(line[:i], " "), line[i+1:]})
		}
	}
	return list, nil
}

// install adds what is missing, and takes out what is left of a rotation that is over.
func (db nssDB) install(ctx context.Context, certs []*x509.Certificate) Report {
	before, err := db.list(ctx)
	if err != nil {
		return Report{Detail: err.Error()}
	}
	added, removed := 0, 0
	for _, c := range certs {
		// One that came by another way keeps its nickname, whatever name it is added under again.
		if slices.ContainsFunc(before, func(e entry) bool {
			return e.trusted() && (e.nickname == name(c) || (!ours.MatchString(e.nickname) && db.holds(ctx, e.nickname, []*x509.Certificate{c})))
		}) {
			continue
		}
		if err := db.add(ctx, c); err != nil {
			return Report{Detail: err.Error()}
		}
		added++
	}
	for _, e := range before {
		if ours.MatchString(e.nickname) && !slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return name(c) == e.nickname }) {
			if err := db.remove(ctx, e.nickname); err != nil {
				return Report{Detail: err.Error()}
			}
			removed++
		}
	}
	var r Report
	r.State, r.Detail = outcome(added, removed, len(certs))
	return r
}

// add adds a certificate that is to be trusted for servers, and leaves nothing behind where that fails: in a database with a
// password certutil puts the certificate in, and then may not set its trust.
func (db nssDB) add(ctx context.Context, c *x509.Certificate) error {
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	_, err := db.run(ctx, block, "-A", "-n", name(c), "-t", "C,,", "-a")
	if err == nil {
		return nil
	}
	_ = db.remove(ctx, name(c)) // it may not have come that far
	if strings.Contains(err.Error(), "SEC_ERROR_BAD_PASSWORD") {
		return fmt.Errorf("the database has a password (%s's primary password): import the certificate in the program's settings", db.program)
	}
	return err
}

func (db nssDB) remove(ctx context.Context, nickname string) error {
	_, err := db.run(ctx, nil, "-D", "-n", nickname)
	return err
}

// uninstall takes out what is called as ours are, and certs under whatever name with "lazaret" in it.
func (db nssDB) uninstall(ctx context.Context, certs []*x509.Certificate) Report {
	list, err := db.list(ctx)
	if err != nil {
		return Report{Detail: err.Error()}
	}
	removed := 0
	for _, e := range list {
		if !ours.MatchString(e.nickname) && !db.holds(ctx, e.nickname, certs) {
			continue
		}
		if err := db.remove(ctx, e.nickname); err != nil {
			return Report{Detail: err.Error()}
		}
		removed++
	}
	if removed == 0 {
		return Report{State: Unchanged, Detail: "no certificate of ours is in it"}
	}
	var r Report
	r.State, r.Detail = outcome(0, removed, 0)
	return r
}

// holds says whether the certificate of that nickname is one of certs.
func (db nssDB) holds(ctx context.Context, nickname string, certs []*x509.Certificate) bool {
	out, err := db.run(ctx, nil, "-L", "-n", nickname, "-a")
	if err != nil {
		return false
	}
	block, _ := pem.Decode(out)
	return block != nil && slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, block.Bytes) })
}
