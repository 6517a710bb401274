package tfbert

import (
	"encoding/json"
	"fmt"
	"io"
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
}

// maxConfigFile is the size in bytes that no bert_config.json has.
const maxConfigFile = 1 << 20

// ReadConfig reads a bert_config.json. A key that is missing has the default of modeling.py. Keys that
// only training needs (dropout, initializer_range) are ignored.
func ReadConfig(r io.Reader) (*Config, error) {
	c := &Config{
		HiddenSize: 768, NumHiddenLayers: 12, NumAttentionHeads: 12, IntermediateSize: 3072,
		HiddenAct: "gelu", MaxPositionEmbeddings: 512, TypeVocabSize: 16,
	}
	b, err := io.ReadAll(io.LimitReader(r, maxConfigFile+1))
	if err == nil && len(b) > maxConfigFile {
		err = fmt.Errorf("it is longer than %d bytes", maxConfigFile)
	}
	if err == nil {
		err = json.Unmarshal(b, c)
	}
	if err != nil {
		return nil, fmt.Errorf("not a bert_config.json: %w", err)
	}
	c.HiddenAct = strings.ToLower(c.HiddenAct)
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// maxSize bounds every size of a configuration, so that what a damaged file says is not allocated.
const maxSize = 1 << 20

func (c *Config) validate() error {
	for _, f := range []struct {
		name  string
		value int
	}{
		{"vocab_size", c.VocabSize}, {"hidden_size", c.HiddenSize},
		{"num_hidden_layers", c.NumHiddenLayers}, {"num_attention_heads", c.NumAttentionHeads},
		{"intermediate_size", c.IntermediateSize},
		{"max_position_embeddings", c.MaxPositionEmbeddings}, {"type_vocab_size", c.TypeVocabSize},
	} {
		if f.value <= 0 {
			return fmt.Errorf("%s is %d or missing, and must be positive", f.name, f.value)
		}
		if f.value > maxSize {
			return fmt.Errorf("%s is %d, which no BERT has", f.name, f.value)
		}
	}
	if c.HiddenSize%c.NumAttentionHeads != 0 {
		return fmt.Errorf("hidden_size %d is not a multiple of num_attention_heads %d", c.HiddenSize, c.NumAttentionHeads)
	}
	switch c.HiddenAct {
	case "gelu", "relu", "tanh", "linear", "":
		return nil
	}
	return fmt.Errorf("hidden_act %q is not one of modeling.py's: gelu, relu, tanh, linear", c.HiddenAct)
}

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
		weight{"cls/squad/output_weights", tf.Shape{2, h}},
		weight{"cls/squad/output_bias", tf.Shape{2}})
}

// encoderScope is the variable scope of the layers.
const encoderScope = "bert/encoder/"

func layerScope(n int) string { return encoderScope + "layer_" + strconv.Itoa(n) }
