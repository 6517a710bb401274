package savedmodel

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/escape"
	"github.com/tfbert/go/internal/tfproto"
)

// saverOps are the file operations of savers. The value reports whether the operation restores, and so takes
// the name of a checkpoint as its first input.
var saverOps = map[string]bool{
	"Restore": true, "RestoreSlice": true, "RestoreV2": true,
	"Save": false, "SaveSlices": false, "SaveV2": false, "MergeV2Checkpoints": false,
}

// callOps call the function of their attribute f with their inputs.
var callOps = map[string]bool{"PartitionedCall": true, "StatefulPartitionedCall": true}

// opGraph is a meta graph with what is needed to follow its edges and calls.
type opGraph struct {
	meta      *tfproto.MetaGraphDef
	nodes     map[string]*tfproto.NodeDef
	functions map[string]*tfproto.FunctionDef
	calls     map[*tfproto.NodeDef][]string // the functions that a node names
	saves     map[string]bool               // the functions that hold one of saverOps, or call one that does
}

func newOpGraph(m *tfproto.MetaGraphDef) (*opGraph, error) {
	g := &opGraph{
		meta: m, nodes: map[string]*tfproto.NodeDef{}, functions: map[string]*tfproto.FunctionDef{},
		calls: map[*tfproto.NodeDef][]string{}, saves: map[string]bool{},
	}
	for _, f := range m.GetGraphDef().GetLibrary().GetFunction() {
		g.functions[f.GetSignature().GetName()] = f
	}
	for _, n := range m.GetGraphDef().GetNode() {
		g.nodes[n.GetName()] = n
		if err := g.addCalls(n); err != nil {
			return nil, err
		}
	}
	callers := map[string][]string{}
	var saves []string
	for _, f := range m.GetGraphDef().GetLibrary().GetFunction() {
		name := f.GetSignature().GetName()
		for _, n := range f.GetNodeDef() {
			if err := g.addCalls(n); err != nil {
				return nil, err
			}
			if _, ok := saverOps[n.GetOp()]; ok {
				saves = append(saves, name)
			}
			for _, callee := range g.calls[n] {
				callers[callee] = append(callers[callee], name)
			}
		}
	}
	for len(saves) > 0 {
		f := saves[len(saves)-1]
		saves = saves[:len(saves)-1]
		if !g.saves[f] {
			g.saves[f] = true
			saves = append(saves, callers[f]...)
		}
	}
	return g, nil
}

func (g *opGraph) addCalls(n *tfproto.NodeDef) error {
	if g.functions[n.GetOp()] != nil {
		g.calls[n] = append(g.calls[n], n.GetOp())
	}
	for _, a := range n.GetAttr() {
		names, err := functionNames(a)
		if err != nil {
			return fmt.Errorf("node %s: %w", escape.Name(n.GetName()), err)
		}
		g.calls[n] = append(g.calls[n], names...)
	}
	return nil
}

// functionNames returns the functions that an attribute names, also those in the attributes of a function
// that it names.
func functionNames(a *tfproto.AttrValue) (names []string, err error) {
	add := func(f *tfproto.NameAttrList) error {
		names = append(names, f.GetName())
		for _, a := range f.GetAttr() {
			more, err := functionNames(a)
			if err != nil {
				return err
			}
			names = append(names, more...)
		}
		return nil
	}
	if f := a.GetFunc(); f != nil {
		err = add(f)
	}
	if list := a.GetList(); list != nil && err == nil {
		err = fields(list.ProtoReflect().GetUnknown(), func(num protowire.Number, value []byte) error {
			if num != 9 { // AttrValue.ListValue.func
				return nil
			}
			f := &tfproto.NameAttrList{}
			if err := proto.Unmarshal(value, f); err != nil {
				return err
			}
			return add(f)
		})
	}
	return names, err
}

// class returns the class of an operation by its name.
func (g *opGraph) class(op string) OpClass {
	if class, ok := opClasses()[op]; ok {
		return class
	}
	if g.functions[op] != nil {
		return ClassFunction
	}
	return ClassCustom
}

// notSaver returns why the saver's operations can do more than a saver should, or "" if they cannot.
//
// TensorFlow runs what the outputs of the signatures, the initialization and the restore operation depend
// on. The first two must not reach saverOps. The restore operation, which the loader runs, may reach those
// that restore, from the tensor that the loader feeds with the name of the model's own variables. Only a
// program that names the operations for it can save.
func (g *opGraph) notSaver() string {
	for _, f := range g.meta.GetGraphDef().GetLibrary().GetFunction() {
		// TensorFlow may call a function with that attribute in place of another.
		if name := f.GetSignature().GetName(); g.saves[name] && (g.functions[name] != f || hasAttr(f, "api_implements")) {
			return "as the function " + escape.Name(name) + " can take the place of another"
		}
	}
	saver := g.meta.GetSaverDef()
	files := map[string]bool{strings.TrimSuffix(saver.GetFilenameTensorName(), ":0"): true}
	nodes := maps.Clone(g.nodes)
	for _, a := range assets(g.meta) { // the loader feeds their tensors with other names of files
		name, _, _ := strings.Cut(a.GetTensorInfo().GetName(), ":")
		delete(files, name)
		delete(nodes, name)
	}
	running := g.ancestors(g.roots())
	restoring := g.ancestors([]string{saver.GetRestoreOpName()})
	check := &restoreCheck{opGraph: g, seen: map[string]bool{}}
	for _, n := range g.meta.GetGraphDef().GetNode() {
		switch {
		case !g.touches(n):
		case running[n]:
			return "as " + escape.Name(n.GetName()) + " runs for a signature or the initialization"
		case restoring[n] && !check.ok(n, nodes, files, 0):
			return "as " + escape.Name(n.GetName()) + " does more than restore the model's variables"
		}
	}
	return ""
}

// touches reports whether a node is of saverOps or calls a function that reaches one.
func (g *opGraph) touches(n *tfproto.NodeDef) bool {
	if _, ok := saverOps[n.GetOp()]; ok {
		return true
	}
	return slices.ContainsFunc(g.calls[n], func(f string) bool { return g.saves[f] })
}

// restoreCheck goes through the calls of a restore operation.
type restoreCheck struct {
	*opGraph
	seen map[string]bool // functions, with the arguments that are files
}

// ok reports whether a node that touches saverOps only restores, from the files of the given names. These
// are tensors among the nodes, or the arguments of their function.
func (c *restoreCheck) ok(
	n *tfproto.NodeDef, nodes map[string]*tfproto.NodeDef, files map[string]bool, depth int,
) bool {
	if restores, ok := saverOps[n.GetOp()]; ok {
		return restores && len(n.GetInput()) > 0 && isFile(n.GetInput()[0], nodes, files)
	}
	calls := c.calls[n]
	if depth == maxCalls || len(calls) != 1 || !callOps[n.GetOp()] && n.GetOp() != calls[0] {
		return false
	}
	f := c.functions[calls[0]]
	arguments := map[string]bool{}
	for i, arg := range f.GetSignature().GetInputArg() {
		if arg.GetNumberAttr() != "" || arg.GetTypeListAttr() != "" {
			break // a list of inputs, which shifts the places of those after it
		}
		if i < len(n.GetInput()) && isFile(n.GetInput()[i], nodes, files) {
			arguments[arg.GetName()] = true
		}
	}
	key := fmt.Sprintf("%q %q", calls[0], slices.Sorted(maps.Keys(arguments)))
	if c.seen[key] {
		return true // or false for the call that is seen
	}
	c.seen[key] = true
	body := map[string]*tfproto.NodeDef{}
	for _, inner := range f.GetNodeDef() {
		body[inner.GetName()] = inner
	}
	for _, inner := range f.GetNodeDef() {
		if c.touches(inner) && !c.ok(inner, body, arguments, depth+1) {
			return false
		}
	}
	return true
}

// maxCalls is how deep the functions of a saver may call one another, and how long the chains of Identity in
// them may be.
const maxCalls = 8

// isFile reports whether an input is one of the tensors files, directly or through Identity.
func isFile(input string, nodes map[string]*tfproto.NodeDef, files map[string]bool) bool {
	for range maxCalls {
		name, output, _ := strings.Cut(input, ":")
		if files[name] && (output == "" || output == "0") {
			return name != ""
		}
		n := nodes[name]
		if n.GetOp() != "Identity" || len(n.GetInput()) == 0 {
			return false
		}
		input = n.GetInput()[0]
	}
	return false
}

// roots returns what runs besides the restore operation: the outputs of the signatures, one of which can be
// the initialization, and what TensorFlow 1 runs for the initialization.
func (g *opGraph) roots() []string {
	var names []string
	for _, s := range g.meta.GetSignatureDef() {
		for _, t := range s.GetOutputs() {
			names = append(names, tensorNames(t)...)
		}
	}
	for _, key := range []string{"saved_model_main_op", "legacy_init_op", "saved_model_train_op"} {
		names = append(names, g.meta.GetCollectionDef()[key].GetNodeList().GetValue()...)
	}
	return names
}

// tensorNames returns the names of all tensors of an input or output.
func tensorNames(t *tfproto.TensorInfo) []string {
	sparse := t.GetCooSparse()
	names := []string{
		t.GetName(), sparse.GetValuesTensorName(), sparse.GetIndicesTensorName(), sparse.GetDenseShapeTensorName(),
	}
	for _, c := range t.GetCompositeTensor().GetComponents() {
		names = append(names, tensorNames(c)...)
	}
	return names
}

// ancestors returns the nodes of the graph that tensors depend on, also their own.
func (g *opGraph) ancestors(tensors []string) map[*tfproto.NodeDef]bool {
	found := map[*tfproto.NodeDef]bool{}
	for rest := slices.Clone(tensors); len(rest) > 0; {
		name, _, _ := strings.Cut(strings.TrimPrefix(rest[len(rest)-1], "^"), ":")
		rest = rest[:len(rest)-1]
		if n := g.nodes[name]; n != nil && !found[n] {
			found[n] = true
			rest = append(rest, n.GetInput()...)
		}
	}
	return found
}

// hasAttr reports whether a function has an attribute.
func hasAttr(f *tfproto.FunctionDef, key string) bool {
	found := false
	err := fields(f.ProtoReflect().GetUnknown(), func(num protowire.Number, entry []byte) error {
		if num != 5 { // FunctionDef.attr
			return nil
		}
		return fields(entry, func(num protowire.Number, value []byte) error {
			found = found || num == 1 && string(value) == key
			return nil
		})
	})
	return found || err != nil
}
