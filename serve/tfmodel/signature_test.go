package tfmodel_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/serve/tfmodel"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
)

// A client sees the model's own names where it can send its tensors, and else those of run_squad.py.
func TestTensors(t *testing.T) {
	dir := export(t, &tfbert.ExportOptions{MaxSeqLength: 64})
	matrix, rows := []int64{-1, 64}, []int64{-1}
	rename := func(infos map[string]*tfproto.TensorInfo, from, to string) {
		infos[to] = infos[from]
		delete(infos, from)
	}
	for _, tt := range []struct {
		name            string
		edit            func(g *tfproto.GraphDef, s *tfproto.SignatureDef)
		inputs, outputs []repository.TensorInfo
		wantLog         string
	}{
		{
			name: "NVIDIA", edit: func(*tfproto.GraphDef, *tfproto.SignatureDef) {},
			inputs: []repository.TensorInfo{
				{Name: "input_ids", Type: "INT32", Shape: matrix, TensorName: "input_ids:0", As: "input_ids"},
				{Name: "input_mask", Type: "INT32", Shape: matrix, TensorName: "input_mask:0", As: "input_mask"},
				{Name: "segment_ids", Type: "INT32", Shape: matrix, TensorName: "segment_ids:0", As: "segment_ids"},
				{Name: "unique_ids", Type: "INT32", Shape: rows, TensorName: "unique_ids:0", As: "unique_ids"},
			},
			outputs: []repository.TensorInfo{
				{Name: "end_logits", Type: "FP32", Shape: matrix, TensorName: "unstack:1", As: "end_logits"},
				{Name: "start_logits", Type: "FP32", Shape: matrix, TensorName: "unstack:0", As: "start_logits"},
				{Name: "unique_ids", Type: "INT32", Shape: rows, TensorName: "unique_ids/identity:0"},
			},
		},
		{
			name: "Hugging Face", edit: func(_ *tfproto.GraphDef, s *tfproto.SignatureDef) {
				rename(s.Inputs, "input_mask", "attention_mask")
				rename(s.Inputs, "segment_ids", "token_type_ids")
				rename(s.Outputs, "start_logits", "output_0")
				rename(s.Outputs, "end_logits", "output_1")
				delete(s.Inputs, "unique_ids")
				delete(s.Outputs, "unique_ids")
			},
			inputs: []repository.TensorInfo{
				{Name: "attention_mask", Type: "INT32", Shape: matrix, TensorName: "input_mask:0", As: "input_mask"},
				{Name: "input_ids", Type: "INT32", Shape: matrix, TensorName: "input_ids:0", As: "input_ids"},
				{Name: "token_type_ids", Type: "INT32", Shape: matrix, TensorName: "segment_ids:0", As: "segment_ids"},
			},
			outputs: []repository.TensorInfo{
				{Name: "output_0", Type: "FP32", Shape: matrix, TensorName: "unstack:0", As: "start_logits"},
				{Name: "output_1", Type: "FP32", Shape: matrix, TensorName: "unstack:1", As: "end_logits"},
			},
		},
		{
			name: "both logits in one output", edit: func(g *tfproto.GraphDef, s *tfproto.SignatureDef) {
				g.Node = append(g.Node, &tfproto.NodeDef{
					Op: "Pack", Name: "packed", Input: []string{"unstack", "unstack:1"}, Attr: map[string]*tfproto.AttrValue{
						"N": {Value: &tfproto.AttrValue_I{I: 2}}, "axis": {Value: &tfproto.AttrValue_I{I: 2}},
						"T": {Value: &tfproto.AttrValue_Type{Type: int32(tf.Float)}},
					},
				})
				s.Outputs = map[string]*tfproto.TensorInfo{"logits": {
					Encoding: &tfproto.TensorInfo_Name{Name: "packed:0"}, Dtype: int32(tf.Float),
					TensorShape: tfproto.NewShape([]int64{-1, 64, 2}),
				}}
			},
			inputs: []repository.TensorInfo{
				{Name: "input_ids", Type: "INT32", Shape: matrix}, {Name: "input_mask", Type: "INT32", Shape: matrix},
				{Name: "segment_ids", Type: "INT32", Shape: matrix},
			},
			outputs: []repository.TensorInfo{
				{Name: "end_logits", Type: "FP32", Shape: matrix}, {Name: "start_logits", Type: "FP32", Shape: matrix},
			},
			wantLog: "its output logits is taken for start_logits and end_logits by its shape",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			foreign := t.TempDir()
			for _, name := range []string{"variables", savedmodel.ExtraAssetsDir} {
				require.NoError(t, os.Symlink(filepath.Join(dir, name), filepath.Join(foreign, name)))
			}
			data, err := os.ReadFile(filepath.Join(dir, savedmodel.GraphFile))
			require.NoError(t, err)
			var model tfproto.SavedModel
			require.NoError(t, proto.Unmarshal(data, &model))
			meta := model.MetaGraphs[0]
			tt.edit(meta.GraphDef, meta.SignatureDef[savedmodel.DefaultSignature])
			data, err = proto.Marshal(&model)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(foreign, savedmodel.GraphFile), data, 0o600))

			var log bytes.Buffer
			opts := &tfmodel.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
			b, err := tfmodel.Loader(opts)(t.Context(), repository.Source{Name: "bert", Version: 1, Dir: foreign})
			require.NoError(t, err)
			defer func() { assert.NoError(t, b.Close()) }()
			assert.Equal(t, tt.inputs, b.Inputs)
			assert.Equal(t, tt.outputs, b.Outputs)
			assert.Contains(t, log.String(), tt.wantLog)
		})
	}
}
