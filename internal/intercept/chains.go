package intercept

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"time"
)

// The bounds of the paths that are remembered.
const (
	maxChains = 1024
	chainLife = 10 * time.Minute
)

// chain is a path that crypto/x509 has found good, and the roots that it ends at one of.
type chain struct {
	path  []*x509.Certificate
	roots *x509.CertPool
}

// chainKey stands for the very bytes that a path was found for.
func chainKey(leaf *x509.Certificate, others []*x509.Certificate) [32]byte {
	h := sha256.New()
	for _, c := range append([]*x509.Certificate{leaf}, others...) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(c.Raw))))
		h.Write(c.Raw)
	}
	return [32]byte(h.Sum(nil))
}

// knownPaths is paths, but spares the signatures of a chain that was found good a short while ago, byte for byte the same.
// All that may have changed since is judged again: dates here, and name, revocation and the handshake's own signature by
// the caller. What was found bad is not remembered.
func (v *verifier) knownPaths(leaf *x509.Certificate, others []*x509.Certificate, now time.Time) ([]*x509.Certificate, *Fault) {
	key := chainKey(leaf, others)
	if c, ok := v.chains.get(key); ok && c.roots == v.roots && allWithin(c.path, now) {
		return c.path, nil
	}
	path, fault := v.paths(leaf, others, now)
	if fault == nil && allWithin(path, now) {
		v.chains.put(key, chain{path, v.roots}, now.Add(chainLife))
	}
	return path, fault
}

func allWithin(path []*x509.Certificate, now time.Time) bool {
	for _, c := range path {
		if within(c, now) != nil {
			return false
		}
	}
	return true
}
