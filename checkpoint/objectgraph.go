package checkpoint

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// objectGraph is the key under which TensorFlow 2 keeps the graph of a checkpoint's objects, a serialized
// TrackableObjectGraph. A checkpoint that has one is keyed by paths through that graph.
const objectGraph = "_CHECKPOINTABLE_OBJECT_GRAPH"

// maxObjectGraph bounds the graph that is read: that of BERT-Large with its optimizer takes a few hundred kilobytes.
const maxObjectGraph = 64 << 20

// ObjectBased reports whether the checkpoint is keyed by paths through a graph of objects, as those of TensorFlow 2
// are, and not by the names of its variables.
func (r *Reader) ObjectBased() bool { return r.find(objectGraph) != nil }

// FullNames returns the name of each variable of an object-based checkpoint by its key, as in
// "bert/embeddings/word_embeddings" for "model/_word/.ATTRIBUTES/VARIABLE_VALUE". Variables whose names the graph
// does not say are left out. The map is nil if the checkpoint is keyed by names.
func (r *Reader) FullNames() (map[string]string, error) {
	e := r.find(objectGraph)
	if e == nil {
		return nil, nil
	}
	graph, err := r.readString(e)
	if err != nil {
		return nil, fmt.Errorf("read %s: %s: %w", e.Name, shardPath(r.prefix, e.shard, r.nshards), err)
	}
	names := map[string]string{}
	// TrackableObjectGraph.nodes[].attributes[]: full_name is 2, checkpoint_key 3.
	err = eachMessage(graph, 1, func(node []byte) error {
		return eachMessage(node, 2, func(attribute []byte) error {
			var name, key string
			err := eachField(attribute, func(number protowire.Number, value []byte) error {
				switch number {
				case 2:
					name = string(value)
				case 3:
					key = string(value)
				}
				return nil
			})
			if name != "" && key != "" {
				names[key] = name
			}
			if len(names) > maxVariables {
				return damaged("more variables than a model has")
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Name, err)
	}
	return names, nil
}

// readString returns the one string of an entry. TensorFlow writes the length as a varint, the masked checksum of the
// length (as four bytes) and the string; the entry's own checksum covers length, checksum and string.
func (r *Reader) readString(e *entry) ([]byte, error) {
	if e.DType != String || len(e.Shape) != 0 {
		return nil, damaged("it is not one string")
	}
	if e.Size > maxObjectGraph {
		return nil, fmt.Errorf("it has %d bytes, which no model needs", e.Size)
	}
	b := make([]byte, e.Size)
	if _, err := r.shards[e.shard].ReadAt(b, e.offset); err != nil && err != io.EOF {
		return nil, err
	} else if err == io.EOF {
		return nil, damaged("cut short")
	}
	length, n := binary.Uvarint(b)
	if n <= 0 || length != uint64(len(b)-n-4) {
		return nil, damaged("a string of another length")
	}
	crc := crc32.Update(0, castagnoli, binary.LittleEndian.AppendUint32(nil, uint32(length)))
	if mask(crc) != binary.LittleEndian.Uint32(b[n:]) || mask(crc32.Update(crc, castagnoli, b[n:])) != e.crc {
		return nil, damaged("checksum mismatch")
	}
	return b[n+4:], nil
}

// eachMessage visits the messages (or strings) in one field of a message.
func eachMessage(message []byte, field protowire.Number, visit func([]byte) error) error {
	return eachField(message, func(number protowire.Number, value []byte) error {
		if number != field {
			return nil
		}
		return visit(value)
	})
}

// eachField visits the fields of a message that have a length.
func eachField(message []byte, visit func(number protowire.Number, value []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return damaged("%v", protowire.ParseError(n))
		}
		message = message[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
				return damaged("%v", protowire.ParseError(n))
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return damaged("%v", protowire.ParseError(n))
		}
		if err := visit(number, value); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}
