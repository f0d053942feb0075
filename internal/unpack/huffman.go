package unpack

import "errors"

// maxHuffmanBits is the length of the longest code: 15 in Deflate64, 16 in LZX.
const maxHuffmanBits = 16

var errHuffman = errors.New("broken Huffman code")

// huffman is a canonical Huffman code: how many codes there are of each length, and the symbols in the codes' order. It is
// decoded bit by bit, which is slow and simple: it is for formats that are rare.
type huffman struct {
	count  [maxHuffmanBits + 1]uint16
	symbol []uint16
}

// build makes the code from the lengths of its symbols' codes, at most maxHuffmanBits. Codes that are over-subscribed or
// incomplete are refused, except those of one symbol and of none.
func (h *huffman) build(lengths []byte) error {
	h.count = [maxHuffmanBits + 1]uint16{}
	for _, n := range lengths {
		h.count[n]++
	}
	used := len(lengths) - int(h.count[0])
	h.count[0] = 0
	left := 1
	var offs [maxHuffmanBits + 2]uint16
	for n := 1; n <= maxHuffmanBits; n++ {
		left = left<<1 - int(h.count[n])
		if left < 0 {
			return errHuffman
		}
		offs[n+1] = offs[n] + h.count[n]
	}
	if left > 0 && used > 1 {
		return errHuffman
	}
	if cap(h.symbol) < len(lengths) {
		h.symbol = make([]uint16, len(lengths))
	}
	h.symbol = h.symbol[:len(lengths)]
	for s, n := range lengths {
		if n > 0 {
			h.symbol[offs[n]] = uint16(s)
			offs[n]++
		}
	}
	return nil
}

// decode reads one symbol.
func (h *huffman) decode(r interface{ bit() (uint32, error) }) (int, error) {
	code, first, index := 0, 0, 0
	for n := 1; n <= maxHuffmanBits; n++ {
		b, err := r.bit()
		if err != nil {
			return 0, err
		}
		code |= int(b)
		count := int(h.count[n])
		if code-count < first {
			return int(h.symbol[index+code-first]), nil
		}
		index += count
		first = (first + count) << 1
		code <<= 1
	}
	return 0, errHuffman
}
