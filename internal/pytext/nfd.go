package pytext

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// Hangul syllables decompose by arithmetic (Unicode 14.0, section 3.12).
const (
	hangulBase                   = 0xAC00
	hangulEnd                    = 0xD7A4
	leadBase, vowelBase, endBase = 0x1100, 0x1161, 0x11A7
	vowels, ends                 = 21, 28
)

// NFD returns the canonical decomposition of s, as unicodedata.normalize("NFD", s) does.
func NFD(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return string(AppendNFD(make([]byte, 0, len(s)+len(s)/2), []byte(s)))
		}
	}
	return s
}

// AppendNFD appends the canonical decomposition of src to dst. See [NFD].
func AppendNFD(dst, src []byte) []byte {
	start := len(dst)
	var last uint8 // combining class of the last code point appended
	ordered := true
	for i := 0; i < len(src); {
		if src[i] < utf8.RuneSelf {
			dst = append(dst, src[i])
			last = 0
			i++
			continue
		}
		r, size := utf8.DecodeRune(src[i:])
		rec := lookup(r)
		switch {
		case rec.class&decomposes == 0:
			dst = append(dst, src[i:i+size]...)
			ordered = ordered && (rec.ccc == 0 || last <= rec.ccc)
			last = rec.ccc
		case hangulBase <= r && r < hangulEnd:
			dst = appendJamo(dst, r-hangulBase)
			last = 0
		default:
			for _, d := range decomposition(r) {
				ccc := lookup(d).ccc
				dst = utf8.AppendRune(dst, d)
				ordered = ordered && (ccc == 0 || last <= ccc)
				last = ccc
			}
		}
		i += size
	}
	if !ordered {
		orderMarks(dst[start:])
	}
	return dst
}

// decomposition returns what r stands for, or "".
func decomposition(r rune) string {
	middle := nfdMiddle[int(nfdRoot[r>>12])<<6|int(r>>6&63)]
	entry := nfdLeaf[int(middle)<<6|int(r&63)]
	return nfdText[nfdOffset[entry]:nfdOffset[entry+1]]
}

// appendJamo appends the letters of the Hangul syllable with the given number.
func appendJamo(dst []byte, syllable rune) []byte {
	dst = utf8.AppendRune(dst, leadBase+syllable/(vowels*ends))
	dst = utf8.AppendRune(dst, vowelBase+syllable%(vowels*ends)/ends)
	if end := syllable % ends; end != 0 {
		dst = utf8.AppendRune(dst, endBase+end)
	}
	return dst
}

// orderMarks puts every run of combining marks into the order of their classes, in place.
func orderMarks(text []byte) {
	type mark struct {
		r   rune
		ccc uint8
	}
	var run []mark
	start := 0 // of the run
	for i := 0; ; {
		r, size := utf8.DecodeRune(text[i:])
		ccc := lookup(r).ccc
		if ccc != 0 {
			if len(run) == 0 {
				start = i
			}
			run = append(run, mark{r, ccc})
		} else if len(run) > 0 {
			slices.SortStableFunc(run, func(a, b mark) int { return cmp.Compare(a.ccc, b.ccc) })
			for _, m := range run {
				start += utf8.EncodeRune(text[start:], m.r)
			}
			run = run[:0]
		}
		if size == 0 {
			return
		}
		i += size
	}
}
