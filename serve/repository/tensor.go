package repository

import (
	"cmp"
	"slices"
)

// The data types of tensors, by their names in the Open Inference Protocol.
const (
	Int32   = "INT32"
	Int64   = "INT64"
	Float32 = "FP32"
	Bytes   = "BYTES"
)

// A Tensor is a named array in row-major order.
type Tensor struct {
	Name     string
	Type     string // Int32 or Int64, Float32 or Bytes, of which the elements are Int32s, Float32s or Strings
	Shape    []int64
	Int32s   []int32 // those of Int64 too: no id of a word piece or of a window is larger
	Float32s []float32
	Strings  []string
}

// len returns the number of elements that a tensor has.
func (t *Tensor) len() int { return len(t.Int32s) + len(t.Float32s) + len(t.Strings) }

// elements returns the number of elements of a shape, or -1 for a shape that no tensor of a request can
// have.
func elements(shape []int64) int {
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

// A TensorInfo describes an input or output.
type TensorInfo struct {
	Name       string // in requests
	Type       string
	Shape      []int64 // the batch's dimension first; -1 is any size
	TensorName string  // in the graph, as in "input_ids:0"; "" for a text model
	Optional   bool    // a request may leave it out
	// As is the name that run_squad.py has for it, as in "input_mask" for "attention_mask"; "" if Name is it.
	As string
}

// as returns run_squad.py's name.
func (i *TensorInfo) as() string { return cmp.Or(i.As, i.Name) }

// indexOf returns the place of the tensor with a name, or -1.
func indexOf(infos []TensorInfo, name string) int {
	return slices.IndexFunc(infos, func(info TensorInfo) bool { return info.Name == name })
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

// The names of a text model's tensors.
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
