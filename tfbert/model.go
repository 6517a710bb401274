package tfbert

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/wordpiece"
)

// Options say how a model is opened. nil takes everything from the files of the model.
type Options struct {
	Tags      []string            // nil: {"serve"}
	Signature string              // "": "serving_default"
	AllowOps  savedmodel.OpPolicy // the operations that the model may hold

	Precision Precision         // the type to compute in
	Config    savedmodel.Config // of the session; Precision, if set, replaces its MixedPrecision

	VocabFile string             // "": the one beside the model
	Cased     *bool              // nil: as in the settings of the model
	Profile   *wordpiece.Profile // nil: as in the settings of the model

	// TrimPadding cuts each batch at the end of its longest window, if the model's sequence length is
	// dynamic, and the logits of each window at its end. It saves time, above all when windows are
	// batched by length, as Answerer then does. The n-best lists are not always those of the scripts,
	// which also rank positions of padding: these can leave no place to those of a short passage.
	TrimPadding bool
}

// Model is a SavedModel of a BERT that answers questions, with its tokenizer. It is a squad.Predictor
// and may be used from many goroutines at once.
type Model struct {
	settings  Settings
	choice    Choice
	tokenizer wordpiece.Tokenizer
	model     *savedmodel.Model
	predict   *savedmodel.Func
	length    int64 // -1 if it is dynamic
	positions int   // 0 if they are not known
	segments  int   // rows of the segment embedding, 0 if they are not known
	trim      bool
}

var _ squad.Predictor = (*Model)(nil)

// Open loads a SavedModel with the signature of NVIDIA's export: one that Export wrote, or any other with
// a vocab.txt beside it or in Options. path leads to it as [savedmodel.Find] says.
func Open(path string, opts *Options) (*Model, error) {
	if opts == nil {
		opts = &Options{}
	}
	dir, _, err := savedmodel.Find(path)
	if err != nil {
		return nil, err
	}
	m := &Model{trim: opts.TrimPadding}
	if m.settings, err = ReadSettings(dir); err != nil {
		return nil, err
	}
	if opts.Cased != nil {
		m.settings.DoLowerCase = !*opts.Cased
	}
	if opts.Profile != nil {
		m.settings.Profile = *opts.Profile
	}
	if err := m.openTokenizer(dir, opts.VocabFile); err != nil {
		return nil, err
	}
	if m.choice, err = opts.Precision.chooseFor(dir, m.settings); err != nil {
		return nil, err
	}
	config := opts.Config
	switch {
	case m.settings.Graph == FusedGraph:
		if opts.Precision != DefaultPrecision {
			config.MixedPrecision = savedmodel.FP32
		}
	case opts.Precision == DefaultPrecision:
		m.choice.Precision = config.MixedPrecision
	default:
		config.MixedPrecision = m.choice.Precision
	}
	if m.settings.Graph == FusedGraph && config.MixedPrecision == savedmodel.FP32 {
		config.NoGrappler = true // nothing is left to fuse, and its weights are constants
	}
	load := &savedmodel.Options{Tags: opts.Tags, Config: config, AllowOps: opts.AllowOps}
	if m.model, err = savedmodel.Load(dir, load); err != nil {
		return nil, err
	}
	if err := m.bind(cmp.Or(opts.Signature, savedmodel.DefaultSignature)); err != nil {
		err = fmt.Errorf("%s does not answer questions as NVIDIA's export does: %w", dir, err)
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Model) openTokenizer(dir, vocabPath string) error {
	if vocabPath == "" {
		found, ok := beside(dir, vocabFile)
		if !ok {
			if _, err := savedmodel.Inspect(dir); err != nil {
				return err // nothing is missing beside a folder that is not a model
			}
			return noFileBeside(dir, vocabFile)
		}
		vocabPath = found
	}
	vocab, err := readVocabFile(vocabPath, m.settings.Profile)
	if err != nil {
		return err
	}
	m.tokenizer = wordpiece.Tokenizer{Vocab: vocab, Cased: !m.settings.DoLowerCase, Profile: m.settings.Profile}
	if path, ok := beside(dir, configFile); ok {
		config, err := readConfigFile(path)
		if err != nil {
			return err
		}
		m.positions, m.segments = config.MaxPositionEmbeddings, config.TypeVocabSize
		return checkVocab(vocabPath, vocab, config)
	}
	return nil
}

// bind finds the inputs and outputs of the signature. unique_ids is fed if the signature has it, and
// never fetched: results are in the order of the features.
func (m *Model) bind(signature string) error {
	meta := m.model.MetaGraph()
	s, err := meta.Signature(signature)
	if err != nil {
		return err
	}
	inputs := []string{inputIDs, inputMask, segmentIDs}
	for _, key := range inputs {
		info, err := s.Input(key)
		if err != nil {
			return err
		}
		if info.DType != tf.Int32 || len(info.Shape) != 2 {
			return fmt.Errorf("signature %q takes %v, not int32 [?,length]", signature, info)
		}
		m.length = info.Shape[1]
	}
	if _, err := s.Input(uniqueIDs); err == nil {
		inputs = append(inputs, uniqueIDs)
	}
	outputs := []string{startLogits, endLogits}
	for _, key := range outputs {
		info, err := s.Output(key)
		if err != nil {
			return err
		}
		if info.DType != tf.Float {
			return fmt.Errorf("signature %q returns %v, not float32 [?,length]", signature, info)
		}
	}
	m.predict, err = m.model.Func(signature, inputs, outputs)
	return err
}

// Close waits for the predictions under way and releases the model.
func (m *Model) Close() error { return m.model.Close() }

// Settings returns the choices of the model's export.
func (m *Model) Settings() Settings { return m.settings }

// Choice returns the type that the model computes in, and why it was chosen.
func (m *Model) Choice() Choice { return m.choice }

// Precision reports in which types the model really computes, as [savedmodel.Func.Precision] does.
func (m *Model) Precision(ctx context.Context) (*savedmodel.PrecisionReport, error) {
	return m.predict.Precision(ctx)
}

// TypeVocabSize returns the number of segments that the model tells apart, or 0 if it is not known.
func (m *Model) TypeVocabSize() int { return m.segments }

// SavedModel returns the model underneath.
func (m *Model) SavedModel() *savedmodel.Model { return m.model }

// Tokenizer returns the model's tokenizer.
func (m *Model) Tokenizer() *wordpiece.Tokenizer { return &m.tokenizer }

// SeqLength returns the sequence length to use by default: the one length that the model takes, or else
// squad.DefaultMaxSeqLength, or the number of the model's positions if that is less.
func (m *Model) SeqLength() int {
	switch {
	case m.length > 0:
		return int(m.length)
	case m.positions > 0:
		return min(squad.DefaultMaxSeqLength, m.positions)
	}
	return squad.DefaultMaxSeqLength
}

// Answerer returns an Answerer with this model, whose fields may be changed before use. It answers as
// run_squad.py does by default, except for what TrimPadding changes.
func (m *Model) Answerer() *squad.Answerer {
	a := &squad.Answerer{
		Featurizer: squad.Featurizer{Tokenizer: &m.tokenizer, MaxSeqLength: m.SeqLength()},
		Predictor:  m,
	}
	if m.trim && m.length < 0 {
		a.Lookahead = lookahead
	}
	return a
}

// lookahead leaves 0.2 % of padding in batches of 8 of SQuAD 1.1's dev set at 384, and 1.4 % in batches
// of 64, before lengths are rounded up; in file order there are 21 % and 63 %.
const lookahead = 4096

// CheckLength returns a [*LengthError] if the model cannot take sequences of a length.
func (m *Model) CheckLength(length int) error {
	switch {
	case m.length >= 0 && int64(length) != m.length:
		return &LengthError{Length: length, Fixed: int(m.length)}
	case m.positions > 0 && length > m.positions:
		return &LengthError{Length: length, Most: m.positions}
	}
	return nil
}

// Predict runs the model over features of one length, as one batch.
func (m *Model) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	if len(features) == 0 {
		return nil, ctx.Err()
	}
	length := len(features[0].InputIDs)
	if err := m.CheckLength(length); err != nil {
		return nil, err
	}
	if m.trim && m.length < 0 {
		longest := 0
		for i := range features {
			longest = max(longest, features[i].Len)
		}
		// Vector units like multiples of 8, and TensorFlow prepares for every shape it meets.
		length = min(length, (longest+7)&^7)
	}
	in, err := feeds(features, length)
	defer tf.CloseAll(in)
	if err != nil {
		return nil, err
	}
	out, err := m.predict.Run(ctx, in[:m.predict.NumInputs()]...)
	if err != nil {
		return nil, fmt.Errorf("predict: %w", err)
	}
	defer tf.CloseAll(out)
	start, err := logits(out[0], len(features), length)
	if err != nil {
		return nil, err
	}
	end, err := logits(out[1], len(features), length)
	if err != nil {
		return nil, err
	}
	results := make([]squad.RawResult, len(features))
	for i := range results {
		from, to := i*length, (i+1)*length
		if m.trim { // so that the other windows of the batch do not matter
			to = from + features[i].Len
		}
		results[i] = squad.RawResult{
			UniqueID: features[i].UniqueID, StartLogits: start[from:to:to], EndLogits: end[from:to:to],
		}
	}
	return results, nil
}

// feeds makes the four tensors of a batch, in the order in which bind has the inputs.
func feeds(features []squad.Feature, length int) ([]*tf.Tensor, error) {
	n := len(features)
	unique := make([]int32, 0, n)
	ids, mask, segments := make([]int32, 0, n*length), make([]int32, 0, n*length), make([]int32, 0, n*length)
	first := len(features[0].InputIDs)
	for i := range features {
		f := &features[i]
		if n := len(f.InputIDs); n != first || len(f.InputMask) != n || len(f.SegmentIDs) != n {
			return nil, fmt.Errorf("predict: feature %d is %d long, the first of its batch %d", f.UniqueID, n, first)
		}
		unique = append(unique, f.UniqueID)
		ids = append(ids, f.InputIDs[:length]...)
		mask = append(mask, f.InputMask[:length]...)
		segments = append(segments, f.SegmentIDs[:length]...)
	}
	var tensors []*tf.Tensor
	matrix := tf.Shape{int64(n), int64(length)}
	for _, in := range []struct {
		shape  tf.Shape
		values []int32
	}{{matrix, ids}, {matrix, mask}, {matrix, segments}, {tf.Shape{int64(n)}, unique}} {
		t, err := tf.NewTensor(in.shape, in.values)
		if err != nil {
			return tensors, err
		}
		tensors = append(tensors, t)
	}
	return tensors, nil
}

func logits(t *tf.Tensor, n, length int) ([]float32, error) {
	if want := (tf.Shape{int64(n), int64(length)}); !want.Compatible(t.Shape()) {
		return nil, fmt.Errorf("predict: the model returns logits of shape %v, not %v", t.Shape(), want)
	}
	return tf.Values[float32](t)
}
