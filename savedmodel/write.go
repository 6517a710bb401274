package savedmodel

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

// schemaVersion is that of TensorFlow's constants.h (kSavedModelSchemaVersion).
const schemaVersion = 1

// predictMethod is the method name of signatures that map tensors to tensors.
const predictMethod = "tensorflow/serving/predict"

// Variable is a resource variable of a graph that is written as a SavedModel.
type Variable struct {
	Name   string
	DType  tf.DataType
	Shape  tf.Shape
	Handle tf.Output // of its VarHandleOp

	assign *tf.Operation
}

// AddVariable adds a resource variable to a graph: its handle of the same name, an initial value of zeros,
// and what TensorFlow's own tools look for.
func AddVariable(g *tf.Graph, name string, dtype tf.DataType, shape tf.Shape) (*Variable, error) {
	fixed := make([]int32, len(shape))
	for i, d := range shape {
		if d < 0 || d > math.MaxInt32 {
			return nil, fmt.Errorf("add variable %s: a variable cannot have the shape %v", name, shape)
		}
		fixed[i] = int32(d)
	}
	v := &Variable{Name: name, DType: dtype, Shape: shape}
	b := tf.Builder{Graph: g}
	v.Handle = b.Add(tf.OpSpec{Type: "VarHandleOp", Name: name, Attrs: map[string]tf.Attr{
		"dtype": dtype, "shape": shape, "shared_name": name}})
	dims := tf.AddConst(&b, name+"/Initializer/zeros/shape", tf.Shape{int64(len(shape))}, fixed...)
	zero := b.Add(tf.OpSpec{Type: "Cast", Name: name + "/Initializer/zeros/value",
		Inputs: []tf.Input{tf.AddConst(&b, name+"/Initializer/zeros/Const", nil, float32(0))},
		Attrs:  map[string]tf.Attr{"DstT": dtype}})
	zeros := b.Add(tf.OpSpec{Type: "Fill", Name: name + "/Initializer/zeros", Inputs: []tf.Input{dims, zero}})
	b.Add(tf.OpSpec{Type: "VarIsInitializedOp", Name: name + "/IsInitialized/VarIsInitializedOp",
		Inputs: []tf.Input{v.Handle}})
	v.assign = b.Add(tf.OpSpec{Type: "AssignVariableOp", Name: name + "/Assign",
		Inputs: []tf.Input{v.Handle, zeros}, Attrs: map[string]tf.Attr{"dtype": dtype}}).Op
	b.Add(tf.OpSpec{Type: "ReadVariableOp", Name: name + "/Read/ReadVariableOp", Inputs: []tf.Input{v.Handle},
		Attrs: map[string]tf.Attr{"dtype": dtype}})
	if b.Err != nil {
		return nil, fmt.Errorf("add variable %s: %w", name, b.Err)
	}
	return v, nil
}

// Content is what Write puts into a SavedModel.
type Content struct {
	Graph      *tf.Graph
	Signatures []Signature // their types and shapes are those of the graph
	// Variables are the variables of the graph. The caller writes their values as a checkpoint with the
	// prefix VariablesPrefix below the directory.
	Variables []*Variable
	Constants []Constant // the values of placeholders that AddConstant added
}

// Write writes the graph file of a SavedModel with the tag "serve" into an existing directory. It adds to the
// graph the operations that restore and save the variables.
func Write(dir string, c Content) error {
	if err := write(dir, c); err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	return nil
}

func write(dir string, c Content) error {
	meta := &tfproto.MetaGraphDef{
		MetaInfoDef: &tfproto.MetaGraphDef_MetaInfoDef{
			Tags: []string{ServeTag}, TensorflowVersion: tf.Version(),
		},
	}
	var err error
	if meta.SignatureDef, err = signatureDefs(c); err != nil {
		return err
	}
	if len(c.Variables) > 0 {
		if meta.SaverDef, err = addSaver(c.Graph, c.Variables); err != nil {
			return err
		}
		if meta.CollectionDef, err = variableCollections(c.Variables); err != nil {
			return err
		}
	}
	graph, err := c.Graph.GraphDef()
	if err != nil {
		return err
	}
	nodes, rest, err := graphNodes(graph, c.Constants)
	if err != nil {
		return err
	}
	return writeGraphFile(filepath.Join(dir, GraphFile), meta, nodes, rest)
}

// addSaver adds what tf.train.Saver adds: save/restore_all for the loader, save/control_dependency for tools
// that write checkpoints.
func addSaver(g *tf.Graph, variables []*Variable) (*tfproto.SaverDef, error) {
	variables = slices.Clone(variables)
	slices.SortFunc(variables, func(a, b *Variable) int { return cmp.Compare(a.Name, b.Name) })
	names, slicesSpec := make([]string, len(variables)), make([]string, len(variables))
	dtypes := make([]tf.DataType, len(variables))
	for i, v := range variables {
		names[i], dtypes[i] = v.Name, v.DType
	}
	n := tf.Shape{int64(len(variables))}
	b := tf.Builder{Graph: g}
	file := b.Add(tf.OpSpec{Type: "PlaceholderWithDefault", Name: "save/Const",
		Inputs: []tf.Input{tf.AddConst(&b, "save/filename", nil, "model")},
		Attrs:  map[string]tf.Attr{"shape": tf.Shape{}}})

	restored := b.Add(tf.OpSpec{Type: "RestoreV2", Name: "save/RestoreV2", Attrs: map[string]tf.Attr{"dtypes": dtypes},
		Inputs: []tf.Input{file,
			tf.AddConst(&b, "save/RestoreV2/tensor_names", n, names...),
			tf.AddConst(&b, "save/RestoreV2/shape_and_slices", n, slicesSpec...)}})
	var assigns []*tf.Operation
	var values tf.OutputList
	for i, v := range variables {
		value := tf.Output{Op: restored.Op, Index: i}
		if b.Err != nil {
			break
		}
		assigns = append(assigns, b.Add(tf.OpSpec{Type: "AssignVariableOp", Name: fmt.Sprintf("save/AssignVariableOp_%d", i),
			Inputs: []tf.Input{v.Handle, value}, Attrs: map[string]tf.Attr{"dtype": v.DType}}).Op)
		values = append(values, b.Add(tf.OpSpec{Type: "ReadVariableOp", Name: fmt.Sprintf("save/ReadVariableOp_%d", i),
			Inputs: []tf.Input{v.Handle}, Attrs: map[string]tf.Attr{"dtype": v.DType}}))
	}
	restore := b.Add(tf.OpSpec{Type: "NoOp", Name: "save/restore_all", ControlInputs: assigns})
	save := b.Add(tf.OpSpec{Type: "SaveV2", Name: "save/SaveV2", Attrs: map[string]tf.Attr{"dtypes": dtypes},
		Inputs: []tf.Input{file,
			tf.AddConst(&b, "save/SaveV2/tensor_names", n, names...),
			tf.AddConst(&b, "save/SaveV2/shape_and_slices", n, slicesSpec...),
			values}})
	saved := b.Add(tf.OpSpec{Type: "Identity", Name: "save/control_dependency", Inputs: []tf.Input{file},
		ControlInputs: []*tf.Operation{save.Op}})
	if b.Err != nil {
		return nil, b.Err
	}
	return &tfproto.SaverDef{
		FilenameTensorName: file.String(), SaveTensorName: saved.String(), RestoreOpName: restore.Op.Name(),
		MaxToKeep: 5, KeepCheckpointEveryNHours: 10000, Version: tfproto.SaverDef_V2,
	}, nil
}

func variableCollections(variables []*Variable) (map[string]*tfproto.CollectionDef, error) {
	list := &tfproto.CollectionDef_BytesList{}
	for _, v := range variables {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&tfproto.VariableDef{
			VariableName: v.Name + ":0", InitializerName: v.assign.Name(), SnapshotName: v.Name + "/Read/ReadVariableOp:0",
			InitialValueName: v.Name + "/Initializer/zeros:0", IsResource: true, Trainable: true,
		})
		if err != nil {
			return nil, err
		}
		list.Value = append(list.Value, b)
	}
	def := &tfproto.CollectionDef{Kind: &tfproto.CollectionDef_BytesList_{BytesList: list}}
	return map[string]*tfproto.CollectionDef{"variables": def, "trainable_variables": def}, nil
}

func signatureDefs(c Content) (map[string]*tfproto.SignatureDef, error) {
	defs := map[string]*tfproto.SignatureDef{}
	for _, s := range c.Signatures {
		method := s.Method
		if method == "" {
			method = predictMethod
		}
		def := &tfproto.SignatureDef{MethodName: method}
		var err1, err2 error
		def.Inputs, err1 = tensorInfoDefs(c.Graph, s.Inputs)
		def.Outputs, err2 = tensorInfoDefs(c.Graph, s.Outputs)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("signature %q: %w", s.Key, err)
		}
		defs[s.Key] = def
	}
	return defs, nil
}

func tensorInfoDefs(g *tf.Graph, infos []TensorInfo) (map[string]*tfproto.TensorInfo, error) {
	defs := map[string]*tfproto.TensorInfo{}
	for _, info := range infos {
		output, err := g.Output(info.Name)
		if err != nil {
			return nil, err
		}
		shape, known, err := output.Shape()
		if err != nil {
			return nil, err
		}
		p := tfproto.NewShape(shape)
		p.UnknownRank = !known
		defs[info.Key] = &tfproto.TensorInfo{
			Encoding: &tfproto.TensorInfo_Name{Name: output.String()}, Dtype: int32(output.DataType()), TensorShape: p,
		}
	}
	return defs, nil
}
