package serve

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // which the codec extends
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// mostParts is the number of messages and strings in a message of gRPC, at most. A request needs a few for each
// row; 8 MiB of empty strings would become 100 MiB.
const mostParts = 16 << 10

// countingCodec is gRPC's own codec, but counts the parts of a message before it makes them.
type countingCodec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return countingCodec{encoding.GetCodecV2("proto")} }

func (c countingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	left := mostParts
	if countParts(buffer.ReadOnlyData(), m.ProtoReflect().Descriptor(), &left); left < 0 {
		return fmt.Errorf("the message has more than %d messages and strings", mostParts)
	}
	return proto.Unmarshal(buffer.ReadOnlyData(), m)
}

// countParts subtracts the parts of a message from left until it is negative. What is not a valid message is
// not counted: the codec refuses it.
func countParts(b []byte, d protoreflect.MessageDescriptor, left *int) {
	for len(b) > 0 && *left >= 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return
		}
		field := d.Fields().ByNumber(number)
		if field != nil && kind == protowire.BytesType {
			switch field.Kind() {
			case protoreflect.MessageKind:
				*left--
				inner, _ := protowire.ConsumeBytes(b)
				countParts(inner, field.Message(), left)
			case protoreflect.BytesKind, protoreflect.StringKind:
				*left--
			}
		}
		b = b[n:]
	}
}
