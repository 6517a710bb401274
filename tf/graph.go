package tf

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Graph is a TensorFlow graph: operations and the edges between their outputs and inputs.
type Graph struct {
	users   users
	ptr     graphPtr
	cleanup runtime.Cleanup
}

// inputValue is one input of an operation: one output, or a list of them.
type inputValue struct {
	outputs []output
	list    bool
}

// NewGraph makes an empty graph.
func NewGraph() (*Graph, error) {
	if !Loaded() {
		return nil, ErrNotLoaded
	}
	ptr := capiGraphNew()
	if ptr == nil {
		return nil, errors.New("new graph: TensorFlow could not allocate it")
	}
	g := &Graph{ptr: ptr}
	alive.graphs.Add(1)
	g.cleanup = runtime.AddCleanup(g, freeGraph, g.ptr)
	return g, nil
}

// A graph that a session still uses is only marked by TF_DeleteGraph, and freed with the session.
func freeGraph(ptr graphPtr) {
	capiGraphDelete(ptr)
	alive.graphs.Add(-1)
}

// Close releases the graph, at once or when the last call that uses it has ended. Its operations must not be
// used after that, but its sessions may.
func (g *Graph) Close() error {
	if g != nil && g.users.close() {
		g.free()
	}
	return nil
}

func (g *Graph) free() {
	g.cleanup.Stop()
	freeGraph(g.ptr)
	g.ptr = nil
}

func (g *Graph) leave() {
	if g.users.leave() {
		g.free()
	}
}

// Operation is a node of a graph. It keeps its graph from being collected.
type Operation struct {
	g   *Graph
	ptr operationPtr

	name, typ, device string
	outputs           int
}

func (g *Graph) operation(ptr operationPtr) *Operation {
	op := &Operation{g: g, ptr: ptr}
	op.name, op.typ, op.device, op.outputs = capiOperation(ptr)
	return op
}

// Name returns the operation's name in its graph.
func (o *Operation) Name() string { return o.name }

// Type returns the operation's type ("MatMul").
func (o *Operation) Type() string { return o.typ }

// Device returns the device on which the operation should run, or "" for any.
func (o *Operation) Device() string { return o.device }

// NumOutputs returns the number of tensors that the operation produces.
func (o *Operation) NumOutputs() int { return o.outputs }

// Output returns the operation's i-th output.
func (o *Operation) Output(i int) Output { return Output{o, i} }

// Output is a tensor that an operation produces.
type Output struct {
	Op    *Operation
	Index int
}

func (o Output) capi() output { return newOutput(o.Op.ptr, o.Index) }

func (o Output) valid() error {
	if o.Op == nil {
		return fmt.Errorf("an output has no operation")
	}
	if o.Index < 0 || o.Index >= o.Op.outputs {
		return fmt.Errorf("operation %q has %d outputs, no output %d", o.Op.name, o.Op.outputs, o.Index)
	}
	return nil
}

// String returns the output's name as TensorFlow writes it, "name:0".
func (o Output) String() string {
	if o.Op == nil {
		return "<no output>"
	}
	return o.Op.name + ":" + strconv.Itoa(o.Index)
}

// DataType returns the type of the output's elements, or 0 if the output does not exist or its graph is closed.
func (o Output) DataType() DataType {
	if o.valid() != nil {
		return 0
	}
	g := o.Op.g
	if err := g.users.enter(); err != nil {
		return 0
	}
	defer g.leave()
	return capiOutputType(o.capi())
}

// Shape returns what the graph knows of the output's shape. known reports whether it knows the rank.
func (o Output) Shape() (shape Shape, known bool, err error) {
	if err := o.valid(); err != nil {
		return nil, false, err
	}
	g := o.Op.g
	if err := g.users.enter(); err != nil {
		return nil, false, err
	}
	defer g.leave()
	return capiOutputShape(g.ptr, o.capi())
}

// Input is an input of an operation: an [Output], or an [OutputList] if the definition of the operation asks for
// a list.
type Input interface{ inputs() ([]Output, bool) }

func (o Output) inputs() ([]Output, bool) { return []Output{o}, false }

// OutputList is an input that takes several outputs, such as the values of ConcatV2.
type OutputList []Output

func (l OutputList) inputs() ([]Output, bool) { return l, true }

// OpSpec describes an operation to add to a graph.
type OpSpec struct {
	Type   string  // as registered: "MatMul"
	Name   string  // "" takes the type's name, made unique
	Inputs []Input // in the order of the operation's definition

	// Attrs holds the attributes by name. [Attr] lists their Go types.
	Attrs map[string]Attr

	ControlInputs []*Operation // run before the operation
	Device        string       // "" for any
}

// AddOperation adds an operation. After an error the graph is unchanged.
func (g *Graph) AddOperation(spec OpSpec) (*Operation, error) {
	if err := g.users.enter(); err != nil {
		return nil, err
	}
	defer g.leave()
	name := spec.Name
	if name == "" {
		name = g.uniqueName(spec.Type)
	}
	fail := func(err error) (*Operation, error) {
		return nil, fmt.Errorf("add operation %s (%s): %w", name, spec.Type, err)
	}
	if strings.ContainsRune(name+spec.Type+spec.Device, 0) {
		return fail(fmt.Errorf("a name contains NUL"))
	}
	if capiGraphOperation(g.ptr, name) != nil {
		return nil, &Error{
			Op: "add operation " + name, Code: AlreadyExists, Message: "the graph has an operation of that name",
		}
	}
	inputs := make([]inputValue, len(spec.Inputs))
	for i, in := range spec.Inputs {
		outputs, list := in.inputs()
		inputs[i].list = list
		for _, o := range outputs {
			if err := o.valid(); err != nil {
				return fail(fmt.Errorf("input %d: %w", i, err))
			}
			if o.Op.g != g {
				return fail(fmt.Errorf("input %d (%v) belongs to another graph", i, o))
			}
			inputs[i].outputs = append(inputs[i].outputs, o.capi())
		}
	}
	controls := make([]operationPtr, len(spec.ControlInputs))
	for i, c := range spec.ControlInputs {
		if c == nil || c.g != g {
			return fail(fmt.Errorf("control input %d is nil or belongs to another graph", i))
		}
		controls[i] = c.ptr
	}
	attrs := make([]attrValue, 0, len(spec.Attrs))
	for _, key := range slices.Sorted(maps.Keys(spec.Attrs)) { // sorted, so that errors repeat
		value, release, err := encodeAttr(key, spec.Attrs[key])
		if err != nil {
			return fail(err)
		}
		defer release()
		attrs = append(attrs, value)
	}
	ptr, err := capiGraphAdd(g.ptr, spec.Type, name, spec.Device, inputs, controls, attrs)
	runtime.KeepAlive(spec)
	if err != nil {
		return nil, err
	}
	return g.operation(ptr), nil
}

// uniqueName returns base or, if it is taken, base_1, base_2, ..., as graphs in Python do.
func (g *Graph) uniqueName(base string) string {
	name := base
	for i := 1; capiGraphOperation(g.ptr, name) != nil; i++ {
		name = base + "_" + strconv.Itoa(i)
	}
	return name
}

// Operation returns the operation with a name.
func (g *Graph) Operation(name string) (*Operation, bool) {
	if err := g.users.enter(); err != nil {
		return nil, false
	}
	defer g.leave()
	ptr := capiGraphOperation(g.ptr, name)
	if ptr == nil {
		return nil, false
	}
	return g.operation(ptr), true
}

// Output returns the output with a name as TensorFlow writes it: "start_logits:0", or "start_logits".
func (g *Graph) Output(name string) (Output, error) {
	base, index := name, 0
	if before, after, found := strings.Cut(name, ":"); found {
		n, err := strconv.Atoi(after)
		if err != nil {
			return Output{}, fmt.Errorf("output %q: want NAME or NAME:INDEX", name)
		}
		base, index = before, n
	}
	op, ok := g.Operation(base)
	if !ok {
		return Output{}, fmt.Errorf("output %q: the graph has no operation %q", name, base)
	}
	out := Output{op, index}
	return out, out.valid()
}

// Operations returns the operations in no particular order.
func (g *Graph) Operations() iter.Seq[*Operation] {
	return func(yield func(*Operation) bool) {
		var pos uint64
		for {
			op := g.next(&pos)
			if op == nil || !yield(op) {
				return
			}
		}
	}
}

func (g *Graph) next(pos *uint64) *Operation {
	if err := g.users.enter(); err != nil {
		return nil
	}
	defer g.leave()
	ptr := capiGraphNext(g.ptr, pos)
	if ptr == nil {
		return nil
	}
	return g.operation(ptr)
}

// GraphDef serializes the graph as a GraphDef.
func (g *Graph) GraphDef() ([]byte, error) {
	if err := g.users.enter(); err != nil {
		return nil, err
	}
	defer g.leave()
	return capiGraphExport(g.ptr)
}

// ImportOptions say how a GraphDef is imported.
type ImportOptions struct {
	Prefix string // put before every imported name, with a slash
	Device string // for operations that name none
}

// Import adds the operations of a serialized GraphDef to the graph.
func (g *Graph) Import(graphDef []byte, opts *ImportOptions) error {
	if err := g.users.enter(); err != nil {
		return err
	}
	defer g.leave()
	if opts == nil {
		opts = &ImportOptions{}
	}
	return capiGraphImport(g.ptr, graphDef, opts.Prefix, opts.Device)
}
