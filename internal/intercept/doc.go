// Package intercept decides for each connection whether it is inspected, tunnelled or refused, and opens the ones that are
// inspected: it owns the CA, the leaf certificates, the verification of origins and the coupling of sessions.
package intercept
