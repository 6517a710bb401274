package tfbert

import (
	"bytes"
	"cmp"
	"context"
	_ "embed" // calibration.json
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/probe"
	"github.com/tfbert/go/internal/quantize"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/wordpiece"
)

// calibrationSet is a small SQuAD file. The ranges of a model's numbers depend little on what a text is about.
//
//go:embed calibration.json
var calibrationSet []byte

// The bounds of a calibration, which keep its memory small whatever the file is.
const (
	calibrationTokens = 1 << 16 // of all windows, at most
	batchTokens       = 1024    // of a batch with its padding, at most
	sampledRows       = 1024    // of each product, which its errors are measured on, at most
)

// Calibration says which text an int8 model's ranges come from.
type Calibration struct {
	File    string `json:"file"` // "" if it is the set that comes with the package
	Windows int    `json:"windows"`
	Tokens  int    `json:"tokens"`
}

// calibrator runs the float32 graph over windows, one layer after another, and quantizes the layers.
type calibrator struct {
	ctx       context.Context
	config    *Config
	ops       string
	batches   []*windowBatch
	tokens    int
	quantizer quantize.Quantizer
	step      func()
}

// windowBatch is windows that run together, and the rows that the layers so far have made of them.
type windowBatch struct {
	shape               tf.Shape
	ids, mask, segments []int32
	x                   []float32
}

// readWindows reads the windows of a SQuAD file. Of more than are needed it takes some, evenly.
func readWindows(
	open func() (io.ReadCloser, error), f *squad.Featurizer,
) (windows []squad.Feature, tokens int, err error) {
	each := func(visit func(f *squad.Feature)) error {
		r, err := open()
		if err != nil {
			return err
		}
		defer r.Close()
		for feature, err := range f.Features(squad.Examples(r)) {
			if err != nil {
				return err
			}
			visit(feature)
		}
		return nil
	}
	all := 0
	if err := each(func(f *squad.Feature) { all += f.Len }); err != nil {
		return nil, 0, err
	}
	every, at := (all+calibrationTokens-1)/calibrationTokens, 0
	err = each(func(f *squad.Feature) {
		if at%every == 0 {
			windows, tokens = append(windows, *f), tokens+f.Len
		}
		at++
	})
	if err == nil && len(windows) == 0 {
		err = errors.New("no windows: it does not have questions about passages")
	}
	return windows, tokens, err
}

// batchWindows batches windows by length.
func batchWindows(windows []squad.Feature) (batches []*windowBatch) {
	windows = slices.Clone(windows)
	slices.SortStableFunc(windows, func(a, b squad.Feature) int { return cmp.Compare(b.Len, a.Len) })
	for len(windows) > 0 {
		length := windows[0].Len
		n := min(max(batchTokens/length, 1), len(windows))
		b := &windowBatch{shape: tf.Shape{int64(n), int64(length)}}
		for i := range windows[:n] {
			b.ids = append(b.ids, windows[i].InputIDs[:length]...)
			b.mask = append(b.mask, windows[i].InputMask[:length]...)
			b.segments = append(b.segments, windows[i].SegmentIDs[:length]...)
		}
		batches, windows = append(batches, b), windows[n:]
	}
	return batches
}

// weightCache reads each weight once.
type weightCache struct {
	from weightReader
	read map[string][]float32
	keep func(name string) bool // nil: all
}

func (w *weightCache) Float32s(name string) ([]float32, error) {
	if v, ok := w.read[name]; ok {
		return v, nil
	}
	v, err := w.from.Float32s(name)
	if err == nil && (w.keep == nil || w.keep(name)) {
		w.read[name] = v
	}
	return v, err
}

// calibrate quantizes the layers of a model. It returns the layers and, of the weights that it has read, those that
// the graph still needs.
func calibrate(
	ctx context.Context, weights *countingReader, opts *ExportOptions, s *Settings,
) (layers []int8Layer, norms weightReader, err error) {
	c := weights.config
	name, open := "", func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(calibrationSet)), nil }
	if opts.Calibrate != "" {
		name, open = opts.Calibrate, func() (io.ReadCloser, error) { return file.OpenText(opts.Calibrate) }
	}
	vocab, err := readVocabFile(weights.vocabPath, s.Profile)
	if err != nil {
		return nil, nil, err
	}
	length := cmp.Or(s.MaxSeqLength, min(squad.DefaultMaxSeqLength, c.MaxPositionEmbeddings))
	windows, tokens, err := readWindows(open, &squad.Featurizer{
		Tokenizer:    &wordpiece.Tokenizer{Vocab: vocab, Cased: !s.DoLowerCase, Profile: s.Profile},
		MaxSeqLength: length, MaxQueryLength: max(min(squad.DefaultMaxQueryLength, length/2), 1),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("calibrate by %s: %w", cmp.Or(name, "the bundled set"), err)
	}
	s.Int8.Calibration = Calibration{Windows: len(windows), Tokens: tokens}
	if name != "" {
		s.Int8.Calibration.File = filepath.Base(name)
	}

	products, err := newMultiplier(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, products.Close()) }()
	done, total := 0, c.NumHiddenLayers*len(productNames)
	k := &calibrator{
		ctx: ctx, config: c, ops: chooseOps(CPU, savedmodel.FP32),
		batches: batchWindows(windows), tokens: tokens,
		quantizer: quantize.Quantizer{Bits: s.Int8.WeightBits, MatMul: products.MatMul},
		step: func() {
			if done++; opts.Progress != nil {
				opts.Progress(done, total)
			}
		},
	}
	if err := k.embed(weights.source); err != nil {
		return nil, nil, err
	}
	isNorm := func(name string) bool { return strings.Contains(name, "/LayerNorm/") }
	norms = &weightCache{from: weights, read: map[string][]float32{}, keep: isNorm}
	for n := range c.NumHiddenLayers {
		all := &weightCache{from: norms, read: map[string][]float32{}}
		l, err := k.layer(n, all)
		if err != nil {
			return nil, nil, fmt.Errorf("layer %d: %w", n, err)
		}
		layers = append(layers, *l)
	}
	return layers, norms, nil
}

// embed runs the embeddings.
func (k *calibrator) embed(weights weightReader) error {
	return k.run(weights, func(b *fused, in *calibratorInputs) []tf.Output {
		return []tf.Output{b.embeddings(in.ids, in.segments)}
	}, func(_ *windowBatch, _ [][]float32) {})
}

// layer runs a layer and quantizes it.
func (k *calibrator) layer(n int, weights weightReader) (*int8Layer, error) {
	scope := layerScope(n)
	h, i := k.config.HiddenSize, k.config.IntermediateSize
	var samples []*quantize.Sample
	for _, channels := range []int{h, h, h, i} {
		samples = append(samples, quantize.NewSample(channels))
	}
	every, at := (k.tokens+sampledRows-1)/sampledRows, 0
	err := k.run(weights, func(b *fused, in *calibratorInputs) []tf.Output {
		x := b.op("Identity", "x", nil, in.rows) // which can be fetched, what is fed cannot
		return append([]tf.Output{b.layer(scope, x, b.maskAdder(in.mask))}, b.multiplied...)
	}, func(w *windowBatch, inputs [][]float32) {
		for row, real := range w.mask {
			if real == 0 {
				continue
			}
			for p, s := range samples {
				width := len(s.Low)
				s.Add(inputs[p][row*width:(row+1)*width], at%every == 0)
			}
			at++
		}
	})
	if err != nil {
		return nil, err
	}
	for p, s := range samples {
		if err := s.Check(); err != nil {
			return nil, fmt.Errorf("the input of the %s product: %w", productNames[p], err)
		}
	}
	return k.quantize(scope, samples, weights)
}

// productNames are the products of a layer.
var productNames = []string{"qkv", "context", "intermediate", "output"}

// quantize chooses the integers of a layer's products.
func (k *calibrator) quantize(scope string, x []*quantize.Sample, weights weightReader) (*int8Layer, error) {
	h, i := k.config.HiddenSize, k.config.IntermediateSize
	q := &k.quantizer
	dense := func(scope string, rows, columns int) (quantize.Matrix, []float32, error) {
		kernel, err1 := weights.Float32s(scope + "/kernel")
		bias, err2 := weights.Float32s(scope + "/bias")
		return quantize.Matrix{Rows: rows, Columns: columns, Data: kernel}, bias, errors.Join(err1, err2)
	}
	l := &int8Layer{}

	// The context first: its shift and scale go into the values.
	kernel, bias, err := dense(scope+"/attention/output/dense", h, h)
	if err != nil {
		return nil, err
	}
	var fold *quantize.Fold
	if l.context, fold, err = q.Fold(x[1], kernel, bias); err != nil {
		return nil, err
	}
	k.step()

	joined, err1 := sideBySide(k.config, weights, scope+"/attention/self", "/kernel")
	bias, err2 := sideBySide(k.config, weights, scope+"/attention/self", "/bias")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	kernel = quantize.Matrix{Rows: h, Columns: 3 * h, Data: joined}
	fold.Divide(kernel, bias, 2*h)
	if l.qkv, l.qkvFold, err = q.Fold(x[0], kernel, bias); err != nil {
		return nil, err
	}
	k.step()

	if kernel, bias, err = dense(scope+"/intermediate/dense", h, i); err != nil {
		return nil, err
	}
	if l.intermediate, l.intermediateFold, err = q.Fold(x[2], kernel, bias); err != nil {
		return nil, err
	}
	k.step()

	if kernel, bias, err = dense(scope+"/output/dense", i, h); err != nil {
		return nil, err
	}
	var copies []quantize.Copy
	if l.output, copies, err = q.Split(x[3], kernel, bias, splittable[k.config.activation()]); err != nil {
		return nil, err
	}
	l.intermediate.AppendCopies(copies)
	k.step()
	return l, nil
}

// splittable are the activations that return large numbers as they are and negative ones as about 0.
var splittable = map[string]func(float32) float32{
	relu: func(v float32) float32 { return max(v, 0) },
	geluTanh: func(v float32) float32 {
		x := float64(v)
		return float32(x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))))
	},
	geluErf: func(v float32) float32 { x := float64(v); return float32(x / 2 * (1 + math.Erf(x/math.Sqrt2))) },
}

// calibratorInputs are the placeholders of a graph that run makes.
type calibratorInputs struct{ rows, ids, mask, segments tf.Output }

// run runs a part of the float32 graph over the batches. The first output becomes their rows; visit gets the others.
func (k *calibrator) run(
	weights weightReader, build func(b *fused, in *calibratorInputs) []tf.Output,
	visit func(w *windowBatch, others [][]float32),
) (err error) {
	g, err := tf.NewGraph()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	b := &fused{
		graphBuilder: graphBuilder{tf.Builder{Graph: g}, k.config}, weights: weights, dtype: tf.Float, ops: k.ops,
	}
	in := &calibratorInputs{}
	in.ids, in.mask, in.segments, b.batch, b.length = b.inputs(0)
	in.rows = b.op("Placeholder", "rows", attrs{"dtype": tf.Float, "shape": tf.Shape{-1, int64(k.config.HiddenSize)}})
	outputs := build(b, in)
	return b.withSession(func(session *tf.Session, constants []tf.Feed) error {
		for _, w := range k.batches {
			if err := k.runBatch(session, constants, in, w, outputs, visit); err != nil {
				return err
			}
		}
		return nil
	})
}

func (k *calibrator) runBatch(
	session *tf.Session, constants []tf.Feed, in *calibratorInputs, w *windowBatch, outputs []tf.Output,
	visit func(w *windowBatch, others [][]float32),
) (err error) {
	var feeds []tf.Feed
	defer func() { closeFeeds(&err, feeds) }()
	for _, input := range []struct {
		output tf.Output
		values []int32
	}{{in.ids, w.ids}, {in.mask, w.mask}, {in.segments, w.segments}} {
		t, err := tf.NewTensor(w.shape, input.values)
		if err != nil {
			return err
		}
		feeds = append(feeds, tf.Feed{Output: input.output, Tensor: t})
	}
	if w.x != nil {
		t, err := tf.NewTensor(tf.Shape{int64(len(w.ids)), int64(k.config.HiddenSize)}, w.x)
		if err != nil {
			return err
		}
		feeds = append(feeds, tf.Feed{Output: in.rows, Tensor: t})
	}
	out, _, err := session.Run(k.ctx, slices.Concat(constants, feeds), outputs, nil)
	if err != nil {
		return err
	}
	defer tf.CloseAll(out)
	values := make([][]float32, len(out))
	for i, t := range out {
		if values[i], err = tf.Values[float32](t); err != nil {
			return err
		}
	}
	w.x = values[0]
	visit(w, values[1:])
	return nil
}

// multiplier multiplies matrices by TensorFlow.
type multiplier struct {
	ctx           context.Context
	graph         *tf.Graph
	session       *tf.Session
	a, b, product tf.Output
}

func newMultiplier(ctx context.Context) (_ *multiplier, err error) {
	g, err := tf.NewGraph()
	if err != nil {
		return nil, err
	}
	m := &multiplier{ctx: ctx, graph: g}
	b := &tf.Builder{Graph: g}
	matrix := map[string]tf.Attr{"dtype": tf.Float, "shape": tf.Shape{-1, -1}}
	m.a = b.Add(tf.OpSpec{Type: "Placeholder", Name: "a", Attrs: matrix})
	m.b = b.Add(tf.OpSpec{Type: "Placeholder", Name: "b", Attrs: matrix})
	m.product = b.Add(tf.OpSpec{Type: "MatMul", Name: "product", Inputs: []tf.Input{m.a, m.b}})
	if b.Err != nil {
		return nil, errors.Join(b.Err, g.Close())
	}
	if m.session, err = probe.NewSession(g); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return m, nil
}

func (m *multiplier) Close() error { return errors.Join(m.session.Close(), m.graph.Close()) }

func (m *multiplier) MatMul(x, y quantize.Matrix) (product quantize.Matrix, err error) {
	var feeds []tf.Feed
	defer func() { closeFeeds(&err, feeds) }()
	for _, f := range []struct {
		output tf.Output
		matrix quantize.Matrix
	}{{m.a, x}, {m.b, y}} {
		t, err := tf.NewTensor(tf.Shape{int64(f.matrix.Rows), int64(f.matrix.Columns)}, f.matrix.Data)
		if err != nil {
			return product, err
		}
		feeds = append(feeds, tf.Feed{Output: f.output, Tensor: t})
	}
	out, _, err := m.session.Run(m.ctx, feeds, []tf.Output{m.product}, nil)
	if err != nil {
		return product, err
	}
	defer tf.CloseAll(out)
	values, err := tf.Values[float32](out[0])
	return quantize.Matrix{Rows: x.Rows, Columns: y.Columns, Data: values}, err
}

// closeFeeds closes the tensors of feeds and joins their errors to the one of the function that defers it.
func closeFeeds(err *error, feeds []tf.Feed) {
	for _, f := range feeds {
		*err = errors.Join(*err, f.Tensor.Close())
	}
}
