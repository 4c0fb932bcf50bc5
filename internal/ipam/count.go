package ipam

import (
	"math"
	"strconv"
)

// exact is the largest count that people read as a number.
const exact = 1 << 32

// Count writes a number of blocks or addresses for people. A large one is written as the
// power of two that it is about, such as 2^64, and one that does not fit into an int64, which is
// math.MaxInt64, as that of the given number of bits.
func Count(n int64, bits int) string {
	switch {
	case n < exact:
		return strconv.FormatInt(n, 10)
	case n < math.MaxInt64:
		bits = int(math.Round(math.Log2(float64(n))))
	default:
		bits = max(bits, 63)
	}
	return "2^" + strconv.Itoa(bits)
}
