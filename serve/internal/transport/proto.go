package transport

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ProtoJSON returns a message as JSON with the names of its fields, as Triton writes it: numbers of 64 bits
// are numbers, where protobuf's own mapping has strings. If all is true, it includes the fields that are
// not set, except messages and those of a oneof.
func ProtoJSON(m proto.Message, all bool) jsontext.Value {
	return appendMessage(nil, m.ProtoReflect(), all)
}

func appendMessage(b []byte, m protoreflect.Message, all bool) []byte {
	b = append(b, '{')
	first := true
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) && (!all || f.HasPresence()) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b, _ = jsontext.AppendQuote(b, f.Name())
		b = append(b, ':')
		b = appendField(b, f, m.Get(f), all)
	}
	return append(b, '}')
}

func appendField(b []byte, f protoreflect.FieldDescriptor, v protoreflect.Value, all bool) []byte {
	switch {
	case f.IsList():
		b = append(b, '[')
		for i := range v.List().Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, f, v.List().Get(i), all)
		}
		return append(b, ']')
	case f.IsMap():
		var keys []string
		values := map[string]protoreflect.Value{}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			keys, values[k.String()] = append(keys, k.String()), v
			return true
		})
		slices.Sort(keys)
		b = append(b, '{')
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b, _ = jsontext.AppendQuote(b, k)
			b = append(b, ':')
			b = appendValue(b, f.MapValue(), values[k], all)
		}
		return append(b, '}')
	}
	return appendValue(b, f, v, all)
}

func appendValue(b []byte, f protoreflect.FieldDescriptor, v protoreflect.Value, all bool) []byte {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return appendMessage(b, v.Message(), all)
	case protoreflect.EnumKind:
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			b, _ = jsontext.AppendQuote(b, e.Name())
			return b
		}
		return strconv.AppendInt(b, int64(v.Enum()), 10)
	case protoreflect.StringKind:
		b, _ = jsontext.AppendQuote(b, v.String())
		return b
	case protoreflect.BytesKind:
		return appendBase64(b, v.Bytes())
	case protoreflect.FloatKind:
		return appendFloat(b, v.Float(), 32)
	case protoreflect.DoubleKind:
		return appendFloat(b, v.Float(), 64)
	}
	return append(b, v.String()...) // a bool or a whole number
}

func appendBase64(b, value []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, value)
	return append(b, '"')
}

// appendFloat appends values that JSON does not have as protobuf's own mapping does, as strings.
func appendFloat(b []byte, x float64, bits int) []byte {
	switch {
	case math.IsNaN(x):
		return append(b, `"NaN"`...)
	case math.IsInf(x, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(x, -1):
		return append(b, `"-Infinity"`...)
	}
	return strconv.AppendFloat(b, x, 'g', -1, bits)
}
