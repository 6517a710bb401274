package tf

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
)

// Attr is the value of an operation's attribute, one of
//
//	string, []string, []byte         "string", "list(string)"
//	int, int64, []int64              "int", "list(int)"
//	float32, []float32               "float", "list(float)"
//	bool, []bool                     "bool", "list(bool)"
//	DataType, []DataType             "type", "list(type)"
//	Shape, []Shape, UnknownShape     "shape", "list(shape)"
//	*Tensor, []*Tensor               "tensor", "list(tensor)"
//	FuncName                         "func"
type Attr any

// UnknownShape is a shape attribute whose rank is not known.
type UnknownShape struct{}

// FuncName names a function of the graph's library.
type FuncName string

// attrValue is one attribute as C sees it: a serialized AttrValue, or tensors, whose content must
// not be copied into a message first.
type attrValue struct {
	name    string
	proto   []byte
	tensors []tensorPtr
	list    bool
}

// encodeAttr translates an attribute. release ends the loan of its tensors.
func encodeAttr(name string, value Attr) (attr attrValue, release func(), err error) {
	attr.name = name
	switch v := value.(type) {
	case *Tensor:
		attr.tensors, release, err = lend([]*Tensor{v})
	case []*Tensor:
		attr.list = true
		attr.tensors, release, err = lend(v)
	default:
		var message *tfproto.AttrValue
		if message, err = attrProto(value); err == nil {
			attr.proto, err = proto.Marshal(message)
		}
		release = func() {}
	}
	if err != nil {
		return attrValue{}, nil, fmt.Errorf("attribute %s: %w", name, err)
	}
	return attr, release, nil
}

func attrProto(value Attr) (*tfproto.AttrValue, error) {
	list := func(l *tfproto.AttrValue_ListValue) *tfproto.AttrValue {
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_List{List: l}}
	}
	switch v := value.(type) {
	case string:
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_S{S: []byte(v)}}, nil
	case []byte:
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_S{S: v}}, nil
	case []string:
		l := &tfproto.AttrValue_ListValue{}
		for _, s := range v {
			l.S = append(l.S, []byte(s))
		}
		return list(l), nil
	case int:
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_I{I: int64(v)}}, nil
	case int64:
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_I{I: v}}, nil
	case []int64:
		return list(&tfproto.AttrValue_ListValue{I: v}), nil
	case float32:
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_F{F: v}}, nil
	case []float32:
		return list(&tfproto.AttrValue_ListValue{F: v}), nil
	case bool:
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_B{B: v}}, nil
	case []bool:
		return list(&tfproto.AttrValue_ListValue{B: v}), nil
	case DataType:
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_Type{Type: int32(v)}}, nil
	case []DataType:
		l := &tfproto.AttrValue_ListValue{}
		for _, d := range v {
			l.Type = append(l.Type, int32(d))
		}
		return list(l), nil
	case Shape:
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_Shape{Shape: tfproto.NewShape(v)}}, nil
	case []Shape:
		l := &tfproto.AttrValue_ListValue{}
		for _, s := range v {
			l.Shape = append(l.Shape, tfproto.NewShape(s))
		}
		return list(l), nil
	case UnknownShape:
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_Shape{
			Shape: &tfproto.TensorShapeProto{UnknownRank: true}}}, nil
	case FuncName:
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_Func{
			Func: &tfproto.NameAttrList{Name: string(v)}}}, nil
	default:
		return nil, fmt.Errorf("a %T is not an attribute value: see tf.Attr", value)
	}
}
