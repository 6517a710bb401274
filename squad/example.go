package squad

import (
	"io"
	"iter"
)

// An Example is one question and the words of its passage. Examples of one paragraph share Words,
// which are not to be changed.
type Example struct {
	ID, Question string
	Words        []string
}

// Examples reads the questions of a data set as the reference scripts do to predict: one paragraph
// at a time, nothing but contexts, ids and questions. [ReadDataset] tells what it refuses. The
// sequence can be read once; an error ends it.
func Examples(r io.Reader) iter.Seq2[*Example, error] {
	return func(yield func(*Example, error) bool) {
		s := newScanner(r)
		s.questionsOnly = true
		s.scanTo(func(p *Paragraph, err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			for ex := range p.Examples() {
				if !yield(ex, nil) {
					return false
				}
			}
			return true
		})
	}
}

// Examples returns the examples of p.
func (p *Paragraph) Examples() iter.Seq[*Example] {
	return func(yield func(*Example) bool) {
		words := Words(p.Context)
		for _, q := range p.QAs {
			if !yield(&Example{ID: q.ID, Question: q.Question, Words: words}) {
				return
			}
		}
	}
}

// Examples returns the examples of d in file order, in the form in which a file's are read. The
// errors are nil.
func (d *Dataset) Examples() iter.Seq2[*Example, error] {
	return func(yield func(*Example, error) bool) {
		for p := range d.All() {
			for ex := range p.Examples() {
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
func Words(context string) []string {
	var words []string
	start := -1 // of the word that the loop is in
	for i, r := range context {
		switch r {
		case ' ', '\t', '\r', '\n', '\u202f':
			if start >= 0 {
				words = append(words, context[start:i])
				start = -1
			}
		default:
			if start < 0 {
				start = i
			}
		}
	}
	if start >= 0 {
		words = append(words, context[start:])
	}
	return words
}
