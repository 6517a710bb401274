package squad

import (
	"cmp"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/tfbert/go/internal/pyjson"
)

// A number is one as Python's json reads and writes it: a float, a whole number of any size or a truth value.
type number struct {
	float float64  // the nearest
	whole *big.Int // the number itself if it is none of Python's floats
	text  string   // what json.dumps writes for whole
}

// maxDigits is the most digits of a whole number that Python converts from text.
const maxDigits = 4300

// exactBits is how many bits of a whole number a float holds.
const exactBits = 53

// set makes n a truth value.
func (n *number) set(v bool) {
	*n = number{text: strconv.FormatBool(v), whole: new(big.Int)}
	if v {
		n.float = 1
		n.whole.SetInt64(1)
	}
}

// parse reads a JSON number. It reports whether Python would read it, too.
func (n *number) parse(text string) bool {
	if strings.ContainsAny(text, ".eE") {
		f, _ := strconv.ParseFloat(text, 64) // out of range, it is infinite to both
		*n = number{float: f}
		return true
	}
	if len(strings.TrimPrefix(text, "-")) > maxDigits {
		return false
	}
	whole, _ := new(big.Int).SetString(text, 10)
	f, _ := whole.Float64()
	*n = number{float: f, whole: whole, text: whole.String()}
	return true
}

// compare orders two numbers as Python does, which compares a whole number and a float exactly.
func (n *number) compare(m *number) int {
	if n.rounded() || m.rounded() {
		return n.exact().Cmp(m.exact())
	}
	return cmp.Compare(n.float, m.float)
}

// rounded reports whether the float differs from the whole number.
func (n *number) rounded() bool { return n.whole != nil && n.whole.BitLen() > exactBits }

func (n *number) exact() *big.Float {
	if n.whole != nil {
		return new(big.Float).SetInt(n.whole)
	}
	return new(big.Float).SetFloat64(n.float)
}

// above reports whether n is greater than a float. Nothing is above NaN.
func (n *number) above(f float64) bool {
	return !math.IsNaN(f) && !math.IsNaN(n.float) && n.compare(&number{float: f}) > 0
}

// String returns what json.dumps writes for n.
func (n *number) String() string {
	if n.whole != nil {
		return n.text
	}
	return string(pyjson.AppendFloat(nil, n.float))
}
