package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/tfbert/go/internal/models"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/squad/logits"
	"github.com/tfbert/go/tfbert"
)

func TestAdvice(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"weights of another precision": {
			&tfbert.PrecisionMismatchError{Dir: "m", Weights: savedmodel.FP32, Asked: tfbert.BF16},
			"leave --precision out, or export the model in bf16",
		},
		"precision under XLA": {
			&savedmodel.PrecisionError{Precision: savedmodel.BF16, Unread: true, Reason: "compiled"},
			"leave --use_xla out",
		},
		"precision":                 {&savedmodel.PrecisionError{Precision: savedmodel.BF16, Reason: "no units"}, ""},
		"int8 without its products": {&tfbert.Int8Error{Reason: "none"}, "choose --precision fp32"},
		"int8 of another CPU": {
			fmt.Errorf("open: %w", &tfbert.Int8Error{Dir: "m", Reason: "bits"}),
			"export the checkpoint again on this machine, or with --precision fp32",
		},
		"refused operations": {
			&savedmodel.RefusedOpsError{Dir: "m", Refused: []savedmodel.OpUse{{Op: "ReadFile", Nodes: []string{"n"}}}},
			"'tfbert inspect --ops' lists them all",
		},
		"other tags": {
			&savedmodel.TagsError{Dir: "m", Tags: []string{"serve"}, Have: [][]string{{"serve", "gpu"}}},
			"choose it with --tags serve,gpu",
		},
		"several graphs": {
			&savedmodel.TagsError{Dir: "m", Tags: []string{"serve"}, Have: [][]string{{"gpu"}, {"tpu"}}},
			"choose one with --tags",
		},
		"no signature that fits": {&tfbert.SignatureError{Dir: "m", Err: io.ErrUnexpectedEOF}, ""},
		"another signature": {
			&tfbert.SignatureError{Dir: "m", Fits: []string{"predict"}, Err: io.ErrUnexpectedEOF},
			"choose it with --signature predict",
		},
		"several signatures": {
			&tfbert.SignatureError{Dir: "m", Fits: []string{"a", "b"}, Err: io.ErrUnexpectedEOF},
			"choose one with --signature",
		},
		"no vocabulary": {
			&tfbert.FileError{Name: "vocab.txt", Err: fs.ErrNotExist},
			"name one with --vocab_file",
		},
		"another model's vocabulary": {
			&tfbert.FileError{Name: "vocab.txt", Path: "m/vocab.txt", Err: io.ErrUnexpectedEOF},
			"name another with --vocab_file",
		},
		"no configuration": {
			&tfbert.FileError{Name: "bert_config.json", Err: fs.ErrNotExist},
			"name one with --bert_config_file",
		},
		"another model's configuration": {
			&tfbert.FileError{Name: "bert_config.json", Path: "c/bert_config.json", Err: io.ErrUnexpectedEOF},
			"name another with --bert_config_file",
		},
		"length of a fixed model": {
			&tfbert.LengthError{Length: 128, Fixed: 64},
			"set --max_seq_length 64 or export it with another",
		},
		"length beyond positions": {&tfbert.LengthError{Length: 513, Most: 512}, "lower --max_seq_length"},
		"existing directory":      {&tfbert.ExistsError{Dir: "m"}, "name another directory or pass --overwrite"},
		"name of a model":         {&models.NameError{Name: "a/b", Source: "s"}, "choose one with --name"},
		"address alone": {
			&models.NoDigestError{Source: "https://a.example"}, "pass the one that its owner publishes with --sha256",
		},
		"name that is taken": {
			&models.ExistsError{Name: "m", Source: "s"}, "choose another name with --name, or replace it with --overwrite",
		},
		"unknown model": {&models.NotFoundError{Name: "m"}, "'tfbert model pull' takes its folder, archive or address"},
		"no proxy": {
			&models.ProxyError{Module: "m", Err: io.EOF},
			"set GOPROXY to one that has it, run in a clone of the repository, or name a model with --model",
		},
		"several heads": {&tfbert.HeadError{Checkpoint: "c", Heads: []string{"a", "b"}}, "name one with --head"},
		"logit": {
			&squad.LogitError{Row: "start", Position: 3},
			"the model's weights are broken or overflow in its precision; try it in float32",
		},
		"number of logits": {
			&logits.CountError{Path: "l.npy", Windows: 3},
			"check --predict_file, --doc_stride and --max_query_length",
		},
		"any other error": {io.ErrUnexpectedEOF, ""},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tc.want, advice(tc.err))
			assert.Equal(t, tc.want, advice(fmt.Errorf("m: %w", tc.err)), "wrapped")
			assert.Equal(t, tc.want, advice(errors.Join(tc.err, io.ErrClosedPipe)), "joined to the error of a Close")
		})
	}
}
