package wordpiece

import (
	"unicode/utf8"

	"github.com/tfbert/go/internal/pytext"
)

// What an ASCII character, or the first byte of another, is to the splitter.
const (
	letter  = iota // anything that is part of a word
	space          // ends a chunk
	dropped        // control characters
	punct          // a word of its own
	wide           // not ASCII
)

// kinds and lowered are indexed by byte; same is lowered for cased text.
var kinds, lowered, same = func() (kinds, lowered, same [256]byte) {
	for i := range 256 {
		c := byte(i)
		lowered[c], same[c] = c, c
		switch {
		case c >= utf8.RuneSelf:
			kinds[c] = wide
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			kinds[c] = space
		case c < ' ' || c == 0x7F:
			kinds[c] = dropped
		case 'A' <= c && c <= 'Z':
			lowered[c] = c + 'a' - 'A'
		case '0' <= c && c <= '9' || 'a' <= c && c <= 'z':
		default: // all other printable ones, even those that Unicode calls symbols
			kinds[c] = punct
		}
	}
	return
}()

// A splitter cuts a text into words as BasicTokenizer.tokenize does.
//
// It goes by chunks, the stretches between white space. The words of an ASCII chunk are taken from
// the text directly. Any other chunk is cleaned, lowered and decomposed as a whole first, because
// what a letter becomes may depend on its neighbours.
type splitter struct {
	text    string
	pos     int // the text before it is done
	end     int // of the ASCII chunk at pos, if greater than pos
	cased   bool
	dropped pytext.Class

	chunk   []byte // what is left of a chunk that is not ASCII, in scratch
	scratch [2][]byte
}

// next appends the next word to the empty slice word. At the end of the text it stays empty.
func (s *splitter) next(word []byte) []byte {
	for {
		switch {
		case s.pos < s.end:
			word = s.asciiWord(word)
		case len(s.chunk) > 0:
			word = s.chunkWord(word)
		case !s.nextChunk():
			return word
		}
		if len(word) > 0 {
			return word
		}
	}
}

// asciiWord takes a word from text[pos:end].
func (s *splitter) asciiWord(word []byte) []byte {
	lower := &lowered
	if s.cased {
		lower = &same
	}
	chunk := s.text[s.pos:s.end]
	for i := range len(chunk) {
		c := chunk[i]
		switch kinds[c] {
		case letter:
			word = append(word, lower[c])
		case punct:
			if len(word) == 0 {
				word = append(word, c)
				i++
			}
			s.pos += i
			return word
		}
	}
	s.pos = s.end
	return word
}

// chunkWord takes a word from chunk.
func (s *splitter) chunkWord(word []byte) []byte {
	for len(s.chunk) > 0 {
		r, size := rune(s.chunk[0]), 1
		isPunct, isMark := kinds[s.chunk[0]] == punct, false
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(s.chunk)
			class := pytext.ClassOf(r)
			isPunct = class&pytext.Punct != 0
			isMark = class&pytext.Mn != 0
		}
		if isPunct && len(word) > 0 {
			break
		}
		if s.cased || !isMark {
			word = append(word, s.chunk[:size]...)
		}
		s.chunk = s.chunk[size:]
		if isPunct {
			break
		}
	}
	return word
}

// nextChunk finds the next chunk and reports whether there is one. A chunk may turn out empty.
func (s *splitter) nextChunk() bool {
	for s.pos < len(s.text) && kinds[s.text[s.pos]] == space {
		s.pos++
	}
	for end := s.pos; end < len(s.text); end++ {
		switch kinds[s.text[end]] {
		case space:
			s.end = end
			return true
		case wide:
			s.wideChunk()
			return true
		}
	}
	s.end = len(s.text)
	return s.pos < s.end
}

// wideChunk makes ready the chunk at pos, which is not all ASCII.
func (s *splitter) wideChunk() {
	if s.scratch[0] == nil {
		buf := make([]byte, 128)
		s.scratch = [2][]byte{buf[:0:64], buf[64:64]}
	}
	clean := s.clean(s.scratch[0][:0])
	s.scratch[0] = clean
	s.chunk = clean
	if s.cased {
		return
	}
	lower := pytext.AppendLower(s.scratch[1][:0], clean)
	s.scratch[1] = lower
	s.chunk = pytext.AppendNFD(s.scratch[0][:0], lower)
	s.scratch[0] = s.chunk
}

// clean appends the chunk at pos, without what is dropped, to dst. A Chinese character is a chunk.
func (s *splitter) clean(dst []byte) []byte {
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		if c < utf8.RuneSelf {
			switch kinds[c] {
			case space:
				return dst
			case letter, punct:
				dst = append(dst, c)
			}
			s.pos++
			continue
		}
		r, size := utf8.DecodeRuneInString(s.text[s.pos:])
		class := pytext.ClassOf(r)
		switch {
		case r == utf8.RuneError || class&s.dropped != 0:
			s.pos += size
			continue
		case class&pytext.Space != 0:
			s.pos += size
			return dst
		case isChinese(r):
			if len(dst) == 0 {
				s.pos += size
				dst = append(dst, s.text[s.pos-size:s.pos]...)
			}
			return dst
		}
		dst = append(dst, s.text[s.pos:s.pos+size]...)
		s.pos += size
	}
	return dst
}

// isChinese reports whether r is in one of the blocks that the reference sets apart: ideographs, but
// neither kana nor Hangul.
func isChinese(r rune) bool {
	return 0x4E00 <= r && r <= 0x9FFF ||
		0x3400 <= r && r <= 0x4DBF ||
		0x20000 <= r && r <= 0x2A6DF ||
		0x2A700 <= r && r <= 0x2B73F ||
		0x2B740 <= r && r <= 0x2B81F ||
		0x2B820 <= r && r <= 0x2CEAF ||
		0xF900 <= r && r <= 0xFAFF ||
		0x2F800 <= r && r <= 0x2FA1F
}
