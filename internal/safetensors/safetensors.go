// Package safetensors reads and writes files of weights in the form of Hugging Face's safetensors: the length of a header
// in 8 bytes, little-endian, the header in JSON, and the tensors one after another in row-major order.
package safetensors

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/x448/float16"

	"github.com/tfbert/go/internal/file"
)

// maxHeader is more than the header of any BERT has; the format itself allows 100 MB.
const maxHeader = 16 << 20

// A Tensor is an entry of the header.
type Tensor struct {
	Name  string
	DType string // as the format names it: "F32", "F16", "BF16", "I64"
	Shape []int64

	begin, end int64 // in the data
}

// sizes are the bytes of an element of each type.
var sizes = map[string]int64{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
	"I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}

// A File is an open file. Its methods may be called by many goroutines at once.
type File struct {
	file    *os.File
	data    int64 // where the tensors begin
	tensors []Tensor
}

// Open opens a file and reads its header.
func Open(path string) (*File, error) {
	f, size, err := file.Open(path)
	if err != nil {
		return nil, err
	}
	s := &File{file: f}
	if err := s.readHeader(size); err != nil {
		if kind := file.KindOf(f, size); kind != "" && kind != file.Safetensors {
			err = &file.KindError{Path: path, Kind: kind}
		} else {
			err = fmt.Errorf("%s is damaged or not a safetensors file: %w", path, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// Tensors returns the tensors in the order of their data.
func (f *File) Tensors() []Tensor { return f.tensors }

func (f *File) readHeader(size int64) error {
	var prefix [8]byte
	if _, err := f.file.ReadAt(prefix[:], 0); err != nil {
		return errors.New("it has no header")
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	switch {
	case n > uint64(max(size-8, 0)):
		return fmt.Errorf("it has %d bytes and its header claims %d", size, n)
	case n > maxHeader:
		return fmt.Errorf("its header has %d bytes: at most %d are read", n, maxHeader)
	}
	f.data = 8 + int64(n)
	header := make([]byte, n)
	if _, err := f.file.ReadAt(header, 8); err != nil {
		return err
	}
	if err := f.parse(header); err != nil {
		return err
	}
	return f.check(size - f.data)
}

// parse reads the header an entry at a time, so that a long one does not cost many times its size.
func (f *File) parse(header []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(header)) // which refuses names that stand twice
	if token, err := d.ReadToken(); err != nil || token.Kind() != '{' {
		return errors.New("its header is not a JSON object")
	}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return fmt.Errorf("its header is not JSON: %w", err)
		}
		name := token.String()
		if name == "__metadata__" {
			if err := d.SkipValue(); err != nil {
				return err
			}
			continue
		}
		var entry struct {
			DType   string    `json:"dtype"`
			Shape   []int64   `json:"shape"`
			Offsets *[2]int64 `json:"data_offsets"`
		}
		if err := json.UnmarshalDecode(d, &entry); err != nil || entry.Offsets == nil {
			return fmt.Errorf("the entry of %.100q is not one of a tensor", name)
		}
		f.tensors = append(f.tensors, Tensor{name, entry.DType, entry.Shape, entry.Offsets[0], entry.Offsets[1]})
	}
	return nil
}

// check returns an error unless the tensors lie side by side and fill the data.
func (f *File) check(size int64) error {
	slices.SortStableFunc(f.tensors, func(a, b Tensor) int { return int(max(-1, min(1, a.begin-b.begin))) })
	at := int64(0)
	for _, t := range f.tensors {
		want, ok := t.size()
		switch {
		case !ok:
			return fmt.Errorf("%.100q has the type %.20q and the shape %v, of which the size is unknown", t.Name, t.DType, t.Shape)
		case t.begin != at || t.end < t.begin || t.end > size:
			return fmt.Errorf("the data of %.100q is at %d to %d, where %d to at most %d is right: "+
				"was the file cut off?", t.Name, t.begin, t.end, at, size)
		case t.end-t.begin != want:
			return fmt.Errorf("%.100q has %d bytes, and %s%v takes %d", t.Name, t.end-t.begin, t.DType, t.Shape, want)
		}
		at = t.end
	}
	if at != size {
		return fmt.Errorf("it has %d bytes of data, and its tensors have %d", size, at)
	}
	return nil
}

// size returns the bytes of a tensor.
func (t Tensor) size() (int64, bool) {
	n, ok := sizes[t.DType]
	for _, d := range t.Shape {
		if d < 0 || d > 0 && n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, ok
}

// IsFloat reports whether Float32s reads a tensor.
func (t Tensor) IsFloat() bool { return floats[t.DType] != nil }

var floats = map[string]func([]byte) float32{
	"F32":  func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) },
	"F16":  func(b []byte) float32 { return float16.Frombits(binary.LittleEndian.Uint16(b)).Float32() },
	"BF16": func(b []byte) float32 { return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16) },
	"F64":  func(b []byte) float32 { return float32(math.Float64frombits(binary.LittleEndian.Uint64(b))) },
}

// Float32s returns the elements of a tensor of a floating-point type.
func (f *File) Float32s(name string) ([]float32, error) {
	i := slices.IndexFunc(f.tensors, func(t Tensor) bool { return t.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%s has no tensor %q", f.file.Name(), name)
	}
	t := f.tensors[i]
	decode := floats[t.DType]
	if decode == nil {
		return nil, fmt.Errorf("read %s of %s: %s is not a floating-point type", name, f.file.Name(), t.DType)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f.file, f.data+t.begin, t.end-t.begin), 1<<20)
	size := int(sizes[t.DType])
	values := make([]float32, (t.end-t.begin)/int64(size))
	element := make([]byte, size)
	for i := range values {
		if _, err := io.ReadFull(r, element); err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", name, f.file.Name(), err)
		}
		values[i] = decode(element)
	}
	return values, nil
}

// A Source is a tensor of float32 values to write.
type Source struct {
	Name   string
	Shape  []int64
	Values func() ([]float32, error)
}

// Write writes a file of tensors, of which one is in memory at a time. A file that is there is replaced when all is written.
func Write(path string, tensors []Source) (err error) {
	var header bytes.Buffer
	e := jsontext.NewEncoder(&header)
	_ = e.WriteToken(jsontext.BeginObject)
	_ = e.WriteToken(jsontext.String("__metadata__"))
	_ = json.MarshalEncode(e, map[string]string{"format": "pt"}) // which transformers asks for
	at := int64(0)
	for _, t := range tensors {
		n, ok := Tensor{DType: "F32", Shape: t.Shape}.size()
		if !ok {
			return fmt.Errorf("write %s: %s has the shape %v", path, t.Name, t.Shape)
		}
		if err := errors.Join(e.WriteToken(jsontext.String(t.Name)), json.MarshalEncode(e, map[string]any{
			"dtype": "F32", "shape": append([]int64{}, t.Shape...), "data_offsets": []int64{at, at + n},
		}, json.Deterministic(true))); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		at += n
	}
	_ = e.WriteToken(jsontext.EndObject)
	text := strings.TrimSpace(header.String())
	text += strings.Repeat(" ", (8-len(text)%8)%8) // so that the data is aligned

	p, err := file.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Abort()) }() // which does nothing after Commit
	w := bufio.NewWriterSize(p, 1<<20)
	buffer := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	_, _ = w.Write(append(buffer, text...)) // Flush returns the first error
	for _, t := range tensors {
		values, err := t.Values()
		if err != nil {
			return err
		}
		if n, _ := (Tensor{DType: "F32", Shape: t.Shape}).size(); n != 4*int64(len(values)) {
			return fmt.Errorf("write %s: %s has %d values for the shape %v", path, t.Name, len(values), t.Shape)
		}
		for _, v := range values {
			buffer = binary.LittleEndian.AppendUint32(buffer[:0], math.Float32bits(v))
			_, _ = w.Write(buffer)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return p.Commit()
}
