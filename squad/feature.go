package squad

import "github.com/tfbert/go/wordpiece"

// A Feature is one window over an example's passage in the form in which BERT reads it:
//
//	[CLS] question [SEP] passage slice [SEP] padding
type Feature struct {
	UniqueID     int32 // counts all features of a file, from 1000000000
	ExampleIndex int   // of the example in its file
	DocSpanIndex int   // of the window in its example

	InputIDs   []int32 // vocabulary ids, padded with 0
	InputMask  []int32 // 1 at tokens, 0 at padding
	SegmentIDs []int32 // 0 through the first [SEP], then 1, and 0 at padding
	Len        int     // tokens without padding

	DocStart, DocLength int // the word pieces of the passage in the window: the first, and how many

	doc     *document
	windows windows
	first   int // position of the first passage piece
}

// A document is the tokenised passage of one or more examples.
type document struct {
	tokenizer *wordpiece.Tokenizer
	pieces    []int32
	wordOf    []int32 // the word that each piece is part of
}

// Tokens returns the word pieces of f without padding.
func (f *Feature) Tokens() []string {
	tokens := make([]string, f.Len)
	for i := range tokens {
		tokens[i] = f.doc.tokenizer.Vocab.Token(f.InputIDs[i])
	}
	return tokens
}

// TokenToOrig returns the index of the passage word that the token at position pos is part of.
// Outside the passage slice there is none, and ok is false.
func (f *Feature) TokenToOrig(pos int) (word int, ok bool) {
	i := pos - f.first
	if i < 0 || i >= f.DocLength {
		return 0, false
	}
	return int(f.doc.wordOf[f.DocStart+i]), true
}

// MaxContext reports whether f is the window that shows the token at position pos, one of the
// passage, with the most context on its scarcer side. A token can be in several windows; only in
// this one may an answer start with it.
func (f *Feature) MaxContext(pos int) bool {
	i := pos - f.first
	if i < 0 || i >= f.DocLength {
		return false
	}
	return f.windows.best(f.DocStart+i) == f.DocSpanIndex
}

// windows are the spans of a sliding window over total word pieces, each step further than the one
// before, until one reaches the end. They need not be listed, because all except the last have length
// pieces.
type windows struct{ total, length, step int }

func (w windows) count() int {
	switch {
	case w.total == 0:
		return 0
	case w.total <= w.length:
		return 1
	}
	return 1 + (w.total-w.length+w.step-1)/w.step
}

// span returns the first word piece of a window and how many it has.
func (w windows) span(i int) (start, length int) {
	start = i * w.step
	return start, min(w.total-start, w.length)
}

// best returns the window with the most context for the piece at pos, the first of equals.
func (w windows) best(pos int) int {
	first := max(0, (pos-w.length)/w.step+1) // the first window that ends after pos
	if pos < w.length {
		first = 0
	}
	last := min(pos/w.step, w.count()-1)
	best, bestScore := -1, 0.0
	for i := first; i <= last; i++ {
		start, length := w.span(i)
		left, right := pos-start, start+length-1-pos
		// The conversion keeps the product from being fused into the sum, which rounds differently.
		score := float64(min(left, right)) + float64(0.01*float64(length))
		if best < 0 || score > bestScore {
			best, bestScore = i, score
		}
	}
	return best
}
