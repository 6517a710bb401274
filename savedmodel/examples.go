package savedmodel

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

// Feature is one that a graph parses from serialized tf.train.Example messages.
type Feature struct {
	Name  string      `json:"name"`
	DType tf.DataType `json:"-"`
	// Shape is that of the feature in one example, where -1 is any number of values; nil if there may be
	// any number of them.
	Shape    tf.Shape `json:"shape"`
	Required bool     `json:"required"` // an example without it is an error
}

// MarshalJSON writes the data type by name.
func (f Feature) MarshalJSON() ([]byte, error) {
	type plain Feature // without this method
	return json.Marshal(struct {
		plain
		DType string `json:"dtype"`
	}{plain(f), f.DType.String()})
}

// String writes the feature as "input_ids int64 [384]".
func (f Feature) String() string {
	return fmt.Sprintf("%s %v %s", f.Name, f.DType, shapeString(f.Shape))
}

// addFeatures sets the features of the inputs that take serialized examples. They stand in constants and
// attributes, which are only read for models that parse examples.
func (i *Info) addFeatures() error {
	parses := false
	for _, m := range i.MetaGraphs {
		parses = parses || m.Ops["ParseExample"]+m.Ops["ParseExampleV2"] > 0
	}
	if !parses {
		return nil
	}
	model, err := readSavedModel(i.Dir, withSmallTensors)
	if err != nil {
		return err
	}
	left := mostFollowed // of the inputs
	for n, m := range model.MetaGraphs {
		for _, s := range i.MetaGraphs[n].Signatures {
			for k := range s.Inputs {
				if s.Inputs[k].DType == tf.String && left > 0 {
					s.Inputs[k].Features = features(m, s.Inputs[k].Name)
					left--
				}
			}
		}
	}
	return nil
}

// features returns what a graph parses from the examples that are fed to a tensor.
func features(m *tfproto.MetaGraphDef, tensor string) []Feature {
	s := exampleSearch{functions: map[string]*tfproto.FunctionDef{}, seen: map[string]bool{}}
	for _, f := range m.GetGraphDef().GetLibrary().GetFunction() {
		s.functions[f.GetSignature().GetName()] = f
	}
	return s.from("", m.GetGraphDef().GetNode(), nodeOf(tensor))
}

// exampleSearch looks for the operation that parses examples, along edges and calls of functions.
type exampleSearch struct {
	functions map[string]*tfproto.FunctionDef
	seen      map[string]bool
}

// from follows a tensor among the nodes of a function, which is "" for the graph.
func (s *exampleSearch) from(function string, nodes []*tfproto.NodeDef, tensor string) []Feature {
	key := function + "\x00" + tensor
	if s.seen[key] || len(s.seen) >= mostFollowed {
		return nil
	}
	s.seen[key] = true
	for _, n := range nodes {
		for i, in := range n.GetInput() {
			if nodeOf(in) != tensor {
				continue
			}
			var found []Feature
			switch op := n.GetOp(); {
			case i == 0 && (op == "ParseExample" || op == "ParseExampleV2"):
				return parsed(n, nodes)
			case i == 0 && (op == "Identity" || op == "Reshape" || op == "Squeeze" || op == "ExpandDims"):
				found = s.from(function, nodes, n.GetName())
			case callOps[op]:
				name := n.GetAttr()["f"].GetFunc().GetName()
				if f := s.functions[name]; i < len(f.GetSignature().GetInputArg()) {
					found = s.from(name, f.GetNodeDef(), f.GetSignature().GetInputArg()[i].GetName())
				}
			}
			if found != nil {
				return found
			}
		}
	}
	return nil
}

// mostFollowed bounds the inputs from which a search starts, and the tensors that it follows: a file may
// claim any number of them.
const mostFollowed = 64

// parsed returns the features of a ParseExample, whose names stand in constants among the nodes.
func parsed(n *tfproto.NodeDef, nodes []*tfproto.NodeDef) []Feature {
	constants := map[string]*tfproto.TensorProto{}
	for _, c := range nodes {
		if c.GetOp() == "Const" {
			constants[c.GetName()] = c.GetAttr()["value"].GetTensor()
		}
	}
	rest := n.GetInput()[1:] // after the serialized examples
	take := func(count int) (taken []string) {
		count = max(0, min(count, len(rest)))
		taken, rest = rest[:count], rest[count:]
		return taken
	}
	keys := func(inputs []string) (keys []string) {
		for _, in := range inputs {
			keys = append(keys, stringValues(constants[nodeOf(in)])...)
		}
		return keys
	}
	attr := n.GetAttr()
	take(1) // the examples' names
	var sparse, ragged, dense []string
	if n.GetOp() == "ParseExample" { // with a scalar for each key
		sparse = keys(take(int(attr["Nsparse"].GetI())))
		dense = keys(take(int(attr["Ndense"].GetI())))
	} else { // with vectors of keys
		sparse, dense, ragged = keys(take(1)), keys(take(1)), keys(take(1))
	}
	var features []Feature
	types, shapes := attr["Tdense"].GetList().GetType(), attr["dense_shapes"].GetList().GetShape()
	for i, key := range dense {
		f := Feature{Name: key, Required: true}
		if i < len(types) {
			f.DType = tf.DataType(types[i])
		}
		if i < len(shapes) {
			f.Shape = shapeOf(shapes[i])
		}
		if i < len(rest) { // the default, which is empty where there is none
			n, ok := shapeOf(constants[nodeOf(rest[i])].GetTensorShape()).NumElements()
			f.Required = ok && n == 0
		}
		if len(f.Shape) > 0 && f.Shape[0] < 0 {
			f.Required = false // a missing sequence is an empty one
		}
		features = append(features, f)
	}
	several := func(keys []string, types []int32) {
		for i, key := range keys {
			f := Feature{Name: key}
			if i < len(types) {
				f.DType = tf.DataType(types[i])
			}
			features = append(features, f)
		}
	}
	several(sparse, attr["sparse_types"].GetList().GetType())
	several(ragged, attr["ragged_value_types"].GetList().GetType())
	return features
}

// stringValues returns the elements of a constant of strings.
func stringValues(t *tfproto.TensorProto) []string {
	n, ok := shapeOf(t.GetTensorShape()).NumElements()
	if !ok || n > largest {
		return nil
	}
	values := make([]string, 0, n)
	for _, v := range t.GetStringVal() {
		values = append(values, string(v))
	}
	if content := t.GetTensorContent(); len(content) > 0 { // all lengths, and then all bytes
		lengths := make([]uint64, n)
		for i := range lengths {
			v, size := protowire.ConsumeVarint(content)
			if size < 0 {
				return nil
			}
			lengths[i], content = v, content[size:]
		}
		for _, length := range lengths {
			if length > uint64(len(content)) {
				return nil
			}
			values, content = append(values, string(content[:length])), content[length:]
		}
	}
	return values
}

// nodeOf returns the node of a tensor such as "x:0", "^x" or, in functions, "x:output:0".
func nodeOf(tensor string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(tensor, "^"), ":")
	return name
}
