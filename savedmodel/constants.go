package savedmodel

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

// Constant is a large constant of a graph that is written as a SavedModel. A Placeholder of its name stands
// for it in the graph. Its value goes from the caller to the file, so that one at a time is in memory;
// TensorFlow's own serialization holds several copies of all.
type Constant struct {
	Name  string
	DType tf.DataType
	Shape tf.Shape
	// Data returns the elements' little-endian bytes, in row-major order.
	Data func() ([]byte, error)
}

// AddConstant adds the placeholder of a constant to a graph.
func AddConstant(b *tf.Builder, c Constant) tf.Output {
	attrs := map[string]tf.Attr{"dtype": c.DType, "shape": c.Shape}
	return b.Add(tf.OpSpec{Type: "Placeholder", Name: c.Name, Attrs: attrs})
}

// node is a NodeDef to write: head, and the data of a constant after it.
type node struct {
	name     string
	head     []byte
	constant *Constant
	size     int // of the constant's data
}

// graphNodes takes a serialized GraphDef apart: its nodes, and the rest. It sorts the nodes by name, so that
// the same model is the same bytes: the order in which TensorFlow exports a graph depends on addresses.
func graphNodes(graph []byte, constants []Constant) (nodes []node, rest []byte, err error) {
	def := &tfproto.GraphDef{}
	if err := proto.Unmarshal(graph, def); err != nil {
		return nil, nil, err
	}
	byName := map[string]*Constant{}
	for i := range constants {
		byName[constants[i].Name] = &constants[i]
	}
	marshal := proto.MarshalOptions{Deterministic: true}.Marshal
	for _, d := range def.Node {
		n := node{name: d.Name, constant: byName[d.Name]}
		if n.constant != nil {
			delete(byName, d.Name)
			n.head, n.size, err = constantHead(n.constant)
		} else {
			n.head, err = marshal(d)
		}
		if err != nil {
			return nil, nil, err
		}
		nodes = append(nodes, n)
	}
	for name := range byName {
		return nil, nil, fmt.Errorf("the graph has no placeholder for the constant %s", name)
	}
	slices.SortFunc(nodes, func(a, b node) int { return cmp.Compare(a.name, b.name) })
	def.Node = nil
	rest, err = marshal(def)
	return nodes, rest, err
}

// constantHead returns the NodeDef of a Const up to its data. These come last in every message that they
// are nested in: the field tensor_content of the tensor, which is the value of the attribute "value".
func constantHead(c *Constant) (head []byte, size int, err error) {
	elements, ok := c.Shape.NumElements()
	if !ok || c.DType.Size() == 0 {
		return nil, 0, fmt.Errorf("the constant %s of %v %v has no size", c.Name, c.DType, c.Shape)
	}
	size = int(elements) * c.DType.Size()
	shape, err := proto.Marshal(tfproto.NewShape(c.Shape))
	if err != nil {
		return nil, 0, err
	}
	field := func(b []byte, num protowire.Number, content []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), content)
	}
	number := func(b []byte, num protowire.Number, v int) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(v))
	}
	// open begins a message that has rest and then size more bytes.
	open := func(b []byte, num protowire.Number, rest []byte) []byte {
		b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(len(rest)+size))
		return append(b, rest...)
	}
	tensor := field(number(nil, 1, int(c.DType)), 2, shape)
	tensor = open(tensor, 4, nil)
	value := open(nil, 8, tensor)
	entry := open(field(nil, 1, []byte("value")), 2, value)
	dtype := field(field(nil, 1, []byte("dtype")), 2, number(nil, 6, int(c.DType)))

	head = field(field(nil, 1, []byte(c.Name)), 2, []byte("Const"))
	head = field(head, 5, dtype)
	return open(head, 5, entry), size, nil
}

// writeGraphFile writes a SavedModel of one meta graph, whose graph has nodes and rest.
func writeGraphFile(path string, meta *tfproto.MetaGraphDef, nodes []node, rest []byte) (err error) {
	head, err := proto.MarshalOptions{Deterministic: true}.Marshal(meta)
	if err != nil {
		return err
	}
	graphSize := len(rest)
	for _, n := range nodes {
		graphSize += protowire.SizeTag(1) + protowire.SizeBytes(len(n.head)+n.size)
	}
	metaSize := len(head) + protowire.SizeTag(2) + protowire.SizeBytes(graphSize)
	const most = 1<<31 - 1 // bytes of a protocol buffer that TensorFlow reads
	if metaSize > most-64 {
		return fmt.Errorf("the graph and its constants are %d bytes, and TensorFlow reads no more than %d: "+
			"choose a smaller type", metaSize, most)
	}

	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<16)
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), schemaVersion)
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.BytesType), uint64(metaSize))
	b = append(b, head...)
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.BytesType), uint64(graphSize))
	b = append(b, rest...)
	if _, err := w.Write(b); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := n.write(w); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (n *node) write(w io.Writer) error {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), uint64(len(n.head)+n.size))
	if _, err := w.Write(append(b, n.head...)); err != nil || n.constant == nil {
		return err
	}
	data, err := n.constant.Data()
	if err != nil {
		return fmt.Errorf("constant %s: %w", n.name, err)
	}
	if len(data) != n.size {
		return fmt.Errorf("constant %s: got %d bytes for %v %v",
			n.name, len(data), n.constant.DType, n.constant.Shape)
	}
	_, err = w.Write(data)
	return err
}
