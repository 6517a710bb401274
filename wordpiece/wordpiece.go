// Package wordpiece cuts text into BERT's word pieces, exactly as the tokenization.py of the
// reference scripts does: cleaning, lower-casing and accent stripping by Unicode 14.0 (Python 3.11),
// splitting at white space, punctuation and Chinese characters, then the longest pieces first.
package wordpiece

import "unicode/utf8"

// A Tokenizer is the FullTokenizer of the reference scripts. It holds no state of its own, costs
// nothing to make and is safe for concurrent use.
type Tokenizer struct {
	Vocab   *Vocab  // required, except by Basic and AppendBasic
	Cased   bool    // keep case and accents, as do_lower_case=False does
	Profile Profile // version of the scripts
}

// Tokenize returns the pieces of text.
func (t *Tokenizer) Tokenize(text string) []string {
	ids := t.AppendIDs(nil, text)
	pieces := make([]string, len(ids))
	for i, id := range ids {
		pieces[i] = t.Vocab.Token(id)
	}
	return pieces
}

// AppendIDs appends the ids of the pieces of text to dst.
func (t *Tokenizer) AppendIDs(dst []int32, text string) []int32 {
	limit := profiles[t.Profile].maxChars
	s := t.split(text)
	var buf [64]byte // on the stack, for all but very long words
	for word := s.next(buf[:0]); len(word) > 0; word = s.next(word[:0]) {
		if len(word) > limit && utf8.RuneCount(word) > limit {
			dst = append(dst, t.Vocab.unk)
			continue
		}
		dst = t.Vocab.appendPieces(dst, word)
	}
	return dst
}

// Basic returns the words of text before they are cut into pieces: BasicTokenizer.tokenize.
func (t *Tokenizer) Basic(text string) []string {
	var words []string
	s := t.split(text)
	for word := s.next(nil); len(word) > 0; word = s.next(word[:0]) {
		words = append(words, string(word))
	}
	return words
}

// AppendBasic appends the words that Basic returns to dst, separated by single spaces.
func (t *Tokenizer) AppendBasic(dst []byte, text string) []byte {
	s := t.split(text)
	start := len(dst)
	for word := s.next(nil); len(word) > 0; word = s.next(word[:0]) {
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		dst = append(dst, word...)
	}
	return dst
}

func (t *Tokenizer) split(text string) splitter {
	return splitter{text: text, cased: t.Cased, dropped: profiles[t.Profile].dropped}
}
