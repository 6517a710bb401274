package squad

import (
	"cmp"
	"errors"
	"fmt"
	"iter"

	"github.com/tfbert/go/wordpiece"
)

// A Featurizer turns examples into features.
type Featurizer struct {
	Tokenizer      *wordpiece.Tokenizer
	MaxSeqLength   int // tokens of a feature; 0 is DefaultMaxSeqLength
	DocStride      int // word pieces from one window to the next; 0 is DefaultDocStride
	MaxQueryLength int // word pieces of a question that are kept; 0 is DefaultMaxQueryLength

	// MaxWindows bounds the memory of one example. An example that needs more windows is a
	// [TooManyWindowsError]. 0 means no limit.
	MaxWindows int
}

// A TooManyWindowsError reports an example that needs more windows than Featurizer.MaxWindows.
type TooManyWindowsError struct {
	ID             string // of the question
	Windows, Limit int
}

func (e *TooManyWindowsError) Error() string {
	return fmt.Sprintf("question %q: the passage makes %d windows, more than %d", e.ID, e.Windows, e.Limit)
}

// firstUniqueID is the UniqueID of a file's first feature.
const firstUniqueID = 1000000000

// Windows holds the features of one example, in order. A passage without word pieces has none.
type Windows struct {
	Example  *Example
	Features []Feature
}

// Check returns an error if f cannot make features.
func (f *Featurizer) Check() error {
	_, err := f.builder()
	return err
}

// WindowsOf returns the features of one example.
func (f *Featurizer) WindowsOf(ex *Example) (*Windows, error) {
	b, err := f.builder()
	if err != nil {
		return nil, err
	}
	return b.windows(ex)
}

// Windows returns the features of each example. An error from examples ends the sequence.
func (f *Featurizer) Windows(examples iter.Seq2[*Example, error]) iter.Seq2[*Windows, error] {
	return func(yield func(*Windows, error) bool) {
		b, err := f.builder()
		if err != nil {
			yield(nil, err)
			return
		}
		for ex, err := range examples {
			if err != nil {
				yield(nil, err)
				return
			}
			w, err := b.windows(ex)
			if !yield(w, err) || err != nil {
				return
			}
		}
	}
}

// Features returns the features of all examples in order. An error from examples ends the sequence.
func (f *Featurizer) Features(examples iter.Seq2[*Example, error]) iter.Seq2[*Feature, error] {
	return func(yield func(*Feature, error) bool) {
		for w, err := range f.Windows(examples) {
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range w.Features {
				if !yield(&w.Features[i], nil) {
					return
				}
			}
		}
	}
}

// A featureBuilder builds the features of a sequence of examples. It tokenises a passage once for all
// consecutive questions about it.
type featureBuilder struct {
	Featurizer
	cls, sep int32

	words    []string // of doc
	doc      *document
	query    []int32
	uniqueID int32
	example  int
}

// builder checks f and fills in its defaults.
func (f *Featurizer) builder() (*featureBuilder, error) {
	b := &featureBuilder{Featurizer: *f, uniqueID: firstUniqueID}
	b.MaxSeqLength = cmp.Or(f.MaxSeqLength, DefaultMaxSeqLength)
	b.DocStride = cmp.Or(f.DocStride, DefaultDocStride)
	b.MaxQueryLength = cmp.Or(f.MaxQueryLength, DefaultMaxQueryLength)
	switch {
	case f.Tokenizer == nil || f.Tokenizer.Vocab == nil:
		return nil, errors.New("the featurizer has no tokenizer with a vocabulary")
	case b.DocStride < 0:
		return nil, fmt.Errorf("doc_stride is %d: it must be at least 1", b.DocStride)
	case b.MaxQueryLength < 0:
		return nil, fmt.Errorf("max_query_length is %d: it must be at least 1", b.MaxQueryLength)
	case b.MaxSeqLength <= b.MaxQueryLength+3:
		return nil, fmt.Errorf("max_seq_length %d leaves no room for the passage: "+
			"it must be more than max_query_length %d + 3; lower max_query_length",
			b.MaxSeqLength, b.MaxQueryLength)
	}
	// Padding is id 0, as in the reference, even if the vocabulary has another token there.
	for _, special := range []struct {
		token string
		id    *int32
	}{{"[CLS]", &b.cls}, {"[SEP]", &b.sep}} {
		id, ok := f.Tokenizer.Vocab.ID(special.token)
		if !ok {
			return nil, fmt.Errorf("the vocabulary has no %s: "+
				"it is not the vocabulary of a BERT model", special.token)
		}
		*special.id = id
	}
	return b, nil
}

func (b *featureBuilder) windows(ex *Example) (*Windows, error) {
	if b.doc == nil || !sameSlice(b.words, ex.Words) {
		b.words, b.doc = ex.Words, newDocument(b.Tokenizer, ex.Words)
	}
	b.query = b.Tokenizer.AppendIDs(b.query[:0], ex.Question)
	b.query = b.query[:min(len(b.query), b.MaxQueryLength)]

	first := len(b.query) + 2
	room := b.MaxSeqLength - first - 1
	spans := windows{len(b.doc.pieces), room, min(room, b.DocStride)}
	if n := spans.count(); b.MaxWindows > 0 && n > b.MaxWindows {
		return nil, &TooManyWindowsError{ex.ID, n, b.MaxWindows}
	}
	w := &Windows{Example: ex, Features: make([]Feature, spans.count())}
	backing := make([]int32, 3*b.MaxSeqLength*len(w.Features))
	next := func() []int32 {
		s := backing[:b.MaxSeqLength:b.MaxSeqLength]
		backing = backing[b.MaxSeqLength:]
		return s
	}
	for i := range w.Features {
		start, length := spans.span(i)
		f := &w.Features[i]
		*f = Feature{
			UniqueID:     b.uniqueID,
			ExampleIndex: b.example,
			DocSpanIndex: i,
			InputIDs:     next(),
			InputMask:    next(),
			SegmentIDs:   next(),
			Len:          first + length + 1,
			DocStart:     start,
			DocLength:    length,
			doc:          b.doc,
			windows:      spans,
			first:        first,
		}
		f.InputIDs[0] = b.cls
		copy(f.InputIDs[1:], b.query)
		f.InputIDs[first-1] = b.sep
		copy(f.InputIDs[first:], b.doc.pieces[start:start+length])
		f.InputIDs[f.Len-1] = b.sep
		fill(f.InputMask[:f.Len], 1)
		fill(f.SegmentIDs[first:f.Len], 1)
		b.uniqueID++
	}
	b.example++
	return w, nil
}

func newDocument(t *wordpiece.Tokenizer, words []string) *document {
	d := &document{tokenizer: t}
	d.pieces = make([]int32, 0, len(words)*3/2)
	d.wordOf = make([]int32, 0, len(words)*3/2)
	for i, word := range words {
		d.pieces = t.AppendIDs(d.pieces, word)
		for len(d.wordOf) < len(d.pieces) {
			d.wordOf = append(d.wordOf, int32(i))
		}
	}
	return d
}

// sameSlice reports whether a and b are the same elements of the same array.
func sameSlice(a, b []string) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func fill(s []int32, v int32) {
	for i := range s {
		s[i] = v
	}
}
