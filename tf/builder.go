package tf

// Builder adds operations to a graph and keeps the first error, so that code that builds a large graph reads as its
// formula. After an error, Add does nothing and returns outputs without an operation.
type Builder struct {
	Graph *Graph
	Err   error
}

// Add adds an operation and returns its first output.
func (b *Builder) Add(spec OpSpec) Output {
	if b.Err != nil {
		return Output{}
	}
	op, err := b.Graph.AddOperation(spec)
	if err != nil {
		b.Err = err
		return Output{}
	}
	return op.Output(0)
}

// AddConst adds a constant.
func AddConst[T Element](b *Builder, name string, shape Shape, values ...T) Output {
	if b.Err != nil {
		return Output{}
	}
	t, err := NewTensor(shape, values)
	if err != nil {
		b.Err = err
		return Output{}
	}
	defer t.Close()
	return b.Add(OpSpec{Type: "Const", Name: name, Attrs: map[string]Attr{"dtype": TypeOf[T](), "value": t}})
}
