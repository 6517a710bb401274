package serve

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/internal/fakemodel"
	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
)

// warmed is a server that loads on request, and records what the model ran.
type warmed struct {
	*fixture
	mu   sync.Mutex
	runs [][]squad.Feature

	always int // runs of every load
}

func newWarmed(t *testing.T) *warmed {
	w := &warmed{}
	s := &setup{repo: repository.Options{Control: repository.ControlExplicit}}
	s.models.OnBatch = func(_ context.Context, _ repository.Source, features []squad.Feature) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.runs = append(w.runs, slices.Clone(features))
		return nil
	}
	w.fixture = startServer(t, s)
	w.always = len(w.runs)
	return w
}

// load writes files beside the model, loads it, and returns what was run beyond the windows of every load.
func (w *warmed) load(t *testing.T, files map[string]string) ([][]squad.Feature, error) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(w.root, "bert", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	w.mu.Lock()
	w.runs = nil
	w.mu.Unlock()
	c := pb.NewInferenceClient(w.dial(t))
	_, err := c.RepositoryModelLoad(t.Context(), &pb.RepositoryModelLoadRequest{ModelName: "bert"})
	w.mu.Lock()
	defer w.mu.Unlock()
	require.GreaterOrEqual(t, len(w.runs), w.always)
	return w.runs[w.always:], err
}

const warmupConfig = `max_batch_size: 8 model_warmup {
	name: "sample" batch_size: 3 count: 2
	inputs { key: "input_ids" value { data_type: TYPE_INT32 dims: [ 4 ] IDS } }
	inputs { key: "input_mask" value { data_type: TYPE_INT32 dims: [ 4 ] random_data: true } }
	inputs { key: "segment_ids" value { data_type: TYPE_INT32 dims: [ 4 ] zero_data: true } }
	inputs { key: "unique_ids" value { data_type: TYPE_INT32 dims: [ 1 ] zero_data: true } }
}`

// The samples of a configuration run before the model is available, as often as they say, and are not counted.
func TestWarmupConfig(t *testing.T) {
	w := newWarmed(t)
	runs, err := w.load(t, map[string]string{
		"config.pbtxt": strings.Replace(warmupConfig, "IDS", `input_data_file: "ids"`, 1),
		"warmup/ids":   "\x02\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x09\x00\x00\x00",
	})
	require.NoError(t, err)
	require.Len(t, runs, 2)
	require.Len(t, runs[0], 3)
	for _, f := range runs[0] {
		assert.Equal(t, []int32{2, 7, 3, 9}, f.InputIDs)
		assert.Equal(t, []int32{1, 1, 1, 1}, f.InputMask)
	}
	assert.Contains(t, w.ask("GET", "/v2/models/bert/stats", nil).Body.String(), `"inference_count":0,`)

	runs, err = w.load(t, map[string]string{"config.pbtxt": strings.Replace(warmupConfig, "IDS", "random_data: true", 1)})
	require.NoError(t, err)
	assert.Less(t, slices.Max(runs[0][0].InputIDs), int32(fakemodel.Vocab().Len()))

	for what, config := range map[string]string{
		"model_warmup \"sample\": batch_size is 9: it must be from 1 to 8": strings.Replace(warmupConfig,
			"batch_size: 3", "batch_size: 9", 1),
		"input \"input_ids\" needs zero_data, random_data or": warmupConfig,
		"must be a name within the model's warmup folder": strings.Replace(warmupConfig,
			"IDS", `input_data_file: "../x"`, 1),
		"input \"input_ids\" is TYPE_FP32: the model takes INT32": strings.Replace(warmupConfig,
			"TYPE_INT32 dims: [ 4 ] IDS", "TYPE_FP32 dims: [ 4 ] zero_data: true", 1),
		"count is 1001: it must be at most 1000": strings.Replace(warmupConfig, "count: 2", "count: 1001", 1),
		"the model does not have an input \"x\"": strings.Replace(warmupConfig, `"input_ids"`, `"x"`, 1),
		"input \"input_ids\" has the dims [-1]": strings.Replace(warmupConfig,
			"dims: [ 4 ] IDS", "dims: [ -1 ] zero_data: true", 1),
		"input \"input_mask\" has the shape [3 4], input \"input_ids\" [3 5]": strings.Replace(warmupConfig,
			"dims: [ 4 ] IDS", "dims: [ 5 ] zero_data: true", 1),
	} {
		_, err := w.load(t, map[string]string{"config.pbtxt": strings.Replace(config, "IDS", "", 1)})
		requireCode(t, codes.Internal, what, err)
		assert.Equal(t, 200, w.ask("POST", "/v1/answer", []byte(question(1))).Code, "the model before stays")
	}
}

// A file as TensorFlow writes it has a request to the model and one to its text model.
func TestWarmupRecords(t *testing.T) {
	w := newWarmed(t)
	const name = "1/model.savedmodel/assets.extra/tf_serving_warmup_requests"
	text, err := os.ReadFile("internal/warmup/testdata/tf_serving_warmup_requests")
	require.NoError(t, err)
	runs, err := w.load(t, map[string]string{name: string(text)})
	require.NoError(t, err)
	require.Len(t, runs, 2)
	assert.Equal(t, []int32{2, 7, 3, 9}, runs[0][0].InputIDs)
	assert.Contains(t, runs[1][0].InputIDs, fakemodel.ID("w1"))

	damaged := func(at int) string {
		b := slices.Clone(text)
		b[at]++
		return string(b)
	}
	for what, file := range map[string]string{
		"record 0: the checksum of its length is wrong": damaged(0),
		"record 0: the checksum of its data is wrong":   damaged(30),
		"record 1: the file ends within it":             string(text[:len(text)-1]),
		"record 2: the file ends within it":             string(text) + "x",
		"record 0: the file ends within it":             string(text[:12]),
		"record 2: it does not have a predict_log: other requests are": string(text) +
			"\x00\x00\x00\x00\x00\x00\x00\x00\x29\x03\x98\x07\xd8\xea\x82\xa2",
	} {
		_, err := w.load(t, map[string]string{name: file})
		requireCode(t, codes.Internal, what, err)
		assert.NotContains(t, err.Error(), w.root)
	}
}
