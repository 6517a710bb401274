package tfbert

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParsePart(t *testing.T) {
	for name, want := range map[string]part{
		"bert/embeddings/word_embeddings":                  {"bert", "embeddings/word_embeddings", ""},
		"bert/embeddings/LayerNorm/gamma":                  {"bert", "embeddings/LayerNorm/gamma", ""},
		"embeddings/LayerNorm/gamma":                       {"", "embeddings/LayerNorm/gamma", ""},
		"module/bert/encoder/layer_11/output/dense/kernel": {"module/bert", "encoder/layer_11/output/dense/kernel", ""},
		"bert/encoder/layer_0/attention/self/query/kernel": {"bert", "encoder/layer_0/attention/self/query/kernel", ""},
		"bert/encoder/layer_0/attention/self/query/kernel/Adam": {
			"bert", "encoder/layer_0/attention/self/query/kernel", "Adam",
		},
		"bert/encoder/layer_0/attention/output/LayerNorm/beta/a": {
			"bert", "encoder/layer_0/attention/output/LayerNorm/beta", "a",
		},
		"bert/encoder/layer_0/output/LayerNorm/beta":             {"bert", "encoder/layer_0/output/LayerNorm/beta", ""},
		"bert/pooler/dense/bias":                                 {"bert", "pooler/dense/bias", ""},
		"bert/encoder/layer_0/output/layer_normalization_3/beta": {"bert", "encoder/layer_0/output/LayerNorm/beta", ""},
		"bert/embeddings/layer_normalization/gamma":              {"bert", "embeddings/LayerNorm/gamma", ""},

		"bert_model/word_embeddings/embeddings":                  {"bert_model", "embeddings/word_embeddings", ""},
		"bert_model/embedding_postprocessor/type_embeddings":     {"bert_model", "embeddings/token_type_embeddings", ""},
		"bert_model/embedding_postprocessor/position_embeddings": {"bert_model", "embeddings/position_embeddings", ""},
		"bert_model/embedding_postprocessor/layer_norm/beta":     {"bert_model", "embeddings/LayerNorm/beta", ""},
		"bert_model/encoder/layer_3/self_attention_output/kernel": {
			"bert_model", "encoder/layer_3/attention/output/dense/kernel", "",
		},
		"bert_model/encoder/layer_3/self_attention_layer_norm/gamma": {
			"bert_model", "encoder/layer_3/attention/output/LayerNorm/gamma", "",
		},
		"word_embeddings/embeddings":                      {"", "embeddings/word_embeddings", ""},
		"type_embeddings/embeddings":                      {"", "embeddings/token_type_embeddings", ""},
		"position_embedding/embeddings":                   {"", "embeddings/position_embeddings", ""},
		"embeddings/layer_norm/gamma":                     {"", "embeddings/LayerNorm/gamma", ""},
		"transformer/layer_0/self_attention/query/kernel": {"", "encoder/layer_0/attention/self/query/kernel", ""},
		"transformer/layer_0/self_attention/attention_output/kernel": {
			"", "encoder/layer_0/attention/output/dense/kernel", "",
		},
		"transformer/layer_0/intermediate/kernel":     {"", "encoder/layer_0/intermediate/dense/kernel", ""},
		"transformer/layer_0/output/bias":             {"", "encoder/layer_0/output/dense/bias", ""},
		"transformer/layer_0/output_layer_norm/gamma": {"", "encoder/layer_0/output/LayerNorm/gamma", ""},
		"pooler_transform/kernel":                     {"", "pooler/dense/kernel", ""},
		"tf_bert_for_question_answering/bert/embeddings/word_embeddings/weight": {
			"tf_bert_for_question_answering/bert", "embeddings/word_embeddings", "",
		},
		"tf_bert_for_question_answering/bert/encoder/layer_._7/attention/output/dense/bias": {
			"tf_bert_for_question_answering/bert", "encoder/layer_7/attention/output/dense/bias", "",
		},
		"bert/encoder/layer/7/attention/self_attention/query/kernel": {
			"bert", "encoder/layer_7/attention/self/query/kernel", "",
		},
		"bert/encoder/layer/7/bert_output/LayerNorm/beta": {"bert", "encoder/layer_7/output/LayerNorm/beta", ""},

		"bert/encoder/layer_0/attention/output/adapters/feedforward_downproject/w": {},
		"bert/encoder/layer_0/attention/self/query/lora_a":                         {},
		"bert/embeddings_project/kernel":                                           {},
		"cls/squad/output_weights":                                                 {},
		"cls/predictions/transform/LayerNorm/gamma":                                {},
		"global_step": {},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, want, parsePart(name)) })
	}
}
