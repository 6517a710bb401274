package squad

import (
	"io"
	"iter"
	"unicode/utf8"
)

// An Example is one question and the words of its passage. Examples of one paragraph share Words, which
// must not be changed.
type Example struct {
	ID, Question string
	Words        []string
}

// Examples reads the questions of a data set as the reference scripts do to predict: one paragraph
// at a time, and only contexts, ids and questions. It refuses what [ReadDataset] refuses. The sequence
// can be read once. An error ends it.
func Examples(r io.Reader) iter.Seq2[*Example, error] {
	return func(yield func(*Example, error) bool) {
		s := newScanner(r)
		s.questionsOnly = true
		s.scanTo(func(p *Paragraph, err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			for ex := range p.examples() {
				if !yield(ex, nil) {
					return false
				}
			}
			return true
		})
	}
}

// examples returns the examples of p.
func (p *Paragraph) examples() iter.Seq[*Example] {
	return func(yield func(*Example) bool) {
		words := Words(p.Context)
		for _, q := range p.QAs {
			if !yield(&Example{ID: q.ID, Question: q.Question, Words: words}) {
				return
			}
		}
	}
}

// Examples returns the examples of d in file order, as the function [Examples] does for a file. The
// errors are nil.
func (d *Dataset) Examples() iter.Seq2[*Example, error] {
	return func(yield func(*Example, error) bool) {
		for p := range d.All() {
			for ex := range p.examples() {
				if !yield(ex, nil) {
					return
				}
			}
		}
	}
}

// First returns the first n examples. What comes after them is not read.
func First(n int, examples iter.Seq2[*Example, error]) iter.Seq2[*Example, error] {
	return func(yield func(*Example, error) bool) {
		if n <= 0 {
			return
		}
		left := n
		for ex, err := range examples {
			left--
			if !yield(ex, err) || left == 0 {
				return
			}
		}
	}
}

// Words splits a passage as the reference scripts do: on space, tab, carriage return, line feed
// and U+202F, and on no other white space.
func Words(context string) []string { return NewPassage(context).Words }

// A Passage is the text that questions are asked of, with the places of its words. All places are
// counted in code points from the start of the text, as the data sets count them.
type Passage struct {
	Words  []string // as Words splits the text
	starts []int32
}

// NewPassage finds the words of a text.
func NewPassage(text string) *Passage {
	p := &Passage{}
	start, n := -1, 0 // the word that the loop is in, and the code points before i
	for i, r := range text {
		switch r {
		case ' ', '\t', '\r', '\n', '\u202f':
			if start >= 0 {
				p.Words = append(p.Words, text[start:i])
				start = -1
			}
		default:
			if start < 0 {
				start = i
				p.starts = append(p.starts, int32(n))
			}
		}
		n++
	}
	if start >= 0 {
		p.Words = append(p.Words, text[start:])
	}
	return p
}

// Span returns the place of the words from first to last, both included.
func (p *Passage) Span(first, last int) (start, end int) {
	return int(p.starts[first]), int(p.starts[last]) + utf8.RuneCountInString(p.Words[last])
}

// Locate returns the place of a candidate's text. ok reports whether it is a text of the passage.
// Between two words the passage may have more white space than the text, or other.
func (p *Passage) Locate(c *Candidate) (start, end int, ok bool) {
	if c.Window < 0 || c.Text == "" {
		return 0, 0, false
	}
	place := func(offset int) int { // of a byte of the words joined by spaces, and no space
		i := c.StartWord
		for offset > len(p.Words[i]) {
			offset -= len(p.Words[i]) + 1
			i++
		}
		return int(p.starts[i]) + utf8.RuneCountInString(p.Words[i][:offset])
	}
	return place(c.Offset), place(c.Offset + len(c.Text)), true
}
