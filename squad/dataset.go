package squad

import (
	"io"
	"iter"
)

// A Dataset is a SQuAD file, version 1.1 or 2.0.
type Dataset struct {
	Version  string
	Articles []Article
}

// An Article is one entry of a data set's "data".
type Article struct {
	Title      string
	Paragraphs []Paragraph
}

// A Paragraph is a passage and the questions asked of it.
type Paragraph struct {
	Context string
	QAs     []Question
}

// A Question is one question and its reference answers, if the file has any.
type Question struct {
	ID               string
	Question         string
	Answers          []Answer
	IsImpossible     bool
	PlausibleAnswers []Answer
}

// An Answer is a reference answer. AnswerStart counts code points from the start of the context.
type Answer struct {
	Text        string
	AnswerStart int
}

// ReadDataset reads a whole data set into memory. [Paragraphs] and [Examples] read the same files
// a paragraph at a time.
//
// Only data, paragraphs, context, qas, id and question are required, the keys that the reference scripts
// read to predict. An id may be a number, as Triton's client sends it, and becomes the key that Python's
// json.dumps writes for it. ReadDataset returns a [ReadError] if the file is not JSON in UTF-8, starts
// with a byte order mark or is not SQuAD, and also if a question id is repeated: the reference scripts
// keep one of the answers and drop the others.
func ReadDataset(r io.Reader) (*Dataset, error) {
	d := new(Dataset)
	var paragraphs []Paragraph
	s := newScanner(r)
	s.paragraph = func(p *Paragraph) bool {
		paragraphs = append(paragraphs, *p)
		return true
	}
	s.article = func(title string) {
		d.Articles = append(d.Articles, Article{Title: title, Paragraphs: paragraphs})
		paragraphs = nil
	}
	if err := s.scan(); err != nil {
		return nil, err
	}
	d.Version = s.version
	return d, nil
}

// Paragraphs reads a data set one paragraph at a time, with the checks of [ReadDataset]. To find repeated
// ids it holds some 40 bytes a question. An error ends the sequence.
func Paragraphs(r io.Reader) iter.Seq2[*Paragraph, error] {
	return func(yield func(*Paragraph, error) bool) {
		s := newScanner(r)
		s.scanTo(yield)
	}
}

// All returns the paragraphs in file order.
func (d *Dataset) All() iter.Seq[*Paragraph] {
	return func(yield func(*Paragraph) bool) {
		for i := range d.Articles {
			for j := range d.Articles[i].Paragraphs {
				if !yield(&d.Articles[i].Paragraphs[j]) {
					return
				}
			}
		}
	}
}
