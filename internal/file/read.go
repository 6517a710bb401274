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

// Parse reads a file, which may be a pipe, with the reader of its format. It unpacks what gzip has packed. The
// error names the file, and what it is if that is something else, as Text says.
func Parse[T any](path string, read func(io.Reader) (T, error)) (v T, err error) {
	if err := CheckLocal(path); err != nil {
		return v, fmt.Errorf("open %s: %w", path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return v, err
	}
	defer f.Close()
	r, err := Text(path, f)
	if err != nil {
		return v, err
	}
	if v, err = read(r); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return v, err
}

// Text returns a reader of the text in a file, which gzip may have packed. It returns a *KindError for a file that
// is known to be something else, such as a page or an archive.
func Text(path string, f io.Reader) (io.Reader, error) {
	r := bufio.NewReaderSize(f, 1<<16)
	head, err := r.Peek(sniffed)
	if err != nil && err != io.EOF {
		return r, nil // the reader of the format meets the error again
	}
	switch kind := Sniff(head); kind {
	case "", Empty: // the reader of the format says what is missing
		return r, nil
	case Gzip:
	default:
		return nil, &KindError{path, kind}
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	unpacked := bufio.NewReaderSize(z, 1<<16)
	head, _ = unpacked.Peek(sniffed)
	if kind := Sniff(head); kind != "" && kind != Empty {
		return nil, fmt.Errorf("%s, unpacked, is %s", path, kind)
	}
	return unpacked, nil
}
