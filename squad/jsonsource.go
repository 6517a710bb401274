package squad

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// A jsonSource reads one JSON document and knows where it is in it. The decoder accepts only what
// RFC 8259 allows: invalid UTF-8 and lone surrogates are errors. Python's json.load lets a lone
// surrogate through, but what is written from it could not be read again.
type jsonSource struct {
	format string // for errors
	in     *bufio.Reader
	lines  *lineCounter
	dec    *jsontext.Decoder
}

func newJSONSource(r io.Reader, format string) jsonSource {
	in := bufio.NewReader(r)
	lines := &lineCounter{r: in}
	// Python keeps the last value of a repeated key; so do the readers built on this one.
	dec := jsontext.NewDecoder(lines, jsontext.AllowDuplicateNames(true))
	lines.used = dec.InputOffset
	return jsonSource{format, in, lines, dec}
}

// maxToken bounds what the decoder keeps in memory at once: a string, a number or the white space
// before one. The longest of SQuAD is a passage of 25 KB.
const maxToken = 64 << 20

var errToken = fmt.Errorf("a string or number is longer than %d MiB", maxToken>>20)

// begin checks the first bytes, to name a reason that the errors of Python and the decoder do not.
func (s *jsonSource) begin() error {
	head, err := s.in.Peek(3)
	switch {
	case err != nil && err != io.EOF:
		return err
	case len(bytes.TrimSpace(head)) == 0 && err == io.EOF:
		return errors.New("the file is empty, not JSON")
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		return errors.New("the file starts with a byte order mark: save it as UTF-8 without BOM")
	case bytes.HasPrefix(head, []byte("\xfe\xff")), bytes.HasPrefix(head, []byte("\xff\xfe")):
		return errors.New("the file is UTF-16: save it as UTF-8 without BOM")
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

// object reads an object. It calls member at each member's value, which member must consume.
func (s *jsonSource) object(what string, member func(key string) error) error {
	if kind := s.dec.PeekKind(); kind != jsontext.KindBeginObject {
		return s.wrongKind(what, kind, "an object")
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return err
	}
	for s.dec.PeekKind() != jsontext.KindEndObject {
		key, err := s.dec.ReadToken()
		if err != nil {
			return err
		}
		if err := member(key.String()); err != nil {
			return err
		}
	}
	_, err := s.dec.ReadToken()
	return err
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
	t, err := s.dec.ReadToken()
	if err != nil {
		return err
	}
	*dst = t.String()
	return nil
}

func (s *jsonSource) int(what string, dst *int) error {
	if kind := s.dec.PeekKind(); kind != jsontext.KindNumber {
		return s.wrongKind(what, kind, "a whole number")
	}
	t, err := s.dec.ReadToken()
	if err != nil {
		return err
	}
	n, err := t.Int()
	if err != nil {
		return fmt.Errorf("%s is %s, want a whole number", what, brief(t.String()))
	}
	*dst = int(n)
	return nil
}

func (s *jsonSource) float(what string, dst *float64) error {
	if kind := s.dec.PeekKind(); kind != jsontext.KindNumber {
		return s.wrongKind(what, kind, "a number")
	}
	v, err := s.dec.ReadValue()
	if err != nil {
		return err
	}
	if *dst, err = strconv.ParseFloat(string(v), 64); err != nil {
		return fmt.Errorf("%s is %s, which is out of range", what, brief(string(v)))
	}
	return nil
}

// bool reads a truth value; null is false.
func (s *jsonSource) bool(what string, dst *bool) error {
	kind := s.dec.PeekKind()
	if kind != jsontext.KindTrue && kind != jsontext.KindFalse && kind != jsontext.KindNull {
		return s.wrongKind(what, kind, "true or false")
	}
	*dst = kind == jsontext.KindTrue
	return s.dec.SkipValue()
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
	return fmt.Errorf("%s is %s, want %s", what, name, want)
}

// locate returns err with the line and the byte at which it happened.
func (s *jsonSource) locate(err error) *ReadError {
	offset := s.dec.InputOffset()
	unread := s.dec.UnreadBuffer()
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
	return &ReadError{Format: s.format, Line: line, Byte: offset, Err: err}
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
