package tfbert

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tfbert/go/tf"
)

// Config is the shape of a BERT, as a bert_config.json describes it.
type Config struct {
	VocabSize             int    `json:"vocab_size"`
	HiddenSize            int    `json:"hidden_size"`
	NumHiddenLayers       int    `json:"num_hidden_layers"`
	NumAttentionHeads     int    `json:"num_attention_heads"`
	IntermediateSize      int    `json:"intermediate_size"`
	HiddenAct             string `json:"hidden_act"`
	MaxPositionEmbeddings int    `json:"max_position_embeddings"`
	TypeVocabSize         int    `json:"type_vocab_size"`

	huggingFace bool    // written by transformers, or for a model of theirs
	epsilon     float64 // of the layer norms; 0 is that of the scripts
}

// maxConfigFile is the size in bytes that no bert_config.json has.
const maxConfigFile = 1 << 20

// byteOrderMark is what some editors begin a UTF-8 file with.
var byteOrderMark = []byte("\ufeff")

// ReadConfig reads a bert_config.json. A key that is missing has the default of modeling.py. Keys that
// only training needs (dropout, initializer_range) are ignored.
func ReadConfig(r io.Reader) (*Config, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxConfigFile+1))
	if err == nil && len(b) > maxConfigFile {
		err = fmt.Errorf("it is longer than %d bytes", maxConfigFile)
	}
	b = bytes.TrimPrefix(b, byteOrderMark)
	var keys map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(b, &keys)
	}
	if err != nil {
		return nil, fmt.Errorf("not a bert_config.json: %w", err)
	}
	c := &Config{
		HiddenSize: 768, NumHiddenLayers: 12, NumAttentionHeads: 12, IntermediateSize: 3072,
		HiddenAct: "gelu", MaxPositionEmbeddings: 512, TypeVocabSize: 16,
	}
	if err := c.read(keys); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) read(keys map[string]json.RawMessage) error {
	for _, f := range c.sizes() {
		text, ok := keys[f.key]
		if !ok {
			continue
		}
		n, err := strconv.Atoi(string(text))
		switch {
		case errors.Is(err, strconv.ErrRange):
			return fmt.Errorf("%s is %.40s, which no BERT has", f.key, text)
		case err != nil:
			return fmt.Errorf("%s must be a whole number, not %.40s", f.key, text)
		}
		*f.value = n
	}
	if text, ok := keys["hidden_act"]; ok {
		var name *string
		if err := json.Unmarshal(text, &name); err != nil {
			return fmt.Errorf("hidden_act must be the name of an activation, not %.40s", text)
		}
		if c.HiddenAct = linear; name != nil { // for null modeling.py adds no activation
			c.HiddenAct = strings.ToLower(*name)
		}
	}
	for _, key := range []string{"transformers_version", "model_type", "architectures"} {
		_, ok := keys[key]
		c.huggingFace = c.huggingFace || ok
	}
	if text, ok := keys["layer_norm_eps"]; ok && (json.Unmarshal(text, &c.epsilon) != nil || c.epsilon <= 0) {
		return fmt.Errorf("layer_norm_eps must be a positive number, not %.40s", text)
	}
	if text, ok := keys["position_embedding_type"]; ok && string(text) != `"absolute"` {
		return fmt.Errorf(`position_embedding_type is %.40s, but only "absolute" is supported`, text)
	}
	return nil
}

type sizeKey struct {
	key   string
	value *int
}

func (c *Config) sizes() []sizeKey {
	return []sizeKey{
		{"vocab_size", &c.VocabSize}, {"hidden_size", &c.HiddenSize},
		{"num_hidden_layers", &c.NumHiddenLayers}, {"num_attention_heads", &c.NumAttentionHeads},
		{"intermediate_size", &c.IntermediateSize},
		{"max_position_embeddings", &c.MaxPositionEmbeddings}, {"type_vocab_size", &c.TypeVocabSize},
	}
}

// maxSize bounds every size of a configuration, so that what a damaged file says is not allocated.
const maxSize = 1 << 20

func (c *Config) validate() error {
	for _, f := range c.sizes() {
		if *f.value <= 0 {
			return fmt.Errorf("%s is %d or missing, and must be positive", f.key, *f.value)
		}
		if *f.value > maxSize {
			return fmt.Errorf("%s is %d, which no BERT has", f.key, *f.value)
		}
	}
	if c.HiddenSize%c.NumAttentionHeads != 0 {
		return fmt.Errorf("hidden_size %d is not a multiple of num_attention_heads %d", c.HiddenSize, c.NumAttentionHeads)
	}
	if c.activation() == "" {
		return fmt.Errorf("hidden_act %q is not one of %s",
			c.HiddenAct, strings.Join(slices.Sorted(maps.Keys(activations)), ", "))
	}
	return nil
}

// The functions that a model's activation may be.
const (
	linear    = "linear"
	relu      = "relu"
	tanh      = "tanh"
	geluTanh  = "gelu by tanh"
	geluErf   = "gelu by erf"
	geluQuick = "gelu by sigmoid"
	swish     = "swish"
)

// activations are the functions by their names in configurations. The names of gelu's forms are Hugging Face's.
var activations = map[string]string{
	"gelu": geluTanh, "gelu_new": geluTanh, "gelu_pytorch_tanh": geluTanh, "gelu_fast": geluTanh,
	"gelu_accurate": geluTanh, "gelu_python": geluErf, "gelu_erf": geluErf, "quick_gelu": geluQuick,
	"relu": relu, "tanh": tanh, "swish": swish, "silu": swish, "linear": linear,
}

// activation returns the function that hidden_act means to the model's authors, or "". The name gelu stands for the
// tanh form in modeling.py, in NVIDIA's scripts and in tf-models, and for the erf form in Hugging Face's models.
func (c *Config) activation() string {
	switch {
	case c.HiddenAct == "":
		return linear
	case c.HiddenAct == "gelu" && c.huggingFace:
		return geluErf
	}
	return activations[c.HiddenAct]
}

// layerNormEpsilon returns what the layer norms add to a variance.
func (c *Config) layerNormEpsilon() float64 { return cmp.Or(c.epsilon, scriptsEpsilon) }

// scriptsEpsilon is that of tf.contrib.layers.layer_norm.
const scriptsEpsilon = 1e-12

// weight is a variable of the inference graph.
type weight struct {
	name  string
	shape tf.Shape
}

// weights lists the variables that answering questions needs. The pooler, which a checkpoint also
// has, is not among them: run_squad.py builds it and never uses it.
func (c *Config) weights() []weight {
	h, i := int64(c.HiddenSize), int64(c.IntermediateSize)
	list := []weight{
		{"bert/embeddings/word_embeddings", tf.Shape{int64(c.VocabSize), h}},
		{"bert/embeddings/token_type_embeddings", tf.Shape{int64(c.TypeVocabSize), h}},
		{"bert/embeddings/position_embeddings", tf.Shape{int64(c.MaxPositionEmbeddings), h}},
		{"bert/embeddings/LayerNorm/beta", tf.Shape{h}},
		{"bert/embeddings/LayerNorm/gamma", tf.Shape{h}},
	}
	dense := func(scope string, in, out int64) {
		list = append(list, weight{scope + "/kernel", tf.Shape{in, out}}, weight{scope + "/bias", tf.Shape{out}})
	}
	norm := func(scope string) {
		list = append(list, weight{scope + "/LayerNorm/beta", tf.Shape{h}}, weight{scope + "/LayerNorm/gamma", tf.Shape{h}})
	}
	for n := range c.NumHiddenLayers {
		layer := layerScope(n)
		dense(layer+"/attention/self/query", h, h)
		dense(layer+"/attention/self/key", h, h)
		dense(layer+"/attention/self/value", h, h)
		dense(layer+"/attention/output/dense", h, h)
		norm(layer + "/attention/output")
		dense(layer+"/intermediate/dense", h, i)
		dense(layer+"/output/dense", i, h)
		norm(layer + "/output")
	}
	return append(list,
		weight{headWeights, tf.Shape{2, h}},
		weight{headBias, tf.Shape{2}})
}

func layerScope(n int) string { return bertScope + "encoder/layer_" + strconv.Itoa(n) }
