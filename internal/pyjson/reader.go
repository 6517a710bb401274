package pyjson

import (
	"bufio"
	"bytes"
	"strings"
)

// A Reader turns what Python's json.load reads into JSON as RFC 8259 defines it, without moving a byte. Python
// also reads NaN, Infinity and -Infinity, and escapes of half a surrogate pair. An infinity becomes a number
// that is out of range, which Python reads as an infinity too. The other two become a number and U+FFFD, and
// the Reader tells where.
type Reader struct {
	in       *bufio.Reader
	offset   int64  // of the next byte of in
	ready    []byte // replaces bytes that are already read from in
	inString bool
	last     byte // outside strings, and not white space; 0 at first
	nans     []int64
	halves   []int64
}

// NewReader returns a Reader of in. Offsets count from the next byte of in.
func NewReader(in *bufio.Reader) *Reader { return &Reader{in: in} }

// NaN reports whether NaN was at an offset. Calls must be in the order of offsets, also of those of Half.
func (r *Reader) NaN(offset int64) bool {
	r.nans = from(r.nans, offset)
	return len(r.nans) > 0 && r.nans[0] == offset
}

// Half reports whether the bytes from start to end have an escape of half a surrogate pair.
func (r *Reader) Half(start, end int64) bool {
	r.halves = from(r.halves, start)
	return len(r.halves) > 0 && r.halves[0] < end
}

// from drops the offsets before start.
func from(offsets []int64, start int64) []int64 {
	for len(offsets) > 0 && offsets[0] < start {
		offsets = offsets[1:]
	}
	return offsets
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (n int, err error) {
	if len(r.ready) > 0 {
		n = copy(p, r.ready)
		r.ready = r.ready[n:]
		return n, nil
	}
	if _, err := r.in.Peek(1); err != nil {
		return 0, err
	}
	window, err := r.in.Peek(min(r.in.Buffered(), len(p)))
	n = copy(p, window[:r.plain(window)])
	if n == 0 && len(p) > 0 {
		r.special()
		return r.Read(p)
	}
	r.skip(n)
	return n, err
}

func (r *Reader) skip(n int) {
	n, _ = r.in.Discard(n)
	r.offset += int64(n)
}

// plain returns how many bytes of text stay as they are. The next one may have to be replaced; what follows
// text decides.
func (r *Reader) plain(text []byte) int {
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case r.inString && c == '"':
			r.inString = false
		case r.inString && c == '\\':
			n, _ := escape(text[i:])
			if n == 0 {
				return i
			}
			i += n - 1
		case r.inString:
		case c == '"':
			r.inString, r.last = true, c
		case c == 'N' || c == 'I', c == '-' && (i+1 == len(text) || text[i+1] == 'I'):
			return i
		case c != ' ' && c != '\t' && c != '\r' && c != '\n':
			r.last = c
		}
	}
	return len(text)
}

// escape returns the length of the escape, or of the pair of escapes, that text begins with if it stays as it
// is, and 0 if half reports whether it is half of a pair or if text is too short to tell.
func escape(text []byte) (n int, half bool) {
	const unit = len(`\u0000`)
	switch {
	case len(text) < 2:
		return 0, false
	case text[1] != 'u':
		return 2, false
	case len(text) < unit:
		return 0, false
	case !surrogate(text, "89abAB") && !surrogate(text, "cdefCDEF"):
		return unit, false
	case surrogate(text, "cdefCDEF"):
		return 0, true
	case len(text) < 2*unit:
		return 0, false
	case text[unit] == '\\' && text[unit+1] == 'u' && surrogate(text[unit:], "cdefCDEF"):
		return 2 * unit, false
	}
	return 0, true
}

// surrogate reports whether text begins with the escape of a surrogate whose second digit is among digits.
func surrogate(text []byte, digits string) bool {
	hex := func(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }
	return (text[2] == 'd' || text[2] == 'D') && strings.IndexByte(digits, text[3]) >= 0 && hex(text[4]) && hex(text[5])
}

// special reads what plain stopped at and makes it ready.
func (r *Reader) special() {
	head, _ := r.in.Peek(2 * len(`\u0000`)) // less at the end of the text
	if r.inString {
		n, half := escape(head)
		switch {
		case half, n == 0 && len(head) >= len(`\u0000`): // the text ends before the other half
			r.halves = append(r.halves, r.offset)
			r.replace(6, `\ufffd`)
		case n == 0:
			r.replace(len(head), string(head)) // the text ends in the escape
		default:
			r.replace(n, string(head[:n]))
		}
		return
	}
	value := r.last == 0 || r.last == ':' || r.last == ',' || r.last == '['
	r.last = head[0]
	switch {
	case value && bytes.HasPrefix(head, []byte("NaN")):
		r.nans = append(r.nans, r.offset)
		r.replace(3, "9e9")
	case value && bytes.HasPrefix(head, []byte("Infinity")):
		r.replace(8, "1e999999")
	case value && bytes.HasPrefix(head, []byte("-Infinity")):
		r.replace(9, "-1e999999")
	default:
		r.replace(1, string(head[:1]))
	}
}

func (r *Reader) replace(n int, by string) {
	r.skip(n)
	r.ready = append(r.ready[:0], by...)
}
