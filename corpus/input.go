package corpus

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/squad"
)

// mostBytes of a line, or of a row of a table, are read: a quotation mark that is not closed would make one of all
// that follow.
const mostBytes = 16 << 20

// A question is one of an input.
type question struct {
	id, text, context string
	broken            string // why it is none; "" if it is one

	line   int64 // where it begins, or its number in a data set, counted from 1
	offset int64 // of its first byte in the unpacked file, if reading can begin there
}

// An input is an open file of questions.
type input struct {
	Input
	file   *os.File
	packed io.Closer // the unpacker, or nil
	read   int64     // questions so far
	form   form
}

// A form reads the questions of a file one after another, and returns io.EOF at its end.
type form interface{ next() (question, error) }

// A seeker is a form that can go on elsewhere in a file that is not packed.
type seeker interface {
	seek(f io.ReadSeeker, offset, line int64) error
}

func open(in Input) (_ *input, err error) {
	f, _, err := file.Open(in.Path)
	if err != nil {
		return nil, err
	}
	i := &input{Input: in, file: f}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", in.Path, err), i.close())
		}
	}()
	var r io.Reader = f
	switch filepath.Ext(strings.ToLower(in.Path)) {
	case ".gz":
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		r, i.packed = z, z
	case ".zst":
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, err
		}
		r, i.packed = z, z.IOReadCloser()
	}
	switch in.Format {
	case LinesFormat:
		i.form = &lines{r: bufio.NewReaderSize(r, 1<<16)}
	case TableFormat:
		i.form, err = newTable(r)
	case SQuADFormat:
		pull, stop := iter.Pull2(squad.Paragraphs(r))
		i.form = &dataset{pull: pull, stop: stop}
	default:
		err = fmt.Errorf("unknown form %q", in.Format)
	}
	return i, err
}

func (i *input) close() error {
	var err error
	if d, ok := i.form.(*dataset); ok && d != nil {
		d.stop()
	}
	if i.packed != nil {
		err = i.packed.Close()
	}
	return errors.Join(err, i.file.Close())
}

func (i *input) next() (question, error) {
	q, err := i.form.next()
	if err == nil {
		i.read++
		if q.id == "" {
			q.id = fmt.Sprintf("%s:%d", filepath.Base(i.Path), q.line)
		}
	}
	return q, err
}

// skipTo goes to the first question of a chunk, which has not been read yet.
func (i *input) skipTo(c Chunk) error {
	if s, ok := i.form.(seeker); ok && i.packed == nil && c.First > i.read {
		i.read = c.First
		return s.seek(i.file, c.Offset, c.Line)
	}
	for i.read < c.First {
		if _, err := i.next(); err != nil {
			return err
		}
	}
	return nil
}

// lines are JSON objects, one on each line.
type lines struct {
	r      *bufio.Reader
	offset int64
	line   int64
}

func (l *lines) seek(f io.ReadSeeker, offset, line int64) error {
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	l.r.Reset(f)
	l.offset, l.line = offset, line-1
	return nil
}

func (l *lines) next() (question, error) {
	for {
		text, long, err := l.readLine()
		if err != nil {
			return question{}, err
		}
		l.line++
		q := question{line: l.line, offset: l.offset - int64(long)}
		switch trimmed := bytes.TrimSpace(text); {
		case long > mostBytes:
			q.broken = fmt.Sprintf("the line is longer than %d bytes", mostBytes)
		case len(trimmed) == 0 || l.line == 1 && bytes.Equal(trimmed, []byte("\ufeff")):
			continue
		default:
			q.parse(bytes.TrimPrefix(trimmed, []byte("\ufeff")))
		}
		return q, nil
	}
}

// readLine returns a line and its length, of which no more than mostBytes are kept.
func (l *lines) readLine() (text []byte, length int, err error) {
	for {
		part, err := l.r.ReadSlice('\n')
		length += len(part)
		l.offset += int64(len(part))
		if length <= mostBytes {
			text = append(text, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err == io.EOF && length > 0 {
			err = nil
		}
		return text, length, err
	}
}

// parse reads a question from JSON.
func (q *question) parse(text []byte) {
	var object struct {
		ID       json.RawMessage `json:"id"`
		Question *string         `json:"question"`
		Context  *string         `json:"context"`
		Document *string         `json:"document"`
	}
	if !utf8.Valid(text) { // which encoding/json would replace
		q.broken = "it is not UTF-8"
		return
	}
	if err := json.Unmarshal(text, &object); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			q.broken = fmt.Sprintf("%s must be a string", wrong.Field)
		} else {
			q.broken = "it is not a JSON object"
		}
		return
	}
	if object.Context == nil {
		object.Context = object.Document
	}
	if err := json.Unmarshal(object.ID, &q.id); err != nil && len(object.ID) > 0 {
		var number json.Number
		if json.Unmarshal(object.ID, &number) != nil {
			q.broken = "id must be a string or a number"
			return
		}
		q.id = number.String()
	}
	q.fill(object.Question, object.Context)
}

// fill sets the texts of a question, of which nil ones are missing.
func (q *question) fill(text, context *string) {
	switch {
	case text == nil:
		q.broken = "it has no question"
	case context == nil:
		q.broken = "it has no context"
	case strings.TrimSpace(*text) == "":
		q.broken = "its question is empty"
	case !utf8.ValidString(*text) || !utf8.ValidString(*context):
		q.broken = "it is not UTF-8"
	default:
		q.text, q.context = *text, *context
	}
}

// table is a file of comma-separated values.
type table struct {
	r       *csv.Reader
	bounded *boundedReader
	columns map[string]int
	base    int64 // of r in the file
	line    int64 // before r
}

func newTable(r io.Reader) (*table, error) {
	t := &table{columns: map[string]int{}}
	t.reset(r)
	names, err := t.r.Read()
	if err == io.EOF {
		return nil, errors.New("it is empty: the first line must name the columns")
	}
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		t.columns[strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))] = i
	}
	if _, ok := t.columns["context"]; !ok {
		if document, ok := t.columns["document"]; ok {
			t.columns["context"] = document
		}
	}
	for _, name := range []string{"question", "context"} {
		if _, ok := t.columns[name]; !ok {
			return nil, fmt.Errorf("it has no column %s: its first line names %s", name, strings.Join(names, ", "))
		}
	}
	return t, nil
}

func (t *table) reset(r io.Reader) {
	t.bounded = &boundedReader{Reader: r}
	t.r = csv.NewReader(t.bounded)
	t.r.FieldsPerRecord = -1
	t.r.ReuseRecord = true
}

func (t *table) seek(f io.ReadSeeker, offset, line int64) error {
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	t.reset(f)
	t.base, t.line = offset, line-1
	return nil
}

func (t *table) next() (question, error) {
	q := question{offset: t.base + t.r.InputOffset()}
	t.bounded.read = 0
	row, err := t.r.Read()
	var wrong *csv.ParseError
	switch {
	case errors.As(err, &wrong):
		q.line = t.line + int64(wrong.StartLine)
		q.broken = wrong.Err.Error()
		return q, nil
	case err != nil:
		return q, err
	}
	line, _ := t.r.FieldPos(0)
	q.line = t.line + int64(line)
	at := func(column string) *string {
		if i, ok := t.columns[column]; ok && i < len(row) {
			s := strings.Clone(row[i])
			return &s
		}
		return nil
	}
	if id := at("id"); id != nil {
		q.id = *id
	}
	q.fill(at("question"), at("context"))
	return q, nil
}

// A boundedReader ends with an error if a row is too long.
type boundedReader struct {
	io.Reader
	read int64 // since the row began, and what is buffered beyond it
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.read > mostBytes {
		return 0, fmt.Errorf("a row is longer than %d bytes: is a quotation mark not closed?", mostBytes)
	}
	n, err := b.Reader.Read(p)
	b.read += int64(n)
	return n, err
}

// dataset is a SQuAD file.
type dataset struct {
	pull func() (*squad.Paragraph, error, bool)
	stop func()

	context string
	rest    []squad.Question // of the paragraph
	read    int64
}

func (d *dataset) next() (question, error) {
	for len(d.rest) == 0 {
		p, err, ok := d.pull()
		if !ok {
			return question{}, io.EOF
		}
		if err != nil {
			return question{}, err
		}
		d.context, d.rest = p.Context, slices.Clone(p.QAs)
	}
	d.read++
	q := question{id: d.rest[0].ID, line: d.read}
	q.fill(&d.rest[0].Question, &d.context)
	d.rest = d.rest[1:]
	return q, nil
}
