package pyjson

import (
	"bufio"
	"errors"
	"io"
	"strconv"
)

// errStructure is the error of Flush if the calls do not form a value.
var errStructure = errors.New("keys, values and ends do not form a value")

// A Writer writes values as json.dumps writes them, piece by piece. The order of calls follows the
// structure of the value. Errors stick, and [Writer.Flush] returns the first.
type Writer struct {
	w      *bufio.Writer
	indent int
	open   []container
	keyed  bool   // a key waits for its value
	buf    []byte // scratch for a scalar
	err    error
}

// A container is an object or array that was begun.
type container struct {
	end   byte // closes it
	items int
}

// NewWriter returns a Writer to w. It writes what json.dumps writes with indent=indent, and for 0
// what it writes without indent, all on one line.
func NewWriter(w io.Writer, indent int) *Writer {
	return &Writer{w: bufio.NewWriter(w), indent: indent}
}

// BeginObject begins an object; then come keys, each followed by its value.
func (w *Writer) BeginObject() { w.begin('{', '}') }

// EndObject ends the innermost object.
func (w *Writer) EndObject() { w.end('}') }

// BeginArray begins an array; then come its values.
func (w *Writer) BeginArray() { w.begin('[', ']') }

// EndArray ends the innermost array.
func (w *Writer) EndArray() { w.end(']') }

// Key writes a key of the innermost object.
func (w *Writer) Key(key string) {
	if w.keyed || !w.in('}') {
		w.fail(errStructure)
		return
	}
	w.separate()
	w.buf = AppendString(w.buf[:0], key)
	w.buf = append(w.buf, ": "...)
	w.write(w.buf)
	w.keyed = true
}

// String writes a string.
func (w *Writer) String(s string) { w.scalar(AppendString(w.buf[:0], s)) }

// Float writes a float.
func (w *Writer) Float(f float64) { w.scalar(AppendFloat(w.buf[:0], f)) }

// Int writes an integer.
func (w *Writer) Int(i int64) { w.scalar(AppendInt(w.buf[:0], i)) }

// Bool writes true or false.
func (w *Writer) Bool(b bool) { w.scalar(strconv.AppendBool(w.buf[:0], b)) }

// Newline ends the line that a value was written on.
func (w *Writer) Newline() { w.write([]byte{'\n'}) }

// Flush passes everything on to the underlying writer and returns the first error.
func (w *Writer) Flush() error {
	if len(w.open) > 0 {
		w.fail(errStructure)
	}
	if err := w.w.Flush(); err != nil {
		w.fail(err)
	}
	return w.err
}

func (w *Writer) begin(start, end byte) {
	w.value()
	w.write([]byte{start})
	w.open = append(w.open, container{end: end})
}

func (w *Writer) end(end byte) {
	if w.keyed || !w.in(end) {
		w.fail(errStructure)
		return
	}
	last := len(w.open) - 1
	items := w.open[last].items
	w.open = w.open[:last]
	if items > 0 {
		w.breakLine()
	}
	w.write([]byte{end})
}

func (w *Writer) scalar(text []byte) {
	w.buf = text
	w.value()
	w.write(text)
}

// value prepares for a value: after a key it follows at once, in an array it is an item.
func (w *Writer) value() {
	switch {
	case w.keyed:
		w.keyed = false
	case w.in(']'):
		w.separate()
	case len(w.open) > 0: // an object wants a key first
		w.fail(errStructure)
	}
}

// separate begins an item of the innermost container.
func (w *Writer) separate() {
	c := &w.open[len(w.open)-1]
	switch {
	case c.items > 0 && w.indent > 0:
		w.write([]byte{','})
	case c.items > 0:
		w.write([]byte(", "))
	}
	c.items++
	w.breakLine()
}

// breakLine begins a line at the present depth if the output has several lines.
func (w *Writer) breakLine() {
	if w.indent == 0 {
		return
	}
	w.write([]byte{'\n'})
	for range w.indent * len(w.open) {
		w.write([]byte{' '})
	}
}

// in reports whether the innermost container is the kind that end closes.
func (w *Writer) in(end byte) bool {
	return len(w.open) > 0 && w.open[len(w.open)-1].end == end
}

func (w *Writer) write(text []byte) {
	if w.err != nil {
		return
	}
	if _, err := w.w.Write(text); err != nil {
		w.fail(err)
	}
}

func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}
