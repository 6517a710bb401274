package tfproto

// NewShape returns the message of a shape.
func NewShape(dims []int64) *TensorShapeProto {
	p := &TensorShapeProto{}
	for _, d := range dims {
		p.Dim = append(p.Dim, &TensorShapeProto_Dim{Size: d})
	}
	return p
}
