package squad

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfbert/go/internal/pyjson"
)

// A jsonSource reads JSON as Python's json.load does and knows where it is in it. Unlike Python it refuses half a
// surrogate pair in a string that counts: what is written from it could not be read again.
type jsonSource struct {
	format string // for errors
	in     *bufio.Reader
	python *pyjson.Reader
	lines  *lineCounter
	dec    *jsontext.Decoder
	place  func() string // where in the file's own terms; nil if the file has none
}

func newJSONSource(r io.Reader, format string) jsonSource {
	in := bufio.NewReaderSize(r, 1<<16)
	python := pyjson.NewReader(in)
	lines := &lineCounter{r: python}
	// Python keeps the last value of a repeated key; so do the readers built on this one.
	dec := jsontext.NewDecoder(lines, jsontext.AllowDuplicateNames(true))
	lines.used = dec.InputOffset
	return jsonSource{format: format, in: in, python: python, lines: lines, dec: dec}
}

// maxToken bounds what the decoder keeps in memory at once: a string, a number or the white space
// before one. The longest of SQuAD is a passage of 25 KB.
const maxToken = 64 << 20

var errToken = fmt.Errorf("a string or number is longer than %d MiB", maxToken>>20)

// begin skips a byte order mark, which Python refuses, and names a file that cannot be JSON.
func (s *jsonSource) begin() error {
	if head, _ := s.in.Peek(3); string(head) == "\xef\xbb\xbf" {
		_, _ = s.in.Discard(len(head)) // bytes that were peeked
	}
	head, err := s.in.Peek(256) // less at the end of the file
	switch {
	case len(head) == 0 && err != nil && err != io.EOF:
		return err
	case len(bytes.TrimSpace(head)) == 0 && err == io.EOF:
		return errors.New("the file is empty, not JSON")
	case bytes.HasPrefix(head, []byte("\xfe\xff")), bytes.HasPrefix(head, []byte("\xff\xfe")):
		return errors.New("the file is UTF-16: save it as UTF-8")
	}
	return nil
}

// end checks that nothing follows the document.
func (s *jsonSource) end() error {
	switch _, err := s.dec.ReadToken(); err {
	case io.EOF:
		return nil
	case nil:
		return errors.New("not JSON: there is more text after the end of the document")
	default:
		return err
	}
}

// document reads a file that is one object, from begin to end. Its error is a *ReadError.
func (s *jsonSource) document(member func(key string) error) error {
	err := s.begin()
	if kind := s.dec.PeekKind(); err == nil && kind == jsontext.KindBeginArray {
		err = s.wrongKind("the file", kind, "an object with a member for each question")
	}
	if err == nil {
		err = s.object("the file", member)
	}
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return s.locate(err)
	}
	return nil
}

// A mistake is a member of an object whose value is JSON but not what it should be.
type mistake struct {
	key string
	err *ReadError
}

type mistakes []mistake

// first returns the first of the mistakes in some members, or in all if none is named.
func (m mistakes) first(keys ...string) error {
	for _, m := range m {
		if len(keys) == 0 || slices.Contains(keys, m.key) {
			return m.err
		}
	}
	return nil
}

// maxMistakes is how many mistakes wait for later values of their keys.
const maxMistakes = 16

// object reads an object. It calls member at each member's value and skips what member leaves of it. Of a repeated
// key the last value counts, as in Python, and a mistake in an earlier one does not.
func (s *jsonSource) object(what string, member func(key string) error) error {
	mistakes, err := s.members(what, member)
	if err == nil {
		err = mistakes.first()
	}
	return err
}

// members reads an object as object does, and leaves it to the caller which mistakes matter.
func (s *jsonSource) members(what string, member func(key string) error) (mistakes, error) {
	if kind := s.dec.PeekKind(); kind != jsontext.KindBeginObject {
		return nil, s.wrongKind(what, kind, "an object")
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return nil, err
	}
	var found mistakes
	for depth := s.dec.StackDepth(); s.dec.PeekKind() != jsontext.KindEndObject; {
		start := s.dec.InputOffset()
		token, err := s.dec.ReadToken()
		if err != nil {
			return nil, err
		}
		key := token.String()
		if s.python.Half(start, s.dec.InputOffset()) {
			if err := s.finish(depth); err != nil { // the key is not text, and so none that counts
				return nil, err
			}
			continue
		}
		err = member(key)
		bad, ok := err.(*ReadError)
		if err != nil && !ok {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(m mistake) bool { return m.key == key })
		if bad != nil {
			found = append(found, mistake{key, bad})
		}
		if err := s.finish(depth); err != nil || len(found) > maxMistakes {
			return nil, cmp.Or(found.first(), err)
		}
	}
	_, err := s.dec.ReadToken()
	return found, err
}

// finish reads what is left of the value of an object's member. depth is that of the object.
func (s *jsonSource) finish(depth int) error {
	for s.dec.StackDepth() > depth {
		if _, err := s.dec.ReadToken(); err != nil {
			return err
		}
	}
	if _, n := s.dec.StackIndex(depth); n%2 == 1 { // the key is read and the value is not
		return s.dec.SkipValue()
	}
	return nil
}

// array reads an array. It calls element at each element, which element must consume.
func (s *jsonSource) array(what string, element func(i int) error) error {
	if kind := s.dec.PeekKind(); kind != jsontext.KindBeginArray {
		return s.wrongKind(what, kind, "an array")
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return err
	}
	for i := 0; s.dec.PeekKind() != jsontext.KindEndArray; i++ {
		if kind := s.dec.PeekKind(); kind == jsontext.KindInvalid {
			_, err := s.dec.ReadToken()
			return err
		}
		if err := element(i); err != nil {
			return err
		}
	}
	_, err := s.dec.ReadToken()
	return err
}

func (s *jsonSource) string(what string, dst *string) error {
	if kind := s.dec.PeekKind(); kind != jsontext.KindString {
		return s.wrongKind(what, kind, "a string")
	}
	start := s.dec.InputOffset()
	t, err := s.dec.ReadToken()
	if err != nil {
		return err
	}
	if s.python.Half(start, s.dec.InputOffset()) {
		return s.errorf("%s has half a surrogate pair, which is not text", what)
	}
	*dst = t.String()
	return nil
}

// number reads a number, or true or false, which are 1 and 0 to Python.
func (s *jsonSource) number(what string, dst *number) error {
	switch kind := s.dec.PeekKind(); kind {
	case jsontext.KindTrue, jsontext.KindFalse:
		dst.set(kind == jsontext.KindTrue)
		return s.dec.SkipValue()
	case jsontext.KindNumber:
	default:
		return s.wrongKind(what, kind, "a number")
	}
	v, err := s.dec.ReadValue()
	if err != nil {
		return err
	}
	if s.python.NaN(s.dec.InputOffset() - int64(len(v))) {
		*dst = number{float: math.NaN()}
		return nil
	}
	if !dst.parse(string(v)) {
		return s.errorf("%s has %d digits, and Python reads no whole number of more than %d", what, len(v), maxDigits)
	}
	return nil
}

func (s *jsonSource) float(what string, dst *float64) error {
	var n number
	err := s.number(what, &n)
	*dst = n.float
	return err
}

// label reads a value that only people look at: a string or the text of a number. Any other value
// reads as "".
func (s *jsonSource) label(dst *string) error {
	*dst = ""
	if kind := s.dec.PeekKind(); kind != jsontext.KindString && kind != jsontext.KindNumber {
		return s.dec.SkipValue()
	}
	t, err := s.dec.ReadToken()
	if err != nil {
		return err
	}
	*dst = t.String()
	return nil
}

// wrongKind returns the error for a value of another kind than the one wanted, or for one that cannot
// be read at all.
func (s *jsonSource) wrongKind(what string, got jsontext.Kind, want string) error {
	if got == jsontext.KindInvalid {
		if _, err := s.dec.ReadToken(); err != nil {
			return err
		}
	}
	name, ok := map[jsontext.Kind]string{
		jsontext.KindNull: "null", jsontext.KindTrue: "true", jsontext.KindFalse: "false",
		jsontext.KindString: "a string", jsontext.KindNumber: "a number",
		jsontext.KindBeginObject: "an object", jsontext.KindBeginArray: "an array",
	}[got]
	if !ok {
		name = got.String()
	}
	err := s.errorf("%s is %s, want %s", what, name, want)
	if got == jsontext.KindNull || got == jsontext.KindTrue || got == jsontext.KindFalse {
		if _, err := s.dec.ReadToken(); err != nil { // only the first letter is known so far
			return err
		}
	}
	return err
}

// errorf returns the error for a value that is JSON but not what it should be.
func (s *jsonSource) errorf(format string, args ...any) error {
	return s.locate(fmt.Errorf(format, args...))
}

// locate returns err with the place, the line and the byte at which it happened.
func (s *jsonSource) locate(err error) *ReadError {
	if read := (*ReadError)(nil); errors.As(err, &read) {
		return read
	}
	offset := s.dec.InputOffset()
	unread := s.dec.UnreadBuffer()
	if cause := errors.Unwrap(err); cause != nil && strings.HasPrefix(err.Error(), "jsontext: read error: ") {
		err = cause
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		if skip := syntax.ByteOffset - offset; skip > 0 {
			skip = min(skip, int64(len(unread)))
			offset, unread = offset+skip, unread[skip:]
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("not JSON: the file ends in the middle of a value: %w", syntax.Err)
		} else {
			err = fmt.Errorf("not JSON: %w", syntax.Err)
		}
	}
	line := 1 + s.lines.n - bytes.Count(unread, []byte("\n"))
	read := &ReadError{Format: s.format, Line: line, Byte: offset, Err: err}
	if s.place != nil {
		read.Place = s.place()
	}
	return read
}

// A lineCounter counts the line feeds that are read through it. It reads at most maxToken bytes ahead
// of what has been used.
type lineCounter struct {
	r    io.Reader
	n    int
	read int64
	used func() int64
}

func (c *lineCounter) Read(p []byte) (int, error) {
	left := maxToken - (c.read - c.used())
	if left <= 0 {
		return 0, errToken
	}
	n, err := c.r.Read(p[:min(int64(len(p)), left)])
	c.n += bytes.Count(p[:n], []byte("\n"))
	c.read += int64(n)
	return n, err
}

// brief shortens text of a file, which may be of any length, for an error.
func brief(text string) string {
	const most = 100
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// quoted quotes a name from a file for an error.
func quoted(name string) string { return strconv.Quote(brief(name)) }
