package repository

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

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

// Elements is the number of elements that a shape has; -1 where it has none, or more than any
// request can.
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
	TensorName string // in the graph, as in "input_ids:0"; "" for those of the text-in model
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

// The tensors of the text-in model.
const (
	questionInput = "QUESTION"
	contextInput  = "CONTEXT"
	answerOutput  = "ANSWER"
	scoreOutput   = "SCORE"
	startOutput   = "START"
	endOutput     = "END"
)

var textInputs = []TensorInfo{
	{Name: questionInput, Type: Bytes, Shape: []int64{-1, 1}},
	{Name: contextInput, Type: Bytes, Shape: []int64{-1, 1}},
}

var textOutputs = []TensorInfo{
	{Name: answerOutput, Type: Bytes, Shape: []int64{-1, 1}},
	{Name: scoreOutput, Type: Float32, Shape: []int64{-1, 1}},
	{Name: startOutput, Type: Int32, Shape: []int64{-1, 1}},
	{Name: endOutput, Type: Int32, Shape: []int64{-1, 1}},
}

// A Call runs tensors through a model.
type Call struct {
	Inputs   []Tensor
	Outputs  []string // those wanted; none is all
	Priority int
	Timeout  time.Duration
	// MaxBatch makes a batch larger than the model's configuration allows an error, as it is in
	// Triton, where otherwise it is run in parts.
	MaxBatch bool
}

// A Result is what a model makes of a Call.
type Result struct {
	Outputs []Tensor
	Seconds Seconds // of the row that took longest in each stage
}

// Infer runs a call.
func (h Handle) Infer(ctx context.Context, c *Call) (*Result, error) {
	inputs := make(map[string]*Tensor, len(c.Inputs))
	infos := h.Inputs()
	for i := range c.Inputs {
		t := &c.Inputs[i]
		at := slices.IndexFunc(infos, func(info TensorInfo) bool { return info.Name == t.Name })
		switch {
		case at < 0:
			return nil, invalid("model %s has no input %q", h.Name(), t.Name)
		case inputs[t.Name] != nil:
			return nil, invalid("input %q is given twice", t.Name)
		case t.Type != infos[at].Type:
			return nil, invalid("input %q is %s: it must be %s", t.Name, t.Type, infos[at].Type)
		case Elements(t.Shape) < 0:
			return nil, invalid("input %q has the shape %v, which no tensor can have", t.Name, t.Shape)
		case Elements(t.Shape) != len(t.Int32s)+len(t.Float32s)+len(t.Strings):
			return nil, invalid("input %q has the shape %v but %d elements", t.Name, t.Shape, len(t.Int32s)+len(t.Float32s)+len(t.Strings))
		}
		inputs[t.Name] = t
	}
	rows := int64(-1)
	for _, info := range infos {
		t := inputs[info.Name]
		if t == nil {
			if info.Optional {
				continue
			}
			return nil, invalid("input %q is missing", info.Name)
		}
		if !fits(t.Shape, info.Shape) {
			return nil, invalid("input %q has the shape %v: it must be %v, where -1 is any size", t.Name, t.Shape, info.Shape)
		}
		if rows >= 0 && t.Shape[0] != rows {
			return nil, invalid("input %q has %d rows, another input %d", t.Name, t.Shape[0], rows)
		}
		rows = t.Shape[0]
	}
	known := h.Outputs()
	for _, name := range c.Outputs {
		if !slices.ContainsFunc(known, func(info TensorInfo) bool { return info.Name == name }) {
			return nil, invalid("model %s has no output %q", h.Name(), name)
		}
	}
	switch most := h.maxBatch(); {
	case rows < 1:
		return nil, invalid("the batch is empty")
	case c.MaxBatch && rows > int64(most):
		return nil, invalid("the batch has %d rows: model %s takes at most %d", rows, h.Name(), most)
	case rows > int64(h.limits.Windows):
		return nil, invalid("the batch has %d rows: there may be at most %d", rows, h.limits.Windows)
	}
	run := h.inferTensors
	if h.Text {
		run = h.inferText
	}
	result, err := run(ctx, c, inputs, int(rows))
	if err == nil && len(c.Outputs) > 0 {
		result.Outputs = slices.DeleteFunc(result.Outputs, func(t Tensor) bool { return !slices.Contains(c.Outputs, t.Name) })
	}
	return result, err
}

// fits reports whether a shape is one of those that want stands for. A column may come as a vector.
func fits(shape, want []int64) bool {
	if len(want) == 2 && want[1] == 1 && len(shape) == 1 || len(want) == 1 && len(shape) == 2 && shape[1] == 1 {
		return true
	}
	return slices.EqualFunc(shape, want, func(s, w int64) bool { return w < 0 || s == w })
}

// inferTensors runs rows of word pieces.
func (h Handle) inferTensors(ctx context.Context, c *Call, inputs map[string]*Tensor, rows int) (_ *Result, err error) {
	m, began := h.Model, time.Now()
	var seconds Seconds
	defer func() {
		m.tensors.count(began, rows, seconds, err)
		seconds.trace(ctx)
	}()

	ids, mask, segments := inputs[inputIDs], inputs[inputMask], inputs[segmentIDs]
	length := len(ids.Int32s) / rows
	for _, t := range []*Tensor{mask, segments} {
		if len(t.Int32s) != len(ids.Int32s) {
			return nil, invalid("input %q has the shape %v, input %q %v: they must be the same", t.Name, t.Shape, inputIDs, ids.Shape)
		}
	}
	if length < 1 {
		return nil, invalid("input %q has the shape %v: a sequence has at least one token", inputIDs, ids.Shape)
	}
	if err := m.backend.CheckLength(length); err != nil {
		return nil, invalid("%s", trimPackage(err))
	}
	if err := within(ids, m.backend.Tokenizer.Vocab.Len()); err != nil {
		return nil, err
	}
	if err := within(segments, m.backend.Segments); err != nil {
		return nil, err
	}
	features := make([]squad.Feature, rows)
	for i := range features {
		from, to := i*length, (i+1)*length
		features[i] = squad.Feature{
			UniqueID: int32(i),
			InputIDs: ids.Int32s[from:to:to], InputMask: mask.Int32s[from:to:to], SegmentIDs: segments.Int32s[from:to:to],
			Len: length, // the client gets a logit for every position, whatever its mask says
		}
	}
	seconds.Tokenize = time.Since(began).Seconds()
	response, err := m.batcher.Do(ctx, batch.Request{Features: features, Priority: c.Priority, Timeout: c.Timeout})
	if err != nil {
		return nil, err
	}
	seconds.Queue, seconds.Compute = response.Queue.Seconds(), response.Compute.Seconds()
	decoding := time.Now()
	outputs := []Tensor{}
	for _, info := range m.backend.Outputs {
		t := Tensor{Name: info.Name, Type: info.Type}
		switch info.Name {
		case startLogits, endLogits:
			t.Shape = []int64{int64(rows), int64(length)}
			t.Float32s = make([]float32, 0, rows*length)
			for _, r := range response.Results {
				logits := r.StartLogits
				if info.Name == endLogits {
					logits = r.EndLogits
				}
				if len(logits) != length {
					return nil, Errorf(codes.Internal, "the model made %d logits of %d positions", len(logits), length)
				}
				t.Float32s = append(t.Float32s, logits...)
			}
		case uniqueIDs:
			t.Shape = []int64{int64(rows)}
			if t.Int32s = make([]int32, rows); inputs[uniqueIDs] != nil {
				copy(t.Int32s, inputs[uniqueIDs].Int32s)
			}
		}
		outputs = append(outputs, t)
	}
	seconds.Decode = time.Since(decoding).Seconds()
	return &Result{outputs, seconds}, nil
}

// within refuses ids that the model has no row for: TensorFlow fails the whole batch for one. An n of 0
// is not known.
func within(t *Tensor, n int) error {
	for _, id := range t.Int32s {
		switch {
		case n > 0 && (id < 0 || int(id) >= n):
			return invalid("input %q holds %d: it must be from 0 to %d", t.Name, id, n-1)
		case id < 0:
			return invalid("input %q holds %d: it must not be negative", t.Name, id)
		}
	}
	return nil
}

// inferText answers rows of questions.
func (h Handle) inferText(ctx context.Context, c *Call, inputs map[string]*Tensor, rows int) (*Result, error) {
	questions := make([]*Question, rows)
	for i := range questions {
		questions[i] = &Question{
			Text: inputs[questionInput].Strings[i], Documents: []string{inputs[contextInput].Strings[i]},
			Priority: c.Priority, Timeout: c.Timeout, Decoder: h.defaults,
		}
	}
	answers, err := h.AnswerAll(ctx, questions)
	if err != nil {
		return nil, err
	}
	shape := []int64{int64(rows), 1}
	answer, score := Tensor{Name: answerOutput, Type: Bytes, Shape: shape}, Tensor{Name: scoreOutput, Type: Float32, Shape: shape}
	start, end := Tensor{Name: startOutput, Type: Int32, Shape: shape}, Tensor{Name: endOutput, Type: Int32, Shape: shape}
	var longest Seconds
	for _, a := range answers {
		longest = longest.max(a.Seconds)
		probability, place := 0.0, Place{Start: -1, End: -1}
		if a.Best >= 0 {
			probability = a.NBest[a.Best].Probability
			if a.Places[a.Best].OK {
				place = a.Places[a.Best]
			}
		}
		answer.Strings = append(answer.Strings, a.Prediction.Answer)
		score.Float32s = append(score.Float32s, float32(probability))
		start.Int32s = append(start.Int32s, int32(place.Start))
		end.Int32s = append(end.Int32s, int32(place.End))
	}
	return &Result{[]Tensor{answer, score, start, end}, longest}, nil
}

// maxBatch is the largest batch that the configuration allows.
func (h Handle) maxBatch() int {
	if n := int(h.Config().GetMaxBatchSize()); n > 0 {
		return n
	}
	return h.limits.Windows
}

// trimPackage leaves out the package's name in front of a message for clients.
func trimPackage(err error) string {
	_, message, _ := strings.Cut(err.Error(), ": ")
	return message
}
