package savedmodel_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// signatureLines writes a meta graph's signatures, one a line.
func signatureLines(m *savedmodel.MetaGraph) []string {
	tensors := func(infos []savedmodel.TensorInfo) string {
		var list []string
		for _, t := range infos {
			list = append(list, fmt.Sprintf("%v (%s)", t, t.Name))
		}
		return strings.Join(list, ", ")
	}
	var list []string
	for _, s := range m.Signatures {
		list = append(list, fmt.Sprintf("%s %s: %s -> %s", s.Key, filepath.Base(s.Method), tensors(s.Inputs),
			tensors(s.Outputs)))
	}
	return list
}

// The expectations are what TensorFlow's own Python messages hold.
func TestInspectForeign(t *testing.T) {
	oldHalfPlusTwo := []string{
		"classify_x2_to_y3 classify: inputs float32 [?,1] (x2:0) -> scores float32 [?,1] (y3:0)",
		"classify_x_to_y classify: inputs string (unknown rank) (tf_example:0) -> scores float32 [?,1] (y:0)",
		"regress_x2_to_y3 regress: inputs float32 [?,1] (x2:0) -> outputs float32 [?,1] (y3:0)",
		"regress_x_to_y regress: inputs string (unknown rank) (tf_example:0) -> outputs float32 [?,1] (y:0)",
		"regress_x_to_y2 regress: inputs string (unknown rank) (tf_example:0) -> outputs float32 [?,1] (y2:0)",
		"serving_default predict: x float32 [?,1] (x:0) -> y float32 [?,1] (y:0)",
	}
	oldOps := map[string]int{
		"Add": 3, "Assign": 8, "Const": 24, "Identity": 8, "MergeV2Checkpoints": 1, "Mul": 3, "NoOp": 4, "Pack": 1,
		"ParseExample": 1, "Placeholder": 1, "Reshape": 1, "RestoreV2": 3, "SaveV2": 1, "ShardedFilename": 1,
		"StringJoin": 1, "VariableV2": 4,
	}
	for _, c := range []struct {
		dir        string
		version    string
		signatures []string
		ops        map[string]int
		assets     []string
		functions  int
		size       int64
	}{
		{
			dir: "half_plus_two/00000123", version: "1.14.0", size: 12318, assets: []string{"foo.txt"},
			signatures: append([]string{
				"classify_x_to_y classify: inputs string (unknown rank) (tf_example:0) -> scores float32 [?,1] (y:0)",
			}, oldHalfPlusTwo[2:]...),
			ops: map[string]int{
				"Add": 3, "Assign": 12, "Const": 22, "Identity": 13, "MergeV2Checkpoints": 1, "Mul": 3, "NoOp": 4, "Pack": 1,
				"ParseExample": 1, "Placeholder": 1, "PlaceholderWithDefault": 2, "Reshape": 1, "RestoreV2": 1, "SaveV2": 1,
				"ShardedFilename": 1, "StringJoin": 1, "VariableV2": 6,
			},
		},
		{
			dir: "graft_half_plus_two/00000123", version: "1.1.0-rc2", size: 10117,
			signatures: oldHalfPlusTwo, ops: oldOps, assets: []string{"foo.txt"},
		},
		{
			dir: "java_saved_model", version: "1.1.0-rc2", size: 10117,
			signatures: oldHalfPlusTwo, ops: oldOps, assets: []string{"foo.txt"},
		},
		{
			dir: "matrix_half_plus_two/1", version: "1.2.0-rc2", size: 856,
			signatures: []string{"serving_default predict: x float32 [?,3,3] (x:0) -> y float32 [?,3,3] (y:0)"},
			ops:        map[string]int{"Add": 1, "Const": 2, "Mul": 1, "NoOp": 1, "Placeholder": 1},
		},
		{
			dir: "java_keras_model", version: "2.4.1", functions: 13, size: 19563,
			signatures: []string{
				"__saved_model_init_op .:  -> __saved_model_init_op dtype(0) (unknown rank) (NoOp)",
				"add predict: a float32 (unknown rank) (add_a:0), b float32 (unknown rank) (add_b:0) -> " +
					"output_0 float32 (unknown rank) (PartitionedCall:0)",
				"get_const_matrix predict: input float32 (unknown rank) (get_const_matrix_input:0) -> " +
					"output_0 float32 (unknown rank) (PartitionedCall_1:0)",
				"get_const_scalar predict: input float32 (unknown rank) (get_const_scalar_input:0) -> " +
					"output_0 float32 (unknown rank) (PartitionedCall_2:0)",
				"get_const_vector predict: input float32 (unknown rank) (get_const_vector_input:0) -> " +
					"output_0 float32 (unknown rank) (PartitionedCall_3:0)",
				"get_variable predict: dummy float32 (unknown rank) (get_variable_dummy:0) -> " +
					"output_0 float32 [] (StatefulPartitionedCall:0)",
			},
			ops: map[string]int{
				"AddV2": 5, "AssignVariableOp": 1, "Const": 12, "Identity": 16, "MergeV2Checkpoints": 1, "NoOp": 2, "Pack": 1,
				"PartitionedCall": 8, "Placeholder": 7, "ReadVariableOp": 2, "RestoreV2": 1, "SaveV2": 1, "Select": 1,
				"ShardedFilename": 1, "StatefulPartitionedCall": 4, "StaticRegexFullMatch": 1, "StringJoin": 1, "VarHandleOp": 1,
			},
		},
	} {
		t.Run(c.dir, func(t *testing.T) {
			info, err := savedmodel.Inspect(foreignModel(t, c.dir))
			require.NoError(t, err)
			assert.Equal(t, c.size, info.Size)
			require.Len(t, info.MetaGraphs, 1)
			m := &info.MetaGraphs[0]
			assert.Equal(t, []string{savedmodel.ServeTag}, m.Tags)
			assert.Equal(t, c.version, m.TensorFlowVersion)
			assert.Equal(t, c.signatures, signatureLines(m))
			assert.Equal(t, c.ops, m.Ops)
			assert.Equal(t, c.assets, m.Assets)
			assert.Equal(t, c.functions, m.Functions)
		})
	}
}

func TestInspectOurs(t *testing.T) {
	dir := t.TempDir()
	writeLinear(t, dir, 2, 1)
	info, err := savedmodel.Inspect(dir)
	require.NoError(t, err)
	require.Len(t, info.MetaGraphs, 1)
	m := &info.MetaGraphs[0]
	assert.Equal(t, []string{"serve"}, m.Tags)
	assert.Equal(t, tf.Version(), m.TensorFlowVersion)
	assert.Equal(t, []string{"serving_default predict: x float32 [?,2] (x:0) -> y float32 [?,2] (y:0)"}, signatureLines(m))
	assert.Equal(t, 2, m.Ops["VarHandleOp"])
	assert.Equal(t, 1, m.Ops["RestoreV2"])
	assert.Equal(t, 1, m.Ops["SaveV2"])
}

func TestInspectJSON(t *testing.T) {
	for _, c := range []struct{ dir, want string }{
		{"matrix_half_plus_two/1", `{"dir": "DIR", "size": 856, "meta_graphs": [{
			"tags": ["serve"], "tensorflow_version": "1.2.0-rc2",
			"signatures": [{"key": "serving_default", "method": "tensorflow/serving/predict",
				"inputs": [{"key": "x", "name": "x:0", "dtype": "float32", "shape": [-1, 3, 3]}],
				"outputs": [{"key": "y", "name": "y:0", "dtype": "float32", "shape": [-1, 3, 3]}]}],
			"ops": {"Add": 1, "Const": 2, "Mul": 1, "NoOp": 1, "Placeholder": 1}}]}`},
	} {
		dir := foreignModel(t, c.dir)
		info, err := savedmodel.Inspect(dir)
		require.NoError(t, err)
		info.Dir = "DIR"
		got, err := json.Marshal(info)
		require.NoError(t, err)
		assert.JSONEq(t, c.want, string(got))
	}

	// An unknown rank is null, a scalar's shape and a lack of inputs are empty lists.
	info, err := savedmodel.Inspect(foreignModel(t, "java_keras_model"))
	require.NoError(t, err)
	got, err := json.Marshal(info.MetaGraphs[0].Signatures)
	require.NoError(t, err)
	assert.Contains(t, string(got), `"key":"__saved_model_init_op","method":"","inputs":[],`)
	assert.Contains(t, string(got), `"name":"PartitionedCall_3:0","shape":null,"dtype":"float32"`)
	assert.Contains(t, string(got), `"name":"StatefulPartitionedCall:0","shape":[],"dtype":"float32"`)
}

func TestInspectErrors(t *testing.T) {
	real, err := os.ReadFile(filepath.Join(halfPlusTwo(t), savedmodel.GraphFile))
	require.NoError(t, err)
	for _, c := range []struct {
		name, file, content string
		want                string
	}{
		{"no file", "", "", "is not a SavedModel: it has no saved_model.pb"},
		{"text form", "saved_model.pbtxt", "saved_model_schema_version: 1", "holds a text saved_model.pbtxt, which is not supported"},
		{"empty", "saved_model.pb", "", "saved_model.pb is an empty file: its download or copy did not finish"},
		{"no graph", "saved_model.pb", "\x08\x01", "is damaged or not a SavedModel: it has no meta graph"},
		{"pointer", "saved_model.pb", "version https://git-lfs.github.com/spec/v1\n",
			"saved_model.pb is a Git LFS pointer, not the file itself: run git lfs pull"},
		{"frozen graph", "saved_model.pb", "\x0a\x1e\x0a\x09input_ids\x12\x0bPlaceholder\x2a\x07",
			"saved_model.pb is a frozen graph, not a SavedModel"},
		{"garbage", "saved_model.pb", "not a protocol buffer", "saved_model.pb is damaged or not a SavedModel: "},
		{"truncated", "saved_model.pb", string(real[:len(real)/2]), "saved_model.pb is damaged or not a SavedModel: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.file != "" {
				require.NoError(t, os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o666))
			}
			_, err := savedmodel.Inspect(dir)
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, dir)
			assert.NotContains(t, err.Error(), "\n")
			_, loadErr := savedmodel.Load(dir, nil)
			assert.EqualError(t, loadErr, err.Error())
		})
	}
	t.Run("no folder", func(t *testing.T) {
		_, err := savedmodel.Inspect(filepath.Join(t.TempDir(), "none"))
		assert.ErrorContains(t, err, "none: no such file or directory")
	})
	t.Run("its file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "saved_model.pb")
		require.NoError(t, os.WriteFile(path, real, 0o666))
		info, err := savedmodel.Inspect(path)
		require.NoError(t, err)
		assert.Equal(t, filepath.Dir(path), info.Dir)
	})
	t.Run("unreadable", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, savedmodel.GraphFile), 0o777))
		_, err := savedmodel.Inspect(dir)
		assert.ErrorContains(t, err, "is not a plain file")
	})
}

func TestInfoErrors(t *testing.T) {
	info := savedmodel.Info{Dir: "model", MetaGraphs: []savedmodel.MetaGraph{
		{Tags: []string{"train"}},
		{Tags: []string{"serve", "gpu"}, Signatures: []savedmodel.Signature{
			{Key: "a", Inputs: []savedmodel.TensorInfo{{Key: "x"}, {Key: "y"}}}, {Key: "b"},
		}},
	}}
	_, err := info.MetaGraph([]string{"serve"})
	assert.EqualError(t, err, "model does not have a meta graph with the tags {serve}, only {train} {serve,gpu}")
	m, err := info.MetaGraph([]string{"gpu", "serve"}) // in any order
	require.NoError(t, err)
	_, err = m.Signature("serving_default")
	assert.EqualError(t, err, `no signature "serving_default", only a, b`)
	_, err = info.MetaGraphs[0].Signature("serving_default")
	assert.EqualError(t, err, `no signature "serving_default", only (none)`)
	s, err := m.Signature("a")
	require.NoError(t, err)
	_, err = s.Input("z")
	assert.EqualError(t, err, `signature "a" has no input "z", only x, y`)
	_, err = s.Output("z")
	assert.EqualError(t, err, `signature "a" has no output "z", only (none)`)
}
