package tfbert

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/wordpiece"
)

// Options say how a model is opened. nil takes everything from the files of the model.
type Options struct {
	Tags      []string            // of the graph; nil: {"serve"}, see ReadMapping
	Signature string              // "": "serving_default", see ReadMapping
	AllowOps  savedmodel.OpPolicy // the operations that the model may hold

	Precision Precision         // the type to compute in
	Config    savedmodel.Config // of the session; Precision, if set, replaces its MixedPrecision
	Device    string            // that the model runs on, as in savedmodel.Options

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
	mapping   *Mapping
	positions int // 0 if they are not known
	segments  int // rows of the segment embedding, 0 if they are not known
	trim      bool
	xla       bool
	shapes    shapes                     // with xla and trim
	last      atomic.Pointer[batchShape] // that ran with xla, or nil
}

var _ squad.Predictor = (*Model)(nil)

// Open loads a SavedModel that answers questions: one that Export wrote, or that of another exporter with
// a vocab.txt beside it or in Options. path leads to it as [savedmodel.Find] says. See [ReadMapping] for
// which can be asked.
func Open(path string, opts *Options) (*Model, error) {
	if opts == nil {
		opts = &Options{}
	}
	dir, _, err := savedmodel.Find(path)
	if err != nil {
		return nil, err
	}
	m := &Model{trim: opts.TrimPadding, xla: opts.Config.XLA}
	if m.settings, err = ReadSettings(dir); err != nil {
		return nil, err
	}
	if opts.Cased != nil {
		m.settings.DoLowerCase = !*opts.Cased
	}
	if opts.Profile != nil {
		m.settings.Profile = *opts.Profile
	}
	if m.mapping, err = ReadMapping(dir, opts); err != nil {
		return nil, err
	}
	if err := m.openTokenizer(dir, opts.VocabFile); err != nil {
		return nil, err
	}
	if m.choice, err = opts.Precision.chooseFor(dir, m.settings); err != nil {
		return nil, err
	}
	if m.settings.Int8 != nil {
		if err := tf.Load(""); err != nil {
			return nil, err
		}
		if err := m.settings.Int8.check(dir); err != nil {
			return nil, err
		}
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
	load := &savedmodel.Options{Tags: m.mapping.Tags, Config: config, AllowOps: opts.AllowOps, Device: opts.Device}
	if m.model, err = savedmodel.Load(dir, load); err != nil {
		return nil, err
	}
	if m.predict, err = m.mapping.bind(m.model); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), m.Close())
	}
	return m, nil
}

func (m *Model) openTokenizer(dir, vocabPath string) error {
	if vocabPath == "" {
		found, ok := beside(dir, vocabFile)
		if !ok {
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

// Close waits for the predictions under way and releases the model.
func (m *Model) Close() error { return m.model.Close() }

// Settings returns the choices of the model's export.
func (m *Model) Settings() Settings { return m.settings }

// Choice returns the type that the model computes in, and why it was chosen.
func (m *Model) Choice() Choice { return m.choice }

// Precision reports in which types the model really computes, as [savedmodel.Func.Precision] does.
func (m *Model) Precision(ctx context.Context) (*savedmodel.PrecisionReport, error) {
	// oneDNN has other kernels for one row, which real runs do not use.
	rows, length := m.mapping.Batch, m.mapping.Length
	if rows < 0 {
		rows = 2
	}
	if length < 0 {
		length = 2
	}
	if m.xla {
		shape := m.compiledShape()
		rows, length = int64(shape.rows), int64(shape.length)
	}
	zeros := make([]int32, length)
	window := squad.Feature{InputIDs: zeros, InputMask: zeros, SegmentIDs: zeros}
	in, err := m.mapping.feeds([]squad.Feature{window}, int(rows), int(length))
	defer tf.CloseAll(in)
	if err != nil {
		return nil, err
	}
	return m.predict.Precision(ctx, in...)
}

// RequirePrecision runs the model once, and returns a [*savedmodel.PrecisionError] if nothing in it runs in the
// precision of Choice.
func (m *Model) RequirePrecision(ctx context.Context) error {
	report, err := m.Precision(ctx)
	if err != nil {
		return err
	}
	return report.Require(m.choice.Precision)
}

// compiledShape returns the shape of the last batch or else one that batches are likely to have: for one of its own,
// XLA would compile the graph once more.
func (m *Model) compiledShape() batchShape {
	if last := m.last.Load(); last != nil {
		return *last
	}
	length := m.SeqLength()
	if m.trim && m.mapping.Length < 0 {
		length = min(length, bucketSize)
	}
	return m.shape(8, length, length)
}

// shape returns the shape of a batch of windows that are cut at a length, and that can be filled up to the longest.
func (m *Model) shape(windows, length, longest int) batchShape {
	shape := batchShape{windows, length}
	if m.mapping.Batch > 0 {
		shape.rows = int(m.mapping.Batch)
	}
	if m.xla && m.trim && m.mapping.Length < 0 {
		shape = m.shapes.choose(shape, longest, m.mapping.Batch > 0)
	}
	return shape
}

// TypeVocabSize returns the number of segments that the model tells apart, or 0 if it is not known.
func (m *Model) TypeVocabSize() int { return m.segments }

// Mapping returns how the model is asked.
func (m *Model) Mapping() *Mapping { return m.mapping }

// SavedModel returns the model underneath.
func (m *Model) SavedModel() *savedmodel.Model { return m.model }

// Tokenizer returns the model's tokenizer.
func (m *Model) Tokenizer() *wordpiece.Tokenizer { return &m.tokenizer }

// SeqLength returns the sequence length to use by default: the one length that the model takes, or else
// squad.DefaultMaxSeqLength, or the number of the model's positions if that is less.
func (m *Model) SeqLength() int {
	switch {
	case m.mapping.Length > 0:
		return int(m.mapping.Length)
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
	if m.trim && m.mapping.Length < 0 {
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
	case m.mapping.Length >= 0 && int64(length) != m.mapping.Length:
		return &LengthError{Length: length, Fixed: int(m.mapping.Length)}
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
	if m.trim && m.mapping.Length < 0 {
		longest := 0
		for i := range features {
			longest = max(longest, features[i].Len)
		}
		// Vector units like multiples of 8, and TensorFlow prepares for every shape it meets.
		length = min(length, (longest+7)&^7)
	}
	results := make([]squad.RawResult, 0, len(features))
	for rest := features; len(rest) > 0; {
		batch := rest
		if n := m.mapping.Batch; n > 0 {
			batch = rest[:min(len(rest), int(n))]
		}
		var err error
		shape := m.shape(len(batch), length, len(features[0].InputIDs))
		if results, err = m.run(ctx, results, batch, shape); err != nil {
			return nil, err
		}
		rest = rest[len(batch):]
	}
	return results, nil
}

// run appends the results of one batch, which is filled up to a shape.
func (m *Model) run(
	ctx context.Context, results []squad.RawResult, features []squad.Feature, shape batchShape,
) ([]squad.RawResult, error) {
	rows, length := shape.rows, shape.length
	in, err := m.mapping.feeds(features, rows, length)
	defer tf.CloseAll(in)
	if err != nil {
		return nil, err
	}
	out, err := m.predict.Run(ctx, in...)
	if err != nil {
		return nil, fmt.Errorf("predict: %w", err)
	}
	if m.xla {
		m.last.Store(&shape)
	}
	defer tf.CloseAll(out)
	start, end, err := m.mapping.logits(out, rows, length)
	if err != nil {
		return nil, fmt.Errorf("predict: %w", err)
	}
	for i := range features {
		from, to := i*length, (i+1)*length
		if m.trim { // so that the other windows of the batch do not matter
			to = from + features[i].Len
		}
		results = append(results, squad.RawResult{
			UniqueID: features[i].UniqueID, StartLogits: start[from:to:to], EndLogits: end[from:to:to],
		})
	}
	return results, nil
}
