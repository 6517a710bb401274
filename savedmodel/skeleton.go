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

// skeleton reads a serialized SavedModel without the attributes of its graphs' nodes: the constants
// among them can be nearly all of the file, and are not even read.
func skeleton(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	c := &cursor{file: f, r: bufio.NewReader(f)}
	return c.message(info.Size(), nodeAttrs)
}

// nodeAttrs are the fields that lead from a SavedModel to its nodes' attributes: meta_graphs,
// graph_def, node, attr.
var nodeAttrs = []protowire.Number{2, 2, 1, 5}

// A cursor reads a file of the protocol buffers' wire format from its beginning on.
type cursor struct {
	file *os.File
	r    *bufio.Reader
	at   int64
}

// message copies a message of a size without the field that leave leads to.
func (c *cursor) message(size int64, leave []protowire.Number) (out []byte, err error) {
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
			if v > uint64(end-c.at) {
				return nil, io.ErrUnexpectedEOF
			}
			n = int64(v)
		default:
			return nil, fmt.Errorf("field %d has the wire type %d", num, typ)
		}
		switch {
		case typ != protowire.BytesType:
			out, err = c.copy(protowire.AppendVarint(out, tag), n, end)
		case num != leave[0]:
			out, err = c.copy(protowire.AppendVarint(protowire.AppendVarint(out, tag), uint64(n)), n, end)
		case len(leave) == 1:
			err = c.skip(n)
		default:
			var inner []byte
			inner, err = c.message(n, leave[1:])
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
