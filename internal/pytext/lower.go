package pytext

import "unicode/utf8"

const (
	capitalSigma = 'Σ'
	smallSigma   = 'σ'
	finalSigma   = 'ς'
	dottedI      = 'İ' // the one letter whose lower case is two code points
)

// Lower returns s.lower(): letter by letter, except that a capital sigma at the end of a word
// becomes a final one, and U+0130 an i with a dot above it.
func Lower(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return string(AppendLower(make([]byte, 0, len(s)+len(s)/8), []byte(s)))
		}
	}
	return s
}

// AppendLower appends the lower case of src to dst. See [Lower].
func AppendLower(dst, src []byte) []byte {
	for i := 0; i < len(src); {
		if c := src[i]; c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, size := utf8.DecodeRune(src[i:])
		rec := lookup(r)
		switch {
		case rec.class&lowers == 0: // this keeps bytes that are not UTF-8
			dst = append(dst, src[i:i+size]...)
		case r == capitalSigma && endsWord(src[:i], src[i+size:]):
			dst = utf8.AppendRune(dst, finalSigma)
		case r == capitalSigma:
			dst = utf8.AppendRune(dst, smallSigma)
		case r == dottedI:
			dst = append(dst, "i\u0307"...)
		default:
			dst = utf8.AppendRune(dst, r+rec.lower)
		}
		i += size
	}
	return dst
}

// endsWord reports whether a sigma between before and after is the last letter of a word: a cased
// letter stands before it and none after it, case-ignorable characters such as "'" not counted.
func endsWord(before, after []byte) bool {
	for {
		r, size := utf8.DecodeLastRune(before)
		if size == 0 {
			return false
		}
		class := ClassOf(r)
		before = before[:len(before)-size]
		if class&ignorable != 0 {
			continue
		}
		if class&cased == 0 {
			return false
		}
		break
	}
	for {
		r, size := utf8.DecodeRune(after)
		if size == 0 {
			return true
		}
		class := ClassOf(r)
		after = after[size:]
		if class&ignorable == 0 {
			return class&cased == 0
		}
	}
}
