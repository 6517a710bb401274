// Package file opens files that may be hostile, and writes files that appear whole or not at all.
package file

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
)

// An IrregularError reports a path that is a folder, a pipe, a device or a socket in place of a file.
type IrregularError struct{ Path string }

func (e *IrregularError) Error() string { return e.Path + " is not a plain file" }

// A SizeError reports a file that has more bytes than it can have.
type SizeError struct {
	Path       string
	Size, Most int64
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s: %d bytes is too large for what it should be", e.Path, e.Size)
}

// Open opens a regular file and returns its size. It returns an *IrregularError for anything else, because waiting
// for a pipe or reading a device might never end.
func Open(path string) (f *os.File, size int64, err error) {
	// Opening a pipe waits for its writer, so the path is checked first. It may be another file when it is
	// opened, so the file is checked, too.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, 0, &IrregularError{path}
	}
	if f, err = os.Open(path); err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &IrregularError{path}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// Read reads a regular file. It returns a *SizeError if the file has more than most bytes.
func Read(path string, most int64) ([]byte, error) {
	f, size, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > most {
		return nil, &SizeError{path, size, most}
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1)) // it may have grown
	if err == nil && int64(len(data)) > most {
		err = &SizeError{path, int64(len(data)), most}
	}
	return data, err
}

// Parse reads the text of a file, which may be a pipe, with the reader of its format. The error names the file, and
// what it is if that is something else, as Text says.
func Parse[T any](path string, read func(io.Reader) (T, error)) (v T, err error) {
	text, err := OpenText(path)
	if err != nil {
		return v, err
	}
	defer text.Close()
	if v, err = read(text); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return v, err
}

// OpenText opens a file, which may be a pipe, to read its text as Text does.
func OpenText(path string) (io.ReadCloser, error) {
	if err := CheckLocal(path); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := Text(path, f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &textFile{text, f}, nil
}

type textFile struct {
	io.Reader
	io.Closer
}

// Text returns a reader of the text in a file, which gzip may have packed, without a byte order mark. It returns a
// *KindError for a file that is known to be something else, such as a page or an archive.
func Text(path string, f io.Reader) (io.Reader, error) {
	packed := &counter{r: f}
	r := bufio.NewReaderSize(packed, 1<<16)
	head, err := r.Peek(sniffed)
	if err != nil && err != io.EOF {
		return r, nil // the reader of the format meets the error again
	}
	switch kind := Sniff(head); kind {
	case "", Empty: // the reader of the format says what is missing
		skipMark(r)
		return r, nil
	case Gzip:
	default:
		return nil, &KindError{path, kind}
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, unpackError(err))
	}
	unpacked := bufio.NewReaderSize(&unpacker{z: z, packed: packed}, 1<<16)
	head, _ = unpacked.Peek(sniffed)
	if kind := Sniff(head); kind != "" && kind != Empty {
		return nil, fmt.Errorf("%s, unpacked, is %s", path, kind)
	}
	skipMark(unpacked)
	return unpacked, nil
}

// skipMark skips a byte order mark, which editors put before UTF-8.
func skipMark(r *bufio.Reader) {
	if head, _ := r.Peek(3); string(head) == "\ufeff" {
		_, _ = r.Discard(len(head)) // which cannot fail after Peek
	}
}

// An unpacker reads what gzip has packed. It stops at data that only a bomb would hold.
type unpacker struct {
	z      *gzip.Reader
	packed *counter
	n      int64
}

// Of what a file unpacks to beyond plausible, it must not be more than ratio times the file.
const (
	plausible = 256 << 20
	ratio     = 256
)

func (u *unpacker) Read(p []byte) (int, error) {
	n, err := u.z.Read(p)
	u.n += int64(n)
	if u.n > plausible && u.n > ratio*u.packed.n {
		return n, fmt.Errorf("the gzip file unpacks to more than %d times its size", ratio)
	}
	return n, unpackError(err)
}

func unpackError(err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the gzip file is cut off: its download or copy did not finish")
	}
	return fmt.Errorf("unpack: %w", err)
}

// A counter counts the bytes that are read through it.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
