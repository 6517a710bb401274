package repository

// The data types of tensors, by their names in the Open Inference Protocol.
const (
	Int32   = "INT32"
	Float32 = "FP32"
	Bytes   = "BYTES"
)

// A Tensor is a named array in row-major order. One of Int32s, Float32s and Strings is set, by Type.
type Tensor struct {
	Name     string
	Type     string
	Shape    []int64
	Int32s   []int32
	Float32s []float32
	Strings  []string
}

// elements returns the number of elements that a tensor holds.
func (t *Tensor) elements() int { return len(t.Int32s) + len(t.Float32s) + len(t.Strings) }

// Elements returns the number of elements of a shape, or -1 for a shape that no tensor of a request can
// have.
func Elements(shape []int64) int {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || d > 1<<31 {
			return -1
		}
		if n *= d; n > 1<<31 {
			return -1
		}
	}
	return int(n)
}

// TensorInfo describes an input or output. A dimension of -1 may have any size; the first one is the
// batch's.
type TensorInfo struct {
	Name       string // in requests
	Type       string
	Shape      []int64
	TensorName string // in the graph, as in "input_ids:0"; "" for those of a text model
	Optional   bool
}

// The names of a question-answering model's tensors.
const (
	uniqueIDs   = "unique_ids"
	inputIDs    = "input_ids"
	inputMask   = "input_mask"
	segmentIDs  = "segment_ids"
	startLogits = "start_logits"
	endLogits   = "end_logits"
)

// The tensors of a text model.
const (
	questionInput = "QUESTION"
	contextInput  = "CONTEXT"
	answerOutput  = "ANSWER"
	scoreOutput   = "SCORE"
	startOutput   = "START"
	endOutput     = "END"
)

var textInputs = []TensorInfo{
	{Name: questionInput, Type: Bytes, Shape: []int64{-1}},
	{Name: contextInput, Type: Bytes, Shape: []int64{-1}},
}

var textOutputs = []TensorInfo{
	{Name: answerOutput, Type: Bytes, Shape: []int64{-1}},
	{Name: scoreOutput, Type: Float32, Shape: []int64{-1}},
	{Name: startOutput, Type: Int32, Shape: []int64{-1}},
	{Name: endOutput, Type: Int32, Shape: []int64{-1}},
}
