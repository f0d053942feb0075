// Package corpus has answers and uploads that are valid, odd or hostile, made by a raw socket, and looks at what comes out of the
// real gateway with three kinds of clients. "make corpus" has each of them fetched by every client, which takes some minutes; in "make
// test" the clients take turns.
package corpus
