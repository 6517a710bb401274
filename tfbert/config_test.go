package tfbert_test

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/tfbert"
)

func TestReadConfig(t *testing.T) {
	// Google's BERT-Base, with what only training looks at.
	base := `{
		"attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
		"initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 512, "num_attention_heads": 12,
		"num_hidden_layers": 12, "type_vocab_size": 2, "vocab_size": 30522
	}`
	baseConfig := tfbert.Config{
		VocabSize: 30522, HiddenSize: 768, NumHiddenLayers: 12, NumAttentionHeads: 12, IntermediateSize: 3072,
		HiddenAct: "gelu", MaxPositionEmbeddings: 512, TypeVocabSize: 2,
	}
	defaults := baseConfig
	defaults.VocabSize, defaults.TypeVocabSize = 100, 16
	relu, linear := defaults, defaults
	relu.HiddenAct, linear.HiddenAct = "relu", "linear"
	for _, c := range []struct {
		name, text string
		want       tfbert.Config
	}{
		{"base", base, baseConfig},
		{"modeling.py's defaults", `{"vocab_size": 100}`, defaults},
		{"an activation in capitals", `{"vocab_size": 100, "hidden_act": "ReLU"}`, relu},
		{"no activation", `{"vocab_size": 100, "hidden_act": null}`, linear},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := tfbert.ReadConfig(strings.NewReader(c.text))
			require.NoError(t, err)
			assert.Equal(t, &c.want, got)
		})
	}
}

func TestReadConfigErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "not a bert_config.json: unexpected end of JSON input"},
		{"truncated", `{"vocab_size": 100`, "not a bert_config.json: unexpected end of JSON input"},
		{"no JSON", "vocab_size: 100", "not a bert_config.json: invalid character 'v'"},
		{"more than JSON", `{"vocab_size": 100} {}`, "not a bert_config.json: invalid character '{'"},
		{"a list", "[1]", "not a bert_config.json: json: cannot unmarshal array"},
		{"text for a number", `{"vocab_size": "100"}`, `vocab_size must be a whole number, not "100"`},
		{"fraction", `{"vocab_size": 100.5}`, "vocab_size must be a whole number, not 100.5"},
		{"no vocabulary size", "{}", "vocab_size is 0 or missing, and must be positive"},
		{"no layers", `{"vocab_size": 100, "num_hidden_layers": 0}`,
			"num_hidden_layers is 0 or missing, and must be positive"},
		{"negative", `{"vocab_size": 100, "type_vocab_size": -2}`, "type_vocab_size is -2 or missing, and must be positive"},
		{
			"huge", `{"vocab_size": 100, "num_hidden_layers": 2000000000}`,
			"num_hidden_layers is 2000000000, which no BERT has",
		},
		{
			"heads", `{"vocab_size": 100, "num_attention_heads": 7}`,
			"hidden_size 768 is not a multiple of num_attention_heads 7",
		},
		{
			"a whole number with a point", `{"vocab_size": 100, "hidden_size": 4.0}`,
			"hidden_size must be a whole number, not 4.0",
		},
		{"null for a number", `{"vocab_size": null}`, "vocab_size must be a whole number, not null"},
		{
			"beyond every integer", `{"vocab_size": 99999999999999999999}`,
			"vocab_size is 99999999999999999999, which no BERT has",
		},
		{
			"activation", `{"vocab_size": 100, "hidden_act": "softplus"}`,
			`hidden_act "softplus" is not one of gelu, gelu_accurate, gelu_erf, gelu_fast, gelu_new, gelu_python, `,
		},
		{
			"a number for an activation", `{"vocab_size": 100, "hidden_act": 1}`,
			"hidden_act must be the name of an activation, not 1",
		},
		{"epsilon", `{"vocab_size": 100, "layer_norm_eps": "no"}`, `layer_norm_eps must be a positive number, not "no"`},
		{
			"relative positions", `{"vocab_size": 100, "position_embedding_type": "relative_key"}`,
			`position_embedding_type is "relative_key", but only "absolute" is supported`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := tfbert.ReadConfig(strings.NewReader(c.text))
			assert.ErrorContains(t, err, c.want)
		})
	}
	broken := errors.New("broken")
	_, err := tfbert.ReadConfig(iotest.ErrReader(broken))
	assert.ErrorIs(t, err, broken)
}

var activationNames = []string{
	"gelu", "gelu_accurate", "gelu_erf", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "linear",
	"quick_gelu", "relu", "silu", "swish", "tanh",
}

func FuzzReadConfig(f *testing.F) {
	f.Add(`{"vocab_size": 30522, "hidden_act": "gelu", "type_vocab_size": 2}`)
	f.Add(`{"vocab_size": 1e3, "hidden_size": null}`)
	f.Add(`{"vocab_size": 20, "hidden_size": 8, "num_attention_heads": 3}`)
	f.Fuzz(func(t *testing.T, text string) {
		var c *tfbert.Config
		var err error
		bounded.Run(t, 100*len(text), 10*time.Second, func() { c, err = tfbert.ReadConfig(strings.NewReader(text)) })
		if err != nil {
			require.Nil(t, c)
			return
		}
		require.Zero(t, c.HiddenSize%c.NumAttentionHeads)
		require.Contains(t, append(activationNames, ""), c.HiddenAct)
	})
}
