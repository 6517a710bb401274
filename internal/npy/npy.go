// Package npy reads and writes NumPy's .npy files (format 1.0) row by row, and .npz archives of
// them, so that an array need not fit into memory. Only int32 and float32 in C order are known,
// which is all that tfbert exchanges with Python.
//
// Format: numpy.lib.format in NumPy's documentation.
package npy

import (
	"archive/zip"
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// The types of elements.
const (
	Int32   = "<i4"
	Float32 = "<f4"
)

const magic = "\x93NUMPY"

// headerSize is the size of the headers that are written. It suffices for any shape, so that the number of rows can
// be filled in later.
const headerSize = 128

func header(dtype string, shape []int) []byte {
	dims := make([]string, len(shape))
	for i, d := range shape {
		dims[i] = strconv.Itoa(d)
	}
	tuple := strings.Join(dims, ", ")
	if len(shape) == 1 {
		tuple += ","
	}
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", dtype, tuple)
	b := append([]byte(magic), 1, 0)
	b = binary.LittleEndian.AppendUint16(b, headerSize-10)
	b = append(b, text...)
	for len(b) < headerSize-1 {
		b = append(b, ' ')
	}
	return append(b, '\n')
}

// Writer writes an array of rows that all have one shape.
type Writer struct {
	f     *os.File
	w     *bufio.Writer
	dtype string
	row   []int
	size  int // elements of a row
	n     int // elements written
	buf   []byte
}

// Create begins an array in a new file. row is the shape of a row, the first axis is the number of rows that are
// written before Close.
func Create(path, dtype string, row ...int) (*Writer, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	w := &Writer{f: f, w: bufio.NewWriterSize(f, 1<<16), dtype: dtype, row: row, size: 1}
	for _, d := range row {
		w.size *= d
	}
	_, err = w.w.Write(header(dtype, append([]int{0}, row...)))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return w, nil
}

// WriteInt32s appends elements.
func (w *Writer) WriteInt32s(values []int32) error {
	w.buf = w.buf[:0]
	for _, v := range values {
		w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(v))
	}
	return w.write(len(values))
}

// WriteFloat32s appends elements.
func (w *Writer) WriteFloat32s(values []float32) error {
	w.buf = w.buf[:0]
	for _, v := range values {
		w.buf = binary.LittleEndian.AppendUint32(w.buf, math.Float32bits(v))
	}
	return w.write(len(values))
}

func (w *Writer) write(n int) error {
	w.n += n
	_, err := w.w.Write(w.buf)
	return err
}

// Close completes the file. The elements must make up whole rows.
func (w *Writer) Close() error {
	err := w.w.Flush()
	if err == nil && w.size > 0 && w.n%w.size != 0 {
		err = fmt.Errorf("%d elements are not whole rows of %d", w.n, w.size)
	}
	if err == nil {
		rows := 0
		if w.size > 0 {
			rows = w.n / w.size
		}
		_, err = w.f.WriteAt(header(w.dtype, append([]int{rows}, w.row...)), 0)
	}
	return errors.Join(err, w.f.Close())
}

// Reader reads an array in the order of its elements.
type Reader struct {
	DType string
	Shape []int
	r     *bufio.Reader
}

var headerPattern = regexp.MustCompile(
	`^\{\s*'descr':\s*'([^']*)',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([0-9, ]*)\),?\s*\}\s*$`)

// NewReader reads the header, whose claims may be wrong: an array may end before its elements do.
func NewReader(r io.Reader) (*Reader, error) {
	br := bufio.NewReaderSize(r, 1<<16)
	var prefix [10]byte
	if _, err := io.ReadFull(br, prefix[:]); err != nil || string(prefix[:6]) != magic {
		return nil, errors.New("not a .npy file")
	}
	if prefix[6] != 1 {
		return nil, fmt.Errorf("format version %d.%d is not supported, only 1.0", prefix[6], prefix[7])
	}
	text := make([]byte, binary.LittleEndian.Uint16(prefix[8:]))
	if _, err := io.ReadFull(br, text); err != nil {
		return nil, errors.New("the header is cut short")
	}
	m := headerPattern.FindSubmatch(text)
	if m == nil {
		return nil, fmt.Errorf("cannot read the header %.200q", text)
	}
	if string(m[2]) == "True" {
		return nil, errors.New("the array is in Fortran order; save numpy.ascontiguousarray of it")
	}
	a := &Reader{DType: string(m[1]), r: br}
	size := int64(4) // bytes of the array
	for field := range strings.SplitSeq(string(m[3]), ",") {
		if field = strings.TrimSpace(field); field == "" {
			continue
		}
		n, err := strconv.Atoi(field)
		if err != nil || len(a.Shape) == maxRank {
			return nil, fmt.Errorf("cannot read the shape (%.100s)", m[3])
		}
		if n > 0 && size > math.MaxInt64/int64(n) {
			return nil, fmt.Errorf("no file can hold an array of the shape (%.100s)", m[3])
		}
		size *= int64(max(1, n))
		a.Shape = append(a.Shape, n)
	}
	return a, nil
}

// maxRank is NumPy's own.
const maxRank = 64

// ReadFloat32s fills values with the next elements. It does not allocate what the header claims.
func (a *Reader) ReadFloat32s(values []float32) error {
	if a.DType != Float32 {
		return fmt.Errorf("the array holds %s, not float32 (%s)", a.DType, Float32)
	}
	for len(values) > 0 {
		buf, err := a.r.Peek(min(4*len(values), a.r.Size()))
		if err != nil {
			if len(buf) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("the file is cut short: %w", err)
		}
		n := len(buf) / 4
		for i := range values[:n] {
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(buf[4*i:]))
		}
		_, _ = a.r.Discard(4 * n) // which are in the buffer
		values = values[n:]
	}
	return nil
}

// Zip writes arrays, each a .npy file, as an .npz archive. names and files go in pairs.
func Zip(path string, names, files []string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z := zip.NewWriter(f)
	for i, name := range names {
		if err := addFile(z, name+".npy", files[i]); err != nil {
			return err
		}
	}
	return z.Close()
}

func addFile(z *zip.Writer, name, file string) error {
	// Stored, not compressed, as numpy.savez does.
	w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
	if err != nil {
		return err
	}
	r, err := os.Open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}
