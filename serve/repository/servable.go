package repository

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// A Servable is what clients call by a name: a model M, which takes word pieces, or its text model M_qa,
// which takes questions and passages. One that Acquire returned stays loaded until Release.
type Servable struct {
	*Model
	name            string
	inputs, outputs []TensorInfo
	config          *Config
	statistics      statistics

	run func(ctx context.Context, c *Call, inputs map[string]*Tensor, rows int) (*Result, error)
}

// addServables makes the two servables of a model. Their configuration is that of config.pbtxt, which is
// nil if there is none. It sets the options that the configuration has for batching.
func (m *Model) addServables(from *pb.ModelConfig, o *batch.Options) error {
	c, err := completeConfig(from, m.name, m.backend, o)
	if err != nil {
		return err
	}
	if m.cache != nil {
		c.ResponseCache = &pb.ModelResponseCache{Enable: true}
	}
	m.tensors = &Servable{
		Model: m, name: m.name, inputs: m.backend.Inputs, outputs: m.backend.Outputs, run: m.runTensors,
	}
	m.tensors.config = newConfig(c, m.tensors)
	m.text = &Servable{Model: m, name: m.name + textSuffix, inputs: textInputs, outputs: textOutputs, run: m.runText}
	m.text.config = newConfig(textConfig(m.text.name, c), m.text)
	return nil
}

// Name returns the name by which clients call it.
func (s *Servable) Name() string { return s.name }

// Inputs describes what Infer takes.
func (s *Servable) Inputs() []TensorInfo { return s.inputs }

// Outputs describes what Infer returns.
func (s *Servable) Outputs() []TensorInfo { return s.outputs }

// Config returns its configuration.
func (s *Servable) Config() *Config { return s.config }

// Statistics returns its counts.
func (s *Servable) Statistics() Snapshot { return s.statistics.snapshot() }

// A Call runs tensors through a Servable.
type Call struct {
	Inputs         []Tensor
	Outputs        []string      // the names of those wanted; none is all
	Priority       int           // 1 is the most urgent; 0 is the model's default
	Timeout        time.Duration // to wait in the queue; 0 is the model's
	CheckBatchSize bool          // refuse a batch above Config.MaxBatchSize, as Triton does, rather than run it in parts
}

// A Result is the answer to a Call.
type Result struct {
	Outputs []Tensor
	Seconds Seconds // of the row that took longest in each stage
}

// Infer runs a call.
func (s *Servable) Infer(ctx context.Context, c *Call) (*Result, error) {
	s.asked(ctx)
	inputs, err := s.byName(c.Inputs)
	if err != nil {
		return nil, err
	}
	rows, err := s.rows(inputs)
	if err != nil {
		return nil, err
	}
	for _, name := range c.Outputs {
		if indexOf(s.outputs, name) < 0 {
			return nil, Invalidf("model %s does not have an output %q", s.name, name)
		}
	}
	switch most := s.maxBatch(); {
	case rows < 1:
		return nil, Invalidf("the batch is empty")
	case c.CheckBatchSize && rows > most:
		return nil, Invalidf("the batch has %d rows: model %s takes at most %d", rows, s.name, most)
	case rows > s.limits.Windows:
		return nil, Invalidf("the batch has %d rows: there may be at most %d", rows, s.limits.Windows)
	}
	result, err := s.run(ctx, c, inputs, rows)
	if err == nil && len(c.Outputs) > 0 {
		result.Outputs = slices.DeleteFunc(result.Outputs, func(t Tensor) bool {
			return !slices.Contains(c.Outputs, t.Name)
		})
	}
	return result, err
}

// byName checks each input by itself and returns them by name.
func (s *Servable) byName(list []Tensor) (map[string]*Tensor, error) {
	inputs := make(map[string]*Tensor, len(list))
	for i := range list {
		t := &list[i]
		at := indexOf(s.inputs, t.Name)
		switch {
		case at < 0:
			return nil, Invalidf("model %s does not have an input %q", s.name, t.Name)
		case inputs[t.Name] != nil:
			return nil, Invalidf("input %q is given twice", t.Name)
		case t.Type != s.inputs[at].Type:
			return nil, Invalidf("input %q is %s: it must be %s", t.Name, t.Type, s.inputs[at].Type)
		case elements(t.Shape) < 0:
			return nil, Invalidf("input %q has the shape %v, which no tensor can have", t.Name, t.Shape)
		case elements(t.Shape) != t.len():
			return nil, Invalidf("input %q has the shape %v but %d elements", t.Name, t.Shape, t.len())
		}
		inputs[t.Name] = t
	}
	return inputs, nil
}

// rows checks the inputs against each other and returns the number of rows that each has.
func (s *Servable) rows(inputs map[string]*Tensor) (int, error) {
	rows := int64(-1)
	for _, info := range s.inputs {
		t := inputs[info.Name]
		if t == nil {
			if info.Optional {
				continue
			}
			return 0, Invalidf("input %q is missing", info.Name)
		}
		if !fits(t.Shape, info.Shape) {
			return 0, Invalidf("input %q has the shape %v: it must be %v, where -1 is any size",
				t.Name, t.Shape, info.Shape)
		}
		if rows >= 0 && t.Shape[0] != rows {
			return 0, Invalidf("input %q has %d rows, another input %d", t.Name, t.Shape[0], rows)
		}
		rows = t.Shape[0]
	}
	return int(rows), nil
}

// fits reports whether a tensor may have a shape where the model wants another: -1 is any size there, a
// column may come as a vector, and a vector as a column.
func fits(shape, want []int64) bool {
	if len(want) == 2 && want[1] == 1 && len(shape) == 1 || len(want) == 1 && len(shape) == 2 && shape[1] == 1 {
		return true
	}
	return slices.EqualFunc(shape, want, func(s, w int64) bool { return w < 0 || s == w })
}

// maxBatch returns the largest batch that the configuration allows.
func (s *Servable) maxBatch() int {
	if n := s.config.MaxBatchSize; n > 0 {
		return n
	}
	return s.limits.Windows
}

// runTensors runs rows of word pieces through the model.
func (m *Model) runTensors(ctx context.Context, c *Call, inputs map[string]*Tensor, rows int) (_ *Result, err error) {
	began := m.tensors.begin(ctx)
	var seconds Seconds
	defer func() { m.tensors.end(ctx, began, rows, seconds, err) }()

	as := make(map[string]*Tensor, len(inputs))
	for _, info := range m.backend.Inputs {
		as[info.as()] = inputs[info.Name]
	}
	features, length, err := m.features(as, rows)
	if err != nil {
		return nil, err
	}
	seconds.Tokenize = time.Since(began).Seconds()
	response, err := m.do(ctx, batch.Request{Features: features, Priority: c.Priority, Timeout: c.Timeout}, &seconds)
	if err != nil {
		return nil, err
	}
	seconds.Queue, seconds.Compute = response.Queue.Seconds(), response.Compute.Seconds()
	decoding := time.Now()
	outputs := []Tensor{}
	for _, info := range m.backend.Outputs {
		t := Tensor{Name: info.Name, Type: info.Type}
		switch info.as() {
		case startLogits, endLogits:
			t.Shape = []int64{int64(rows), int64(length)}
			t.Float32s = make([]float32, 0, rows*length)
			for _, r := range response.Results {
				logits := r.StartLogits
				if info.as() == endLogits {
					logits = r.EndLogits
				}
				if len(logits) != length {
					return nil, Errorf(codes.Internal, "the model made %d logits of %d positions", len(logits), length)
				}
				t.Float32s = append(t.Float32s, logits...)
			}
		case uniqueIDs:
			t.Shape = []int64{int64(rows)}
			if t.Int32s = make([]int32, rows); as[uniqueIDs] != nil {
				copy(t.Int32s, as[uniqueIDs].Int32s)
			}
		}
		outputs = append(outputs, t)
	}
	seconds.Decode = time.Since(decoding).Seconds()
	return &Result{outputs, seconds}, nil
}

// features returns checked tensors, by run_squad.py's names, as the model takes them.
func (m *Model) features(as map[string]*Tensor, rows int) (_ []squad.Feature, length int, err error) {
	ids, mask, segments := as[inputIDs], as[inputMask], as[segmentIDs]
	length = len(ids.Int32s) / rows
	if segments == nil { // which the model does not take
		segments = &Tensor{Int32s: make([]int32, len(ids.Int32s))}
	}
	for _, t := range []*Tensor{mask, segments} {
		if len(t.Int32s) != len(ids.Int32s) {
			return nil, 0, Invalidf("input %q has the shape %v, input %q %v: they must be the same",
				t.Name, t.Shape, ids.Name, ids.Shape)
		}
	}
	if length < 1 {
		return nil, 0, Invalidf("input %q has the shape %v: a sequence has at least one token", ids.Name, ids.Shape)
	}
	if err := m.backend.CheckLength(length); err != nil {
		return nil, 0, Invalidf("%v", err)
	}
	if err := checkIDs(ids, m.backend.Tokenizer.Vocab.Len()); err != nil {
		return nil, 0, err
	}
	if err := checkIDs(segments, m.backend.Segments); err != nil {
		return nil, 0, err
	}
	features := make([]squad.Feature, rows)
	for i := range features {
		from, to := i*length, (i+1)*length
		features[i] = squad.Feature{
			UniqueID: int32(i),
			InputIDs: ids.Int32s[from:to:to], InputMask: mask.Int32s[from:to:to], SegmentIDs: segments.Int32s[from:to:to],
			Len: length, // the client gets a logit for every position, whatever its mask is
		}
	}
	return features, length, nil
}

// checkIDs returns an error for an id that is not one of the model's n, which is 0 if it is unknown:
// TensorFlow fails the whole batch for one of them.
func checkIDs(t *Tensor, n int) error {
	for _, id := range t.Int32s {
		switch {
		case n > 0 && (id < 0 || int(id) >= n):
			return Invalidf("input %q holds %d: it must be from 0 to %d", t.Name, id, n-1)
		case id < 0:
			return Invalidf("input %q holds %d: it must not be negative", t.Name, id)
		}
	}
	return nil
}

// runText answers rows of questions.
func (m *Model) runText(ctx context.Context, c *Call, inputs map[string]*Tensor, rows int) (*Result, error) {
	questions := make([]*Question, rows)
	for i := range questions {
		questions[i] = &Question{
			Text: inputs[questionInput].Strings[i], Documents: []string{inputs[contextInput].Strings[i]},
			Priority: c.Priority, Timeout: c.Timeout, Decoder: m.defaults,
		}
	}
	answers, err := m.AnswerAll(ctx, questions)
	if err != nil {
		return nil, err
	}
	shape := []int64{int64(rows)}
	answer := Tensor{Name: answerOutput, Type: Bytes, Shape: shape}
	score := Tensor{Name: scoreOutput, Type: Float32, Shape: shape}
	start := Tensor{Name: startOutput, Type: Int32, Shape: shape}
	end := Tensor{Name: endOutput, Type: Int32, Shape: shape}
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
