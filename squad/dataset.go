package squad

import (
	"io"
	"iter"
)

// A Dataset is a SQuAD file, version 1.1 or 2.0.
type Dataset struct {
	Version  string
	Articles []Article

	unversioned bool // the file does not have a version
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

	noContext error // why Context is ""
}

// A Question is one question and the texts of its reference answers, if the file has any.
type Question struct {
	ID       string
	Question string
	Answers  []string

	noQuestion error // why Question is ""
	badAnswers error // why Answers is not what the file has
}

// ReadDataset reads a whole data set into memory, to score or to predict. [Paragraphs] and [Examples] read the
// same files a paragraph at a time.
//
// The file is a SQuAD file, or has the same entries without "data", in an array or as JSON lines. An entry may
// also be one question with its context, as Hugging Face has them, or a paragraph, as in MRQA's files.
//
// ReadDataset returns a [ReadError] if the file is not JSON in UTF-8 or has no ids of questions. As to the
// scripts, all else matters only to who needs it: [Evaluate] needs answers, and [Dataset.Examples] contexts and
// questions. Of a repeated key the last value counts. An id that is not a string becomes the key that Python's
// json.dumps writes for it.
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
	s.restart = func(key string) {
		paragraphs = nil
		if key == "data" {
			d.Articles = nil
		}
	}
	if err := s.scan(); err != nil {
		return nil, err
	}
	d.unversioned = s.version == nil
	if s.version != nil {
		d.Version = *s.version
	}
	return d, nil
}

// Paragraphs reads a data set one paragraph at a time. Every paragraph needs a context, and every question its
// text. Paragraphs also returns an error if a question's id is repeated: the scripts keep one of the answers and
// drop the others. To find such ids it holds some 40 bytes a question. An error ends the sequence.
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

// IDs returns the ids of the questions and how often each occurs.
func (d *Dataset) IDs() map[string]int {
	ids := make(map[string]int)
	for p := range d.All() {
		for i := range p.QAs {
			ids[p.QAs[i].ID]++
		}
	}
	return ids
}

// Labelled reports whether a question has a reference answer.
func (d *Dataset) Labelled() bool {
	for p := range d.All() {
		for i := range p.QAs {
			if len(p.QAs[i].Answers) > 0 {
				return true
			}
		}
	}
	return false
}
