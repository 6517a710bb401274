package serve

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // which the codec extends
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// mostParts is the number of messages and strings in a message of gRPC, at most. A request needs a few for each
// row; 8 MiB of empty strings would become 100 MiB.
const mostParts = 16 << 10

// countingCodec is gRPC's own codec, but also hands out messages that are not decoded, so that their parts and the
// memory for them are counted before they are made.
type countingCodec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return countingCodec{encoding.GetCodecV2("proto")} }

func (c countingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*received); ok {
		r.Buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// received is a message that has been received and not decoded.
type received struct{ mem.Buffer }

// free frees the message, unless it has been decoded.
func (r *received) free() {
	if r.Buffer != nil {
		r.Free()
		r.Buffer = nil
	}
}

// decode decodes the message and frees it.
func (r *received) decode(v any) error {
	defer r.free()
	m := v.(proto.Message)
	left := mostParts
	if countParts(r.ReadOnlyData(), m.ProtoReflect().Descriptor(), &left); left < 0 {
		return unmarshalError(fmt.Errorf("the message has more than %d messages and strings", mostParts))
	}
	if err := proto.Unmarshal(r.ReadOnlyData(), m); err != nil {
		return unmarshalError(err)
	}
	return nil
}

// unmarshalError returns gRPC's own error of a message that cannot be decoded.
func unmarshalError(err error) error {
	return status.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", err)
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
