// Package checkpoint lists, reads and writes TensorFlow checkpoints of version 2 ("tensor bundles")
// in pure Go: the files model.ckpt.index and model.ckpt.data-00000-of-00001 that tf.train.Saver and
// a SavedModel's variables folder hold.
//
// The checksum of every byte that is returned was right. A [Reader] is safe for concurrent use, a [Writer] is
// not. Partitioned variables and string tensors are not supported. The .meta file is not read.
package checkpoint

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/tfproto"
	"google.golang.org/protobuf/proto"
)

// bundleVersion is the version of the format that is read and written.
const bundleVersion = 1

// The most that a checkpoint may hold, so that a damaged or hostile one takes little memory. An index takes
// about 100 bytes for a variable, and BERT-Large with its optimizer's slots has 1,200 variables.
const (
	maxIndexSize = 64 << 20 // also of the names together
	maxVariables = 1 << 18
	maxEntrySize = 64 << 10 // of one variable's description: some 30 bytes
	maxRank      = 254      // which is TensorFlow's own
)

// maxValues is the size of the largest variable that is read: 2^20 words of 2,048 float32 each. A data
// file of that size may have holes, and so take little of a disk.
const maxValues = 8 << 30

// chunkSize is how much of a variable is read at a time: a multiple of every element size.
const chunkSize = 256 << 10

// Reader reads the variables of one checkpoint.
type Reader struct {
	prefix  string
	entries []entry // sorted by name
	shards  map[int32]*os.File
	nshards int32 // including those that no entry lies in
}

// entry is a variable and where its bytes are.
type entry struct {
	Variable
	shard  int32
	offset int64
	crc    uint32 // masked
}

// Open opens the checkpoint that path names: a prefix such as "model.ckpt", one of its files, or a
// folder or its "checkpoint" file, meaning the checkpoint that the "checkpoint" file names or else the
// only one in the folder. It reads the index and makes sure that every data file is there and long enough.
func Open(path string) (*Reader, error) {
	r, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return r, nil
}

func open(path string) (*Reader, error) {
	prefix, err := findPrefix(path)
	if err != nil {
		return nil, err
	}
	table, err := file.Read(prefix+indexSuffix, maxIndexSize)
	if err != nil {
		return nil, err
	}
	r := &Reader{prefix: prefix, shards: map[int32]*os.File{}}
	if r.nshards, r.entries, err = parseIndex(table); err != nil {
		if kind := file.Sniff(table); kind != "" {
			return nil, &file.KindError{Path: prefix + indexSuffix, Kind: kind}
		}
		return nil, fmt.Errorf("%s: %w", prefix+indexSuffix, err)
	}
	if err := r.openShards(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// parseIndex reads the table of a checkpoint: the header under the empty key, then its entries.
func parseIndex(table []byte) (nshards int32, entries []entry, err error) {
	names := 0 // bytes
	err = readTable(table, func(key, value []byte) error {
		if names += len(key); names > maxIndexSize || len(entries) == maxVariables {
			return damaged("more variables than a model has")
		}
		if len(value) > maxEntrySize {
			return damaged("variable %q is described in %d bytes", shortened(key), len(value))
		}
		if len(key) == 0 {
			nshards, err = parseHeader(value)
			return err
		}
		if nshards == 0 {
			return damaged("no header entry")
		}
		e, err := parseEntry(string(key), value, nshards)
		if err != nil {
			return fmt.Errorf("variable %q: %w", shortened(key), err)
		}
		entries = append(entries, e)
		return nil
	})
	if err == nil && nshards == 0 {
		err = damaged("no header entry")
	}
	findSlots(entries)
	return nshards, entries, err
}

// shortened returns the beginning of a long name, for an error.
func shortened(name []byte) []byte { return name[:min(len(name), 200)] }

func parseHeader(value []byte) (nshards int32, err error) {
	var m tfproto.BundleHeaderProto
	if err := proto.Unmarshal(value, &m); err != nil {
		return 0, damaged("header: %v", err)
	}
	if m.NumShards <= 0 {
		return 0, damaged("header: %d shards", m.NumShards)
	}
	if m.Endianness != tfproto.BundleHeaderProto_LITTLE {
		return 0, errors.New("written on a big-endian machine, which is not supported")
	}
	if v := m.Version.GetMinConsumer(); v > bundleVersion {
		return 0, fmt.Errorf("format version %d is too new; the newest that is supported is %d", v, bundleVersion)
	}
	return m.NumShards, nil
}

func parseEntry(name string, value []byte, nshards int32) (entry, error) {
	var m tfproto.BundleEntryProto
	if err := proto.Unmarshal(value, &m); err != nil {
		return entry{}, damaged("%v", err)
	}
	if len(m.Slices) > 0 {
		return entry{}, errors.New("partitioned variables are not supported; save the model again without a partitioner")
	}
	e := entry{
		Variable: Variable{Name: name, DType: DType(m.Dtype), Size: m.Size, Kind: kindOf(name)},
		shard:    m.ShardId,
		offset:   m.Offset,
		crc:      m.Crc32C,
	}
	if m.Dtype == 0 {
		return entry{}, damaged("no type")
	}
	if len(m.Shape.GetDim()) > maxRank {
		return entry{}, damaged("%d dimensions", len(m.Shape.GetDim()))
	}
	for _, d := range m.Shape.GetDim() {
		e.Shape = append(e.Shape, d.Size)
	}
	if e.shard < 0 || e.shard >= nshards {
		return entry{}, damaged("shard %d of %d", e.shard, nshards)
	}
	if e.offset < 0 || e.Size < 0 || e.offset+e.Size < 0 {
		return entry{}, damaged("bad place in its data file")
	}
	if e.DType.Size() > 0 {
		if n, ok := byteSize(e.DType, e.Shape); !ok || n != e.Size {
			return entry{}, damaged("%d bytes do not fit %s%v", e.Size, e.DType, e.Shape)
		}
	}
	return e, nil
}

// openShards opens every data file that has an entry, and checks that it holds all of its entries.
func (r *Reader) openShards() error {
	sizes := map[int32]int64{}
	for i := range r.entries {
		e := &r.entries[i]
		path := shardPath(r.prefix, e.shard, r.nshards)
		if r.shards[e.shard] == nil {
			f, size, err := file.Open(path)
			if err != nil {
				return fmt.Errorf("variable %q: %w; copy all files of the checkpoint", e.Name, err)
			}
			r.shards[e.shard], sizes[e.shard] = f, size
		}
		if end := e.offset + e.Size; end > sizes[e.shard] {
			if kind := file.KindOf(r.shards[e.shard], sizes[e.shard]); kind != "" {
				return &file.KindError{Path: path, Kind: kind}
			}
			return fmt.Errorf("variable %q: %s has %d bytes but the variable ends at %d: %w", e.Name, path, sizes[e.shard], end, errDamaged)
		}
	}
	return nil
}

// Close closes the data files. Reads in progress fail.
func (r *Reader) Close() error {
	var first error
	for _, f := range r.shards {
		if err := f.Close(); err != nil && first == nil {
			first = fmt.Errorf("close: %w", err)
		}
	}
	return first
}

// Prefix returns the path that all files of the checkpoint begin with.
func (r *Reader) Prefix() string { return r.prefix }

// Variables returns a description of every variable, sorted by name.
func (r *Reader) Variables() []Variable {
	vars := make([]Variable, len(r.entries))
	for i := range r.entries {
		vars[i] = r.entries[i].describe()
	}
	return vars
}

// Variable returns the description of the variable called name. ok reports whether there is one.
func (r *Reader) Variable(name string) (v Variable, ok bool) {
	e := r.find(name)
	if e == nil {
		return Variable{}, false
	}
	return e.describe(), true
}

func (e *entry) describe() Variable {
	v := e.Variable
	v.Shape = slices.Clone(v.Shape)
	return v
}

func (r *Reader) find(name string) *entry {
	i, ok := slices.BinarySearchFunc(r.entries, name, func(e entry, name string) int {
		return strings.Compare(e.Name, name)
	})
	if !ok {
		return nil
	}
	return &r.entries[i]
}

// Read returns the bytes of a variable: its elements in row-major order, little-endian.
func (r *Reader) Read(name string) ([]byte, error) {
	e, err := r.lookup(name)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 0, e.Size)
	if err := r.readChunks(e, func(chunk []byte) { buf = append(buf, chunk...) }); err != nil {
		return nil, err
	}
	return buf, nil
}

// lookup returns the entry of a variable whose bytes can be read.
func (r *Reader) lookup(name string) (*entry, error) {
	e := r.find(name)
	if e == nil {
		return nil, fmt.Errorf("read %s: no such variable in %s", name, r.prefix)
	}
	if e.DType == String {
		return nil, fmt.Errorf("read %s: string tensors are not supported", name)
	}
	if e.Size > maxValues {
		return nil, fmt.Errorf("read %s: it has %d bytes, and no more than %d are read: no model has such a variable",
			name, e.Size, int64(maxValues))
	}
	return e, nil
}

// readChunks passes the bytes of a variable to visit in chunks of whole elements. It checks them only at the
// end: if it returns an error, what it passed may be wrong.
func (r *Reader) readChunks(e *entry, visit func(chunk []byte)) error {
	fail := func(err error) error {
		return fmt.Errorf("read %s: %s: %w", e.Name, shardPath(r.prefix, e.shard, r.nshards), err)
	}
	var crc uint32
	buf := make([]byte, min(e.Size, chunkSize))
	for done := int64(0); done < e.Size; {
		chunk := buf[:min(e.Size-done, chunkSize)]
		n, err := r.shards[e.shard].ReadAt(chunk, e.offset+done)
		if n < len(chunk) && err == io.EOF {
			return fail(damaged("cut short"))
		}
		if n < len(chunk) {
			return fail(err)
		}
		crc = crc32.Update(crc, castagnoli, chunk)
		visit(chunk)
		done += int64(len(chunk))
	}
	if mask(crc) != e.crc {
		return fail(damaged("checksum mismatch"))
	}
	return nil
}
