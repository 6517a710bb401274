package checkpoint

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/tfproto"
	"google.golang.org/protobuf/proto"
)

// Writer writes a checkpoint of one data file. Variables go straight to the disk, so that one at a time is in
// memory. The files have temporary names before Close:
//
//	w, err := checkpoint.Create(prefix)
//	if err != nil { … }
//	defer w.Abort()
//	err = w.AddFloat32s("w", []int64{2, 2}, values)
//	…
//	return w.Close()
type Writer struct {
	prefix  string
	file    *file.Pending // the data file; nil once the writer is closed
	index   *file.Pending
	data    *bufio.Writer
	offset  int64
	entries map[string]*tfproto.BundleEntryProto
	err     error // first failure; nothing is kept after one
}

// Create begins a checkpoint at prefix, whose folder must exist. A checkpoint that is there does not change
// before Close.
func Create(prefix string) (*Writer, error) {
	data, err := file.Create(shardPath(prefix, 0, 1))
	if err != nil {
		return nil, fmt.Errorf("create checkpoint %s: %w", prefix, err)
	}
	index, err := file.Create(prefix + indexSuffix)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create checkpoint %s: %w", prefix, err), data.Abort())
	}
	return &Writer{
		prefix:  prefix,
		file:    data,
		index:   index,
		data:    bufio.NewWriterSize(data, chunkSize),
		entries: map[string]*tfproto.BundleEntryProto{},
	}, nil
}

// Add writes a variable. data holds its elements in row-major order, little-endian. Variables may come in any
// order. TensorFlow itself writes them sorted by name.
func (w *Writer) Add(name string, dtype DType, shape []int64, data []byte) error {
	e, err := w.begin(name, dtype, shape, int64(len(data)))
	if err != nil {
		return err
	}
	e.Crc32C = mask(crc32.Checksum(data, castagnoli))
	return w.write(name, data)
}

// AddFloat32s writes a Float32 variable.
func (w *Writer) AddFloat32s(name string, shape []int64, values []float32) error {
	e, err := w.begin(name, Float32, shape, 4*int64(len(values)))
	if err != nil {
		return err
	}
	var crc uint32
	buf := make([]byte, 0, min(4*len(values), chunkSize))
	for chunk := range slices.Chunk(values, chunkSize/4) {
		buf = buf[:0]
		for _, v := range chunk {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		}
		crc = crc32.Update(crc, castagnoli, buf)
		if err := w.write(name, buf); err != nil {
			return err
		}
	}
	e.Crc32C = mask(crc)
	return nil
}

// begin adds a variable of size bytes, which must be written next.
func (w *Writer) begin(name string, dtype DType, shape []int64, size int64) (*tfproto.BundleEntryProto, error) {
	if w.err != nil {
		return nil, w.err
	}
	want, ok := byteSize(dtype, shape)
	switch {
	case name == "":
		w.err = errors.New("write: a variable without a name")
	case w.entries[name] != nil:
		w.err = fmt.Errorf("write %s: a variable of this name is there already", name)
	case !ok:
		w.err = fmt.Errorf("write %s: %s%v has no fixed size", name, dtype, shape)
	case size != want:
		w.err = fmt.Errorf("write %s: %d bytes given, but %s%v takes %d", name, size, dtype, shape, want)
	}
	if w.err != nil {
		return nil, w.err
	}
	e := &tfproto.BundleEntryProto{
		Dtype:  int32(dtype),
		Shape:  tfproto.NewShape(shape),
		Offset: w.offset,
		Size:   size,
	}
	w.entries[name] = e
	w.offset += size
	return e, nil
}

func (w *Writer) write(name string, data []byte) error {
	if _, err := w.data.Write(data); err != nil {
		w.err = fmt.Errorf("write %s: %w", name, err)
	}
	return w.err
}

// Close writes the index and renames both files to their names. If that or an earlier Add fails, it removes
// what was written and returns the first error.
func (w *Writer) Close() error {
	if w.err == nil {
		if err := w.commit(); err != nil {
			w.err = fmt.Errorf("write %s: %w", w.prefix, err)
		}
	}
	err := w.err
	w.Abort()
	return err
}

var errClosed = errors.New("write: the writer is closed")

// Abort removes what was written. After Close it does nothing.
func (w *Writer) Abort() {
	if w.file == nil {
		return
	}
	_ = w.file.Abort() // nothing is lost by what stays
	_ = w.index.Abort()
	w.file = nil
	w.err = errClosed
}

func (w *Writer) commit() error {
	if err := w.data.Flush(); err != nil {
		return err
	}
	if err := w.writeIndex(); err != nil {
		return err
	}
	for _, f := range []*file.Pending{w.file, w.index} {
		if err := f.Close(); err != nil {
			return err
		}
	}
	// The index comes last, so that its data are there when it is.
	if err := w.file.Commit(); err != nil {
		return err
	}
	return w.index.Commit()
}

func (w *Writer) writeIndex() error {
	t := newTableWriter(w.index)
	header, err := proto.Marshal(&tfproto.BundleHeaderProto{
		NumShards: 1,
		Version:   &tfproto.VersionDef{Producer: bundleVersion},
	})
	if err != nil {
		return err
	}
	t.add(nil, header)
	for _, name := range slices.Sorted(maps.Keys(w.entries)) {
		value, err := proto.Marshal(w.entries[name])
		if err != nil {
			return err
		}
		t.add([]byte(name), value)
	}
	return t.finish()
}
