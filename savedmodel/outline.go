package savedmodel

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// The most that is read of a model, because a file may claim more than any memory holds, and may have holes.
// BERT-Large has 10,000 nodes, which take a megabyte without their attributes.
const (
	maxSkeleton = 32 << 20
	maxNodes    = 1 << 20
)

// parts says what is read of a SavedModel.
type parts struct {
	without  outline
	bytes    int64 // to keep, at most
	messages int   // to look into, at most
}

var (
	// withoutAttrs leaves out the attributes of the nodes of the graphs and their functions. The constants
	// among them, which can be nearly all of the file, are not even read.
	withoutAttrs = parts{nodeAttrs, maxSkeleton, maxNodes}
	// withoutTensors keeps the attributes, without the tensors in them.
	withoutTensors = parts{attrTensors, 4 * maxSkeleton, 16 * maxNodes}
	// withSmallTensors keeps the attributes with those tensors that can hold a few names, but no weights.
	withSmallTensors = parts{largeTensors, 4 * maxSkeleton, 16 * maxNodes}
)

// read reads these parts of a serialized SavedModel of a size.
func (p parts) read(f *os.File, size int64) ([]byte, error) {
	c := &cursor{file: f, r: bufio.NewReader(f), left: p.bytes, nodes: p.messages}
	return c.message(size, p.without)
}

// An outline has the numbers of the fields of a message that are not just kept. A field with an outline of
// its own is looked into, a field with nil is left out, and one with ifLarge is left out if it is large.
type outline map[protowire.Number]outline

var ifLarge = outline{0: nil} // 0 is not the number of any field

// largest is the size of the largest message that ifLarge keeps.
const largest = 4096

// nodeAttrs leads from a SavedModel to the attributes of its nodes, and to other fields that are not used here.
var nodeAttrs = outline{2: { // meta_graphs
	1: {2: nil}, // meta_info_def: stripped_op_list
	2: { // graph_def
		1: {5: nil},                           // node: attr
		2: {1: {1: nil, 3: {5: nil}, 4: nil}}, // library: function: signature, node_def: attr, ret
	},
	7: nil, // object_graph_def
}}

// attrTensors leads to the tensors in the attributes, which can be nearly all of a SavedModel.
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

// A cursor reads a file in the wire format of protocol buffers from its beginning.
type cursor struct {
	file  *os.File
	r     *bufio.Reader
	at    int64
	left  int64 // bytes that may still be kept
	nodes int   // messages that may still be looked into
}

var errLarge = fmt.Errorf("its graph is larger than that of any BERT: "+
	"more than %d nodes, or %d MiB without their attributes", maxNodes, maxSkeleton>>20)

// message returns a copy of a message of a size, without the fields that inside leaves out.
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
			out = protowire.AppendVarint(protowire.AppendVarint(out, tag), uint64(n))
			out, err = c.copy(out, n, end)
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
