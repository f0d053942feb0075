package unpack

import (
	"bytes"
	"io"

	"lazaret/internal/spool"
)

// Loose says whether there is a member of a zip archive in b, and no archive that Walk would open: its directory is elsewhere. Whoever
// puts the two together finds the member, whatever lies around it. The error is that of reading b.
func Loose(b *spool.Blob) (bool, error) {
	found, err := hasMember(b.NewReader())
	if err != nil || !found {
		return false, err
	}
	for _, v := range viewsOf(b) {
		if v.format == Zip {
			return false, nil
		}
	}
	return true, nil
}

// hasMember looks for a local header that makes sense.
func hasMember(r io.Reader) (bool, error) {
	const ahead = zipLocal + 64 // of the name no more is needed
	buf := make([]byte, 64<<10)
	var err error
	n := 0
	for err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
		last := n - ahead // where a header must begin for all of it to be there
		if err != nil {
			last = n
		}
		at := 0
		for at < last {
			i := bytes.Index(buf[at:n], []byte(sigLocal))
			if i < 0 || at+i >= last {
				break
			}
			if at += i; looksLikeLocalHeader(buf[at:n]) {
				return true, nil
			}
			at++
		}
		if last > 0 {
			n = copy(buf, buf[last:n])
		}
	}
	if err == io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
		err = nil
	}
	return false, err
}
