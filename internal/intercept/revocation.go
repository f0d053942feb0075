package intercept

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// The values of revocation.
const (
	revocationOff    = "off"
	revocationPass   = "pass"
	revocationRefuse = "refuse"
)

// The bounds of certificate revocation lists.
const (
	crlSize       = 10 << 20
	crlTimeout    = 30 * time.Second
	crlPlaces     = 2         // distribution points tried for one certificate
	crlLists      = 512       // in memory
	crlEntries    = 2_000_000 // of all lists in memory together, 24 bytes each
	crlFiles      = 256       // in the state directory
	crlFilesSize  = 64 << 20
	crlRetry      = 10 * time.Minute
	crlMinRefresh = 10 * time.Minute
	crlMaxRefresh = 12 * time.Hour
	crlDir        = "crl"
	crlSaidEvery  = time.Hour // how often the same certificate is said to be unchecked
)

// crls keeps the revocation lists of authorities, in memory and in files. They are fetched when a certificate that names
// them is seen, in the background.
type crls struct {
	policy  string
	outside *fetcher // reaches no private address
	inside  *fetcher // for the lists of authorities that the settings name
	dir     string   // empty: in memory only
	log     *slog.Logger
	now     func() time.Time
	flight  singleflight.Group
	failed  *lru[string, error] // by key; not tried again for a while
	said    *lru[[32]byte, struct{}]
	reading sync.Mutex // one list is parsed at a time, as that takes many times its size
	files   sync.Mutex

	mu    sync.Mutex
	lists map[string]*crlItem
	total int // entries

	fetched, failures, unchecked, revoked atomic.Int64
}

type crlItem struct {
	list *crl
	used time.Time
}

// RevocationStats are counts since the start, and sizes at the moment.
type RevocationStats struct {
	Fetched   int64 // revocation lists
	Failed    int64 // attempts to fetch one
	Unchecked int64 // chains of which not every certificate could be checked
	Revoked   int64 // chains with a revoked certificate
	Lists     int   // in memory
	Entries   int   // of these lists
}

func newCRLs(policy string, outside, inside *fetcher, stateDir string, log *slog.Logger, now func() time.Time) *crls {
	r := &crls{
		policy: policy, outside: outside, inside: inside, log: log, now: now, lists: map[string]*crlItem{},
		failed: newLRU[string, error](crlLists, now), said: newLRU[[32]byte, struct{}](crlLists, now),
	}
	if stateDir != "" {
		r.dir = filepath.Join(stateDir, crlDir)
	}
	return r
}

func (r *crls) stats() RevocationStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return RevocationStats{
		Fetched: r.fetched.Load(), Failed: r.failures.Load(), Unchecked: r.unchecked.Load(), Revoked: r.revoked.Load(),
		Lists: len(r.lists), Entries: r.total,
	}
}

// check looks for the certificates of a path, leaf first, in the lists of their authorities. operators says that the path ends at
// a root of the settings': an operator who names the root of a network's own authority has its lists in that network, as a rule,
// and answers for the places that it names, while what a public authority signs leads to no private address. proven says that the
// leaf's state is known by a stapled answer. What cannot be checked is a fault only where the policy is to refuse; there the lists
// are waited for, within ctx, and otherwise not.
func (r *crls) check(ctx context.Context, path []*x509.Certificate, operators, proven bool) *Fault {
	if r.policy == revocationOff || len(path) < 2 {
		return nil
	}
	from := r.outside
	if operators {
		from = r.inside
	}
	var open *x509.Certificate
	var why error
	for n, c := range path[:len(path)-1] {
		at, revoked, err := r.status(ctx, c, path[n+1], from)
		if revoked {
			r.revoked.Add(1)
			return &Fault{Kind: FaultRevoked, Detail: fmt.Sprintf("the certificate of %s was revoked on %s", subject(c), date(at))}
		}
		if err != nil && (n > 0 || !proven) && open == nil {
			open, why = c, err
		}
	}
	if open == nil {
		return nil
	}
	r.unchecked.Add(1)
	if r.policy == revocationRefuse {
		return &Fault{Kind: FaultRevoked, Detail: fmt.Sprintf("it could not be checked whether the certificate of %s is revoked", subject(open)), Err: why}
	}
	key := sha256.Sum256(open.Raw)
	if _, ok := r.said.get(key); !ok {
		r.said.put(key, struct{}{}, r.now().Add(crlSaidEvery))
		r.log.Info("it could not be checked whether a certificate is revoked; it passes", "certificate", subject(open),
			"issuer", clean(open.Issuer.String()), "reason", why)
	}
	return nil
}

// insideMark tells attempts from inside the network from others.
const insideMark = " inside"

// errNotYet says that a list is being fetched.
var errNotYet = errors.New("the revocation list is being fetched")

// status says whether the list that c names, of its issuer, has c. The error says why that is not known; a certificate that
// names no way to know is in order.
func (r *crls) status(ctx context.Context, c, issuer *x509.Certificate, from *fetcher) (at time.Time, revoked bool, err error) {
	if len(c.CRLDistributionPoints) == 0 {
		noneIsMeant := slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidNoRevocationAvailable) })
		if len(c.OCSPServer) > 0 && !noneIsMeant {
			return at, false, errors.New("the certificate names an OCSP responder only, and the server did not staple its answer")
		}
		return at, false, nil
	}
	var errs []error
	for n, place := range c.CRLDistributionPoints {
		if n == crlPlaces {
			break
		}
		l, err := r.list(ctx, place, issuer, from)
		if err == nil && !l.covers(c) {
			err = errors.New("the list is not for such certificates")
		}
		if err == nil {
			at, revoked = l.find(c)
			return at, revoked, nil
		}
		errs = append(errs, fmt.Errorf("%q: %w", clean(place), err))
	}
	return at, false, errors.Join(errs...)
}

// crlKey is a place and the key that signs what is there.
func crlKey(place string, issuer *x509.Certificate) string {
	h := sha256.New()
	h.Write(issuer.RawSubjectPublicKeyInfo)
	h.Write(issuer.RawSubject)
	h.Write([]byte(place))
	return hex.EncodeToString(h.Sum(nil))
}

// list returns the list at a place, where it is there and holds. One that is missing or getting old is fetched.
func (r *crls) list(ctx context.Context, place string, issuer *x509.Certificate, from *fetcher) (*crl, error) {
	key, now := crlKey(place, issuer), r.now()
	attempt := key // that it may not be had from here says nothing about there
	if from == r.inside {
		attempt += insideMark
	}
	have := r.get(key, now)
	if have != nil && now.Before(have.refresh) {
		return have, nil
	}
	if err, ok := r.failed.get(attempt); ok {
		if have != nil {
			return have, nil
		}
		return nil, err
	}
	wait := have == nil && r.policy == revocationRefuse
	if have == nil {
		// What is known here, of before a restart or an eviction, holds before the answer, whatever the policy.
		if have = r.kept(ctx, key, issuer); have != nil && now.Before(have.refresh) {
			return have, nil
		}
	}
	ch := r.flight.DoChan(attempt, func() (_ any, err error) {
		defer recovered(r.log, &err)
		// Not the asker's context: others wait for the same, and the list is worth having.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), crlTimeout)
		defer cancel()
		l, err := r.load(ctx, key, place, issuer, from, have)
		if err != nil {
			r.failures.Add(1)
			if !errors.Is(err, errCrowded) {
				r.failed.put(attempt, err, r.now().Add(crlRetry))
			}
			r.log.Warn("a certificate revocation list could not be had", "place", clean(place), "issuer", subject(issuer), "error", err)
			return nil, err
		}
		r.put(key, l)
		return l, nil
	})
	switch {
	case wait:
	case have != nil:
		return have, nil
	default:
		return nil, errNotYet
	}
	select {
	case res := <-ch:
		l, _ := res.Val.(*crl)
		return l, res.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// kept takes a list from its file into memory, where there is one that holds. Those who want the same one wait for one reading, each
// until its own ctx ends.
func (r *crls) kept(ctx context.Context, key string, issuer *x509.Certificate) *crl {
	if r.dir == "" {
		return nil
	}
	ch := r.flight.DoChan("file "+key, func() (_ any, err error) {
		defer recovered(r.log, &err)
		l, fetched := r.read(key, issuer)
		if l != nil {
			l.refresh = refreshAt(l, fetched)
			r.put(key, l)
		}
		return l, nil
	})
	select {
	case res := <-ch:
		l, _ := res.Val.(*crl)
		return l
	case <-ctx.Done():
		return nil
	}
}

// get returns a list in memory that holds now.
func (r *crls) get(key string, now time.Time) *crl {
	r.mu.Lock()
	defer r.mu.Unlock()
	it := r.lists[key]
	if it == nil || !now.Before(it.list.until) {
		return nil
	}
	it.used = now
	return it.list
}

// put keeps a list, and makes room where there are too many, or too many entries.
func (r *crls) put(key string, l *crl) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.lists[key]; old != nil {
		if l.thisUpdate.Before(old.list.thisUpdate) {
			return // read of a file while a newer one came
		}
		r.total -= len(old.list.revoked)
	}
	// Whoever could not have it finds it in memory from now on, or in its file.
	r.failed.drop(key)
	r.failed.drop(key + insideMark)
	r.lists[key] = &crlItem{l, r.now()}
	r.total += len(l.revoked)
	for len(r.lists) > 1 && (len(r.lists) > crlLists || r.total > crlEntries) {
		oldest := ""
		for k, it := range r.lists {
			if k != key && (oldest == "" || it.used.Before(r.lists[oldest].used)) {
				oldest = k
			}
		}
		r.total -= len(r.lists[oldest].list.revoked)
		delete(r.lists, oldest)
	}
}

// load fetches a list; kept, which may be nil, is what there is of before.
func (r *crls) load(ctx context.Context, key, place string, issuer *x509.Certificate, from *fetcher, kept *crl) (*crl, error) {
	if have := r.get(key, r.now()); have != nil && (kept == nil || have.thisUpdate.After(kept.thisUpdate)) {
		if kept = have; r.now().Before(have.refresh) {
			return have, nil // it came while this was about to be asked for
		}
	}
	der, err := from.fetch(ctx, place, crlSize)
	if err != nil {
		return r.goOn(kept, err)
	}
	l, err := r.parse(der, issuer)
	if err == nil && kept != nil && l.thisUpdate.Before(kept.thisUpdate) {
		err = errors.New("what is there is older than what was there before")
	}
	if err != nil {
		return r.goOn(kept, err)
	}
	r.fetched.Add(1)
	l.refresh = refreshAt(l, r.now())
	if err := r.write(key, der); err != nil {
		r.log.Error("a certificate revocation list could not be kept in a file", "place", clean(place), "error", err)
	}
	return l, nil
}

// goOn returns the error only where there is no list to go on with; a newer one is tried for again in a while.
func (r *crls) goOn(kept *crl, err error) (*crl, error) {
	if kept == nil {
		return nil, err
	}
	r.failures.Add(1)
	again := *kept
	again.refresh = r.now().Add(crlRetry)
	return &again, nil
}

// refreshAt says when a list that was fetched at a moment has to be looked for anew: half-way to its end.
func refreshAt(l *crl, fetched time.Time) time.Time {
	return fetched.Add(min(crlMaxRefresh, max(crlMinRefresh, l.until.Sub(fetched)/2)))
}

func (r *crls) parse(der []byte, issuer *x509.Certificate) (*crl, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	return parseCRL(der, issuer, r.now())
}

// read returns the list in a file and when it was fetched; nil where there is none that can be used.
func (r *crls) read(key string, issuer *x509.Certificate) (*crl, time.Time) {
	if r.dir == "" {
		return nil, time.Time{}
	}
	path := filepath.Join(r.dir, key+".crl")
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() || st.Size() > crlSize {
		return nil, time.Time{}
	}
	der, err := os.ReadFile(path)
	if err != nil {
		return nil, time.Time{}
	}
	l, err := r.parse(der, issuer)
	if err != nil {
		return nil, time.Time{}
	}
	return l, earlier(st.ModTime(), r.now())
}

// write keeps a list in a file, and removes the oldest ones where they are too many or too large together.
func (r *crls) write(key string, der []byte) error {
	if r.dir == "" {
		return nil
	}
	r.files.Lock()
	defer r.files.Unlock()
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(r.dir, key+".crl")
	if err := replace(path, der, 0o600); err != nil {
		return err
	}
	if err := os.Chtimes(path, r.now(), r.now()); err != nil {
		return err
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	var infos []os.FileInfo
	size := int64(0)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".crl") {
			infos, size = append(infos, info), size+info.Size()
		}
	}
	slices.SortFunc(infos, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for n := 0; len(infos)-n > 1 && (len(infos)-n > crlFiles || size > crlFilesSize); n++ {
		if err := os.Remove(filepath.Join(r.dir, infos[n].Name())); err != nil {
			return err
		}
		size -= infos[n].Size()
	}
	return nil
}
