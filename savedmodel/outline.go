package savedmodel

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// What is read of a model: a file may claim what no memory holds, and need not be on any disk, as it
// may have holes. BERT-Large has 10,000 nodes, and without their attributes takes a megabyte.
const (
	maxSkeleton = 32 << 20
	maxNodes    = 1 << 20
)

// parts says what is read of a SavedModel: all but what an outline leaves out, within limits.
type parts struct {
	without  outline
	bytes    int64 // to keep, at most
	messages int   // to look into, at most
}

var (
	// withoutAttrs leaves out the attributes of the graphs' nodes, those of the functions included: the
	// constants among them can be nearly all of the file, and are not even read.
	withoutAttrs = parts{nodeAttrs, maxSkeleton, maxNodes}
	// withoutTensors keeps the attributes, without the tensors in them.
	withoutTensors = parts{attrTensors, 4 * maxSkeleton, 16 * maxNodes}
	// withSmallTensors keeps the attributes with those tensors that can hold a few names, but no weights.
	withSmallTensors = parts{largeTensors, 4 * maxSkeleton, 16 * maxNodes}
)

// read reads these parts of a serialized SavedModel.
func (p parts) read(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() { // reading says of a directory what it is
		return nil, errors.New("it is not a plain file")
	}
	c := &cursor{file: f, r: bufio.NewReader(f), left: p.bytes, nodes: p.messages}
	return c.message(info.Size(), p.without)
}

// An outline says by number which fields of a message are not just kept: one with an outline of its own
// is looked into, one with none is left out, and one with ifLarge is left out if it is large.
type outline map[protowire.Number]outline

var ifLarge = outline{0: nil} // 0 is not the number of any field

// largest is the size of the largest message that ifLarge keeps.
const largest = 4096

// nodeAttrs leads from a SavedModel to its nodes' attributes, and to other fields that nobody here looks at.
var nodeAttrs = outline{2: { // meta_graphs
	1: {2: nil}, // meta_info_def: stripped_op_list
	2: { // graph_def
		1: {5: nil},                           // node: attr
		2: {1: {1: nil, 3: {5: nil}, 4: nil}}, // library: function: signature, node_def: attr, ret
	},
	7: nil, // object_graph_def
}}

// attrTensors leads to the tensors in its nodes' attributes, which can be nearly all of a SavedModel.
var attrTensors = outline{2: { // meta_graphs
	2: { // graph_def
		1: {5: {2: {8: nil}}},           // node: attr: value: tensor
		2: {1: {3: {5: {2: {8: nil}}}}}, // library: function: node_def: attr: value: tensor
	},
}}

// largeTensors leads to the same tensors.
var largeTensors = outline{2: { // meta_graphs
	2: { // graph_def
		1: {5: {2: {8: ifLarge}}},           // node: attr: value: tensor
		2: {1: {3: {5: {2: {8: ifLarge}}}}}, // library: function: node_def: attr: value: tensor
	},
	7: nil, // object_graph_def
}}

// A cursor reads a file of the protocol buffers' wire format from its beginning on.
type cursor struct {
	file  *os.File
	r     *bufio.Reader
	at    int64
	left  int64 // bytes that may still be kept
	nodes int   // messages that may still be looked into
}

var errLarge = fmt.Errorf("its graph is larger than that of any BERT: more than %d nodes, or %d MiB without their attributes",
	maxNodes, maxSkeleton>>20)

// message copies a message of a size, without what inside leaves out.
func (c *cursor) message(size int64, inside outline) (out []byte, err error) {
	if c.nodes--; c.nodes < 0 {
		return nil, errLarge
	}
	end := c.at + size
	for c.at < end {
		tag, err := c.varint()
		if err != nil {
			return nil, err
		}
		num, typ := protowire.DecodeTag(tag)
		n := int64(0)
		switch typ {
		case protowire.VarintType:
			v, err := c.varint()
			if err != nil {
				return nil, err
			}
			if c.left -= 2; c.left < 0 {
				return nil, errLarge
			}
			out = protowire.AppendVarint(protowire.AppendVarint(out, tag), v)
			continue
		case protowire.Fixed32Type:
			n = 4
		case protowire.Fixed64Type:
			n = 8
		case protowire.BytesType:
			v, err := c.varint()
			if err != nil {
				return nil, err
			}
			if c.at > end || v > uint64(end-c.at) {
				return nil, io.ErrUnexpectedEOF
			}
			n = int64(v)
		default:
			return nil, fmt.Errorf("field %d has the wire type %d", num, typ)
		}
		next, looked := inside[num]
		if _, bySize := next[0]; bySize {
			next, looked = nil, n > largest
		}
		switch {
		case typ != protowire.BytesType:
			out, err = c.copy(protowire.AppendVarint(out, tag), n, end)
		case !looked:
			out, err = c.copy(protowire.AppendVarint(protowire.AppendVarint(out, tag), uint64(n)), n, end)
		case next == nil:
			err = c.skip(n)
		default:
			var inner []byte
			inner, err = c.message(n, next)
			out = protowire.AppendBytes(protowire.AppendVarint(out, tag), inner)
		}
		if err != nil {
			return nil, err
		}
	}
	if c.at > end {
		return nil, io.ErrUnexpectedEOF
	}
	return out, nil
}

func (c *cursor) varint() (uint64, error) {
	b, err := c.r.Peek(binary.MaxVarintLen64)
	v, n := protowire.ConsumeVarint(b) // of fewer bytes at the end of the file
	if n < 0 {
		if err == nil || err == io.EOF {
			err = protowire.ParseError(n)
		}
		return 0, err
	}
	c.at += int64(n)
	_, err = c.r.Discard(n)
	return v, err
}

// copy appends n bytes, which must not go beyond end.
func (c *cursor) copy(out []byte, n, end int64) ([]byte, error) {
	if n > end-c.at {
		return nil, io.ErrUnexpectedEOF
	}
	if c.left -= n + 2; c.left < 0 {
		return nil, errLarge
	}
	at := len(out)
	out = slices.Grow(out, int(n))[:at+int(n)]
	_, err := io.ReadFull(c.r, out[at:])
	c.at += n
	return out, err
}

// skip leaves n bytes out, without reading those that are not buffered yet.
func (c *cursor) skip(n int64) error {
	c.at += n
	if n <= int64(c.r.Buffered()) {
		_, err := c.r.Discard(int(n))
		return err
	}
	_, err := c.file.Seek(c.at, io.SeekStart)
	c.r.Reset(c.file)
	return err
}
