package signatures

import (
	_ "embed"
)

// bigrams.bin tells how rare a byte is behind another: 256 rows of 256 costs, the row of the byte before, and a last row of
// the costs without regard to what is before. A cost is -8·log2 of the probability, at most 255. TestTrain makes the file.
//
//go:embed bigrams.bin
var bigrams []byte

// costScale is how many units of cost are one bit.
const costScale = 8

// gramCosts returns the cost of every gram of n bytes in run: out[i] is that of run[i:i+n].
func gramCosts(run []byte, n int, out []int32) []int32 {
	out = out[:0]
	if len(run) < n {
		return out
	}
	steps := int32(0)
	for i := 1; i < len(run); i++ {
		steps += int32(bigrams[int(run[i-1])<<8|int(run[i])])
		if i >= n {
			steps -= int32(bigrams[int(run[i-n])<<8|int(run[i-n+1])])
		}
		if i >= n-1 {
			out = append(out, steps+int32(bigrams[256<<8|int(run[i-n+1])]))
		}
	}
	return out
}
