package content

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"lazaret/internal/spool"
)

// maxChunkLine bounds the line of a chunk's size, extensions included.
const maxChunkLine = 4096

// chunks emits the data of a body that is itself in HTTP's chunks (RFC 9112, 7.1): what is left where an origin chunks twice, or
// chunks without saying so, and what a client that looks closely would undo.
func (f *finder) chunks(b *spool.Blob) error {
	head, err := f.head(b)
	if err != nil {
		return err
	}
	size, line, ok := chunkSize(head[:min(len(head), maxChunkLine)])
	if !ok || size == 0 || int64(line)+size > b.Size() {
		return nil
	}
	// The first chunk has to be followed by a line's end and another size, or by nothing.
	var next [64]byte
	n, err := b.ReadAt(next[:], int64(line)+size)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	rest := bytes.TrimLeft(next[:n], "\r\n")
	if _, _, ok := chunkSize(rest); len(rest) > 0 && !ok {
		return nil
	}
	return f.emit("its chunks' data", "", &chunkReader{r: bufio.NewReaderSize(b.NewReader(), maxChunkLine)})
}

// chunkSize reads the line of a chunk's size, and returns the length of the line with its end.
func chunkSize(text []byte) (size int64, line int, ok bool) {
	end := bytes.IndexByte(text, '\n')
	if end < 0 {
		return 0, 0, false
	}
	digits := 0
	for _, c := range bytes.TrimLeft(text[:end], " \t") {
		v, isHex := hexDigit(c)
		if !isHex {
			if digits == 0 || c != ';' && c != ' ' && c != '\t' && c != '\r' {
				return 0, 0, false
			}
			break
		}
		if digits++; digits > 8 {
			return 0, 0, false
		}
		size = size<<4 | int64(v)
	}
	return size, end + 1, digits > 0
}

// chunkReader gives the data of chunks until one is none, or the last one.
type chunkReader struct {
	r    *bufio.Reader
	left int64 // of the chunk
	done bool
}

// Read implements io.Reader.
func (c *chunkReader) Read(p []byte) (int, error) {
	for c.left == 0 && !c.done {
		c.next()
	}
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if err != nil {
		c.left, c.done = 0, true
		if errors.Is(err, io.EOF) && n > 0 {
			err = nil
		}
	}
	return n, err
}

// next reads the line of the next chunk's size. Empty lines are what ends a chunk.
func (c *chunkReader) next() {
	line, err := c.r.ReadSlice('\n')
	if len(bytes.Trim(line, "\r\n")) == 0 && err == nil {
		return
	}
	size, _, ok := chunkSize(line)
	if err != nil || !ok || size == 0 {
		c.done = true
		return
	}
	c.left = size
}
