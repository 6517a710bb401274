package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tfbert"
	"github.com/tfbert/go/wordpiece"
)

// tokenizerFlags choose a tokenizer.
type tokenizerFlags struct {
	vocabFile   string
	doLowerCase bool
	profile     profileValue
}

func (f *tokenizerFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.vocabFile, "vocab_file", "", "vocabulary of the model (`vocab.txt`)")
	flags.BoolVar(&f.doLowerCase, "do_lower_case", true, "lower-case the text: true for an uncased model")
	flags.Var(&f.profile, "profile", "`version` of the scripts to tokenize as: nvidia-19.03, google or nvidia-20.06")
}

func (f *tokenizerFlags) tokenizer() (*wordpiece.Tokenizer, error) {
	if f.vocabFile == "" {
		return nil, usagef("--vocab_file is required")
	}
	vocab, err := file.Parse(f.vocabFile, f.profile.ReadVocab)
	if err != nil {
		return nil, err
	}
	return &wordpiece.Tokenizer{Vocab: vocab, Cased: !f.doLowerCase, Profile: f.profile.Profile}, nil
}

// featurizer makes features with the tokenizer.
func (f *tokenizerFlags) featurizer(windows *featureFlags) (squad.Featurizer, error) {
	t, err := f.tokenizer()
	if err != nil {
		return squad.Featurizer{}, err
	}
	return windows.featurizer(t)
}

// profileValue is a wordpiece.Profile as a flag.
type profileValue struct{ wordpiece.Profile }

func (v *profileValue) Set(s string) error { return v.UnmarshalText([]byte(s)) }
func (v *profileValue) Type() string       { return "profile" }

// featureFlags cut a data set into windows.
type featureFlags struct {
	predictFile                             string
	maxSeqLength, docStride, maxQueryLength int
	numEvalIterations, predictBatchSize     int
}

func (f *featureFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.predictFile, "predict_file", "", "SQuAD `file` with the questions")
	f.addWindow(flags)
	flags.IntVar(&f.predictBatchSize, "predict_batch_size", 8, "windows of a batch")
	flags.IntVar(&f.numEvalIterations, "num_eval_iterations", 0,
		"take only the first N times --predict_batch_size questions (0: all)")
}

func (f *featureFlags) addWindow(flags *pflag.FlagSet) {
	flags.IntVar(&f.maxSeqLength, "max_seq_length", squad.DefaultMaxSeqLength,
		"word pieces of a window, with question and markers")
	flags.IntVar(&f.docStride, "doc_stride", squad.DefaultDocStride, "word pieces from one window to the next")
	flags.IntVar(&f.maxQueryLength, "max_query_length", squad.DefaultMaxQueryLength,
		"word pieces of a question that are kept")
}

func (f *featureFlags) featurizer(t *wordpiece.Tokenizer) (squad.Featurizer, error) {
	if f.maxSeqLength <= 0 || f.docStride <= 0 || f.maxQueryLength <= 0 {
		return squad.Featurizer{}, usagef("--max_seq_length, --doc_stride and --max_query_length must be positive")
	}
	s := squad.Featurizer{
		Tokenizer: t, MaxSeqLength: f.maxSeqLength, DocStride: f.docStride, MaxQueryLength: f.maxQueryLength,
	}
	return s, s.Check()
}

func (f *featureFlags) check() error {
	switch {
	case f.predictFile == "":
		return usagef("--predict_file is required")
	case f.predictBatchSize <= 0:
		return usagef("--predict_batch_size must be positive")
	case f.numEvalIterations < 0:
		return usagef("--num_eval_iterations must not be negative")
	}
	return nil
}

// decoderFlags rank the answers.
type decoderFlags struct{ squad.Decoder }

func (f *decoderFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&f.NBestSize, "n_best_size", squad.DefaultNBestSize, "answers in the n-best list")
	flags.IntVar(&f.MaxAnswerLength, "max_answer_length", squad.DefaultMaxAnswerLength,
		"word pieces of an answer, at most")
	flags.BoolVar(&f.WithNegative, "version_2_with_negative", false, "questions may have no answer (SQuAD 2.0)")
	flags.Float64Var(&f.NullScoreDiffThreshold, "null_score_diff_threshold", 0,
		"answer nothing if that scores more than this above the best text")
}

func (f *decoderFlags) check() error {
	if f.NBestSize <= 0 || f.MaxAnswerLength <= 0 {
		return usagef("--n_best_size and --max_answer_length must be positive")
	}
	return f.Decoder.Check()
}

// signatureFlags choose what of a SavedModel is asked.
type signatureFlags struct {
	tags      []string
	signature string
}

func (f *signatureFlags) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.tags, "tags", nil, "`tags` of the SavedModel's graph, as in serve,gpu (default: serve)")
	flags.StringVar(&f.signature, "signature", "",
		"`name` of the SavedModel's signature that answers questions (default: serving_default)")
}

// set sets the options that the flags are.
func (f *signatureFlags) set(opts *tfbert.Options) { opts.Tags, opts.Signature = f.tags, f.signature }

// given reports whether one of the flags was set.
func (f *signatureFlags) given() bool { return f.tags != nil || f.signature != "" }

// modelFlags open a model.
type modelFlags struct {
	model                          string
	signature                      signatureFlags
	initCheckpoint, bertConfigFile string
	head                           string
	tokenizer                      tokenizerFlags
	session                        sessionFlags
	precision                      precisionFlags
	allowOps                       opsValue
	trimPadding                    bool
}

func (f *modelFlags) add(flags *pflag.FlagSet) {
	f.addSource(flags)
	f.addTokenizer(flags)
	f.precision.add(flags)
	f.session.add(flags)
	f.allowOps.add(flags)
}

func (f *modelFlags) addSource(flags *pflag.FlagSet) {
	flags.StringVar(&f.model, "model", "",
		"SavedModel `directory`, as 'tfbert export' writes it, or the name of a pulled model")
	f.signature.add(flags)
	flags.StringVar(&f.initCheckpoint, "init_checkpoint", "",
		"`checkpoint` to use in place of --model; the first use exports it into the user's cache")
	flags.StringVar(&f.bertConfigFile, "bert_config_file", "",
		"configuration `file` of --init_checkpoint (default: bert_config.json beside it)")
	flags.StringVar(&f.head, "head", "",
		"`name` of the layer of --init_checkpoint that answers questions, if it has several that could")
}

// addTokenizer adds the flags of the tokenizer, which the model has settings for.
func (f *modelFlags) addTokenizer(flags *pflag.FlagSet) {
	f.tokenizer.add(flags)
	for name, usage := range map[string]string{
		"vocab_file":    "vocabulary `file` in place of the model's own",
		"do_lower_case": "lower-case the text, in place of the model's own setting",
		"profile":       "`version` of the scripts to tokenize as, in place of the model's own setting",
	} {
		flags.Lookup(name).Usage = usage
		flags.Lookup(name).DefValue = "" // the help must not name a default that is the model's
	}
}

// sessionFlags configure a session.
type sessionFlags struct {
	config savedmodel.Config
	extra  string
}

func (f *sessionFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&f.config.IntraOpThreads, "intra_op_threads", 0, "threads of one operation (0: one for each processor)")
	flags.IntVar(&f.config.InterOpThreads, "inter_op_threads", 0, "operations at once (0: one for each processor)")
	flags.BoolVar(&f.config.XLA, "use_xla", false, "compile the graph with XLA")
	flags.BoolVar(&f.config.GPU.AllowGrowth, "gpu_allow_growth", false, "take GPU memory as it is needed")
	flags.Float64Var(&f.config.GPU.MemoryFraction, "gpu_memory_fraction", 0, "share of each GPU's memory to take (0: all)")
	flags.StringVar(&f.config.GPU.VisibleDevices, "gpu_visible_devices", "", "GPUs to use, as in 0,2")
	flags.StringVar(&f.extra, "session_config", "",
		"`file` with a serialized ConfigProto to merge over the above")
}

// read returns the configuration, merged with the file that the flags name.
func (f *sessionFlags) read() (savedmodel.Config, error) {
	config := f.config
	if f.extra == "" {
		return config, nil
	}
	var err error
	config.Extra, err = os.ReadFile(f.extra)
	return config, err
}

func (f *modelFlags) check() error {
	switch {
	case f.model != "" && f.initCheckpoint != "":
		return usagef("--model and --init_checkpoint exclude each other")
	case f.signature.given() && f.initCheckpoint != "":
		return usagef("--tags and --signature are for SavedModels, not for --init_checkpoint")
	case f.bertConfigFile != "" && f.initCheckpoint == "":
		return usagef("--bert_config_file is for --init_checkpoint: a model has its own")
	case f.head != "" && f.initCheckpoint == "":
		return usagef("--head is for --init_checkpoint: a model has its own")
	}
	return nil
}

// options returns how to open the model. What the command line does not set is the model's own.
func (f *modelFlags) options(flags *pflag.FlagSet) (*tfbert.Options, error) {
	config, err := f.session.read()
	if err != nil {
		return nil, err
	}
	opts := &tfbert.Options{
		VocabFile: f.tokenizer.vocabFile, Config: config, AllowOps: f.allowOps.OpPolicy, TrimPadding: f.trimPadding,
	}
	f.signature.set(opts)
	if flags.Changed("do_lower_case") {
		cased := !f.tokenizer.doLowerCase
		opts.Cased = &cased
	}
	if flags.Changed("profile") {
		opts.Profile = &f.tokenizer.profile.Profile
	}
	opts.Precision, err = f.precision.asked(flags)
	return opts, err
}

// open opens the model.
func (f *modelFlags) open(cmd *cobra.Command) (*tfbert.Model, error) {
	if err := f.precision.lists.apply(); err != nil { // before TensorFlow is loaded
		return nil, err
	}
	opts, err := f.options(cmd.Flags())
	if err != nil {
		return nil, err
	}
	if err := f.named(cmd.Context()); err != nil {
		return nil, err
	}
	dir := f.model
	if f.initCheckpoint != "" {
		to := &tfbert.ExportOptions{ConfigFile: f.bertConfigFile, VocabFile: f.tokenizer.vocabFile, Head: f.head}
		if opts.Precision == tfbert.INT8 { // which no rewrite makes of the reference graph
			to.Graph, to.Precision = tfbert.FusedGraph, savedmodel.INT8
		}
		if dir, err = cachedModel(cmd, f.initCheckpoint, to); err != nil {
			return nil, err
		}
	}
	if dir, err = findModel(dir); err != nil {
		return nil, err
	}
	if err := loadTensorFlow(); err != nil {
		return nil, err
	}
	m, err := tfbert.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	sayChoice(m.Choice())
	sayNotes(m)
	if !f.precision.require {
		return m, nil
	}
	if err := m.RequirePrecision(cmd.Context()); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// sayNotes says what a person should know about how the model is asked.
func sayNotes(m *tfbert.Model) {
	for _, note := range m.Mapping().Notes {
		say("model: %s", note)
	}
}

// answerer opens the model and returns an Answerer of it that follows all the flags. The caller closes the model.
func (f *modelFlags) answerer(
	cmd *cobra.Command, windows *featureFlags, decoder *decoderFlags,
) (_ *tfbert.Model, _ *squad.Answerer, err error) {
	m, err := f.open(cmd)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if err := windows.length(cmd, m); err != nil {
		return nil, nil, err
	}
	a := m.Answerer()
	a.Decoder = decoder.Decoder
	if a.Featurizer, err = windows.featurizer(m.Tokenizer()); err != nil {
		return nil, nil, err
	}
	return m, a, nil
}

// length settles the sequence length: that of the command line, else one that suits the model.
func (f *featureFlags) length(cmd *cobra.Command, m *tfbert.Model) error {
	if !cmd.Flags().Changed("max_seq_length") {
		f.maxSeqLength = m.SeqLength()
	}
	return m.CheckLength(f.maxSeqLength)
}

// closing runs a Close and joins its error to the one of the function that defers it.
func closing(err *error, close func() error) { *err = errors.Join(*err, close()) }
