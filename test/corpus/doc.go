// Package corpus has answers and uploads that are valid, odd or hostile, made by a raw socket, and looks at what comes out of the
// real gateway with three kinds of clients. "make corpus" runs it, which takes some minutes.
package corpus
