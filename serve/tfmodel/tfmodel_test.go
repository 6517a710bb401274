package tfmodel_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/serve/tfmodel"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
)

// TestMain fails the run where a test left a tensor, graph or session open.
func TestMain(m *testing.M) { testenv.Main(m, tf.Alive) }

// export writes the bundled model as a SavedModel.
func export(t *testing.T, opts *tfbert.ExportOptions) (dir string) {
	t.Helper()
	testenv.TensorFlow(t)
	checkpoint := testenv.Model(t)
	dir = filepath.Join(t.TempDir(), "model.savedmodel")
	_, err := tfbert.Export(t.Context(), checkpoint, dir, opts)
	require.NoError(t, err)
	return dir
}

// freePorts returns addresses that nothing listened on a moment ago.
func freePorts(t *testing.T) (first, second string) {
	t.Helper()
	var addresses [2]string
	for i := range addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		addresses[i] = l.Addr().String()
	}
	return addresses[0], addresses[1]
}

// The example is a whole program, but for its name and its addresses. A module outside of this one builds it, it
// answers in every protocol, and an interrupt ends it.
func TestExample(t *testing.T) {
	testenv.Long(t, "builds and runs a program")
	library := testenv.TensorFlow(t)
	model := export(t, nil)
	web, rpc := freePorts(t)
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	source = []byte(strings.NewReplacer("package tfmodel_test", "package main", "func Example()", "func main()",
		"127.0.0.1:8501", web, "127.0.0.1:8500", rpc).Replace(string(source)))
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "main.go"), source, 0o600))
	output, err := testenv.OutsideModule(t, outside)("build", "-o", "server").CombinedOutput()
	require.NoError(t, err, string(output))

	server := exec.CommandContext(t.Context(), filepath.Join(outside, "server"))
	server.Dir = filepath.Dir(model)
	server.Env = append(os.Environ(), "TFBERT_LIBTENSORFLOW="+library)
	var stderr bytes.Buffer
	server.Stderr = &stderr
	require.NoError(t, server.Start())
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	require.Eventually(t, func() bool {
		response, err := http.Get("http://" + web + "/readyz")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, time.Minute, 50*time.Millisecond)

	t.Run("HTTP", func(t *testing.T) { testHTTP(t, "http://"+web) })
	t.Run("gRPC", func(t *testing.T) { testGRPC(t, rpc) })

	require.NoError(t, server.Process.Signal(os.Interrupt))
	select {
	case err := <-ended:
		assert.NoError(t, err, stderr.String())
	case <-time.After(time.Minute):
		require.Fail(t, "the server did not end")
	}
}

func testHTTP(t *testing.T, server string) {
	const qa = `{"question":"Who wrote it?","context":"It was written by Ada Lovelace."}`
	tests := []struct{ name, path, body, want string }{
		{"native", "/v1/answer", qa, `"answer":"Ada Lovelace"`},
		{"huggingface", "/models/bert", `{"inputs":` + qa + `}`, `"answer":"Ada Lovelace"`},
		{"tfserving", "/v1/models/bert_qa:predict",
			`{"instances":[{"QUESTION":"Who wrote it?","CONTEXT":"It was written by Ada Lovelace."}]}`, `"Ada Lovelace"`},
		{"oip", "/v2/models/bert_qa/infer", `{"inputs":[
			{"name":"QUESTION","datatype":"BYTES","shape":[1,1],"data":["Who wrote it?"]},
			{"name":"CONTEXT","datatype":"BYTES","shape":[1,1],"data":["It was written by Ada Lovelace."]}]}`, `"Ada Lovelace"`},
		{"oip statistics", "/v2/models/bert/stats", "", `"memory_usage":[{"type":"CPU"`},
		{"page", "/", "", "<html"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method := http.MethodPost
			if tt.body == "" {
				method = http.MethodGet
			}
			r, err := http.NewRequestWithContext(t.Context(), method, server+tt.path, strings.NewReader(tt.body))
			require.NoError(t, err)
			r.Header.Set("Accept", "text/html,application/json")
			response, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			assert.Equal(t, http.StatusOK, response.StatusCode)
			assert.Contains(t, string(body), tt.want)
		})
	}
}

func testGRPC(t *testing.T, server string) {
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()

	text := func(name, text string) *pb.ModelInferRequest_InferInputTensor {
		return &pb.ModelInferRequest_InferInputTensor{Name: name, Datatype: repository.Bytes, Shape: []int64{1, 1},
			Contents: &pb.InferTensorContents{BytesContents: [][]byte{[]byte(text)}}}
	}
	answer, err := pb.NewInferenceClient(conn).ModelInfer(t.Context(), &pb.ModelInferRequest{
		ModelName: "bert_qa",
		Inputs: []*pb.ModelInferRequest_InferInputTensor{
			text("QUESTION", "Who wrote it?"), text("CONTEXT", "It was written by Ada Lovelace."),
		},
		Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "ANSWER"}},
	})
	require.NoError(t, err)
	require.Len(t, answer.GetRawOutputContents(), 1)
	assert.Equal(t, "Ada Lovelace", string(answer.GetRawOutputContents()[0][4:]))

	status, err := pb.NewModelClient(conn).GetModelStatus(t.Context(),
		&pb.GetModelStatusRequest{ModelSpec: &pb.ModelSpec{Name: "bert"}})
	require.NoError(t, err)
	require.Len(t, status.GetModelVersionStatus(), 1)
	assert.Equal(t, int64(1), status.GetModelVersionStatus()[0].GetVersion())
}

func TestLoader(t *testing.T) {
	reference, fused := export(t, nil), export(t, &tfbert.ExportOptions{Graph: tfbert.FusedGraph, MaxSeqLength: 64})
	withVocab := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(withVocab, "vocab.txt"), []byte("[PAD]\n[UNK]\n[CLS]\n"), 0o600))

	tests := []struct {
		name   string
		opts   *tfmodel.Options
		source repository.Source

		wantErr, wantLog, wantDescription string
		wantLength                        int
	}{
		{
			name: "reference", source: repository.Source{Dir: reference}, wantDescription: "reference graph in fp32",
			wantLength: 384,
		},
		{name: "fused", source: repository.Source{Dir: fused}, wantDescription: "fused graph in fp32", wantLength: 64},
		{name: "length of the options", opts: &tfmodel.Options{SeqLength: 128}, source: repository.Source{Dir: reference},
			wantDescription: "reference graph in fp32", wantLength: 128},
		{name: "length that the model does not take", opts: &tfmodel.Options{SeqLength: 128},
			source: repository.Source{Dir: fused}, wantErr: "the model takes sequences of 64, not of 128"},
		{name: "vocabulary of another model", source: repository.Source{Dir: reference, ModelDir: withVocab},
			wantErr: "vocab.txt has no [SEP]"},
		{name: "no model", source: repository.Source{Dir: filepath.Join(withVocab, "none")}, wantErr: "none"},
		{name: "mixed precision of a fused graph", source: repository.Source{Dir: fused, MixedPrecision: true},
			wantDescription: "fused graph in fp32", wantLength: 64},
		{name: "second of the CPU's devices", source: repository.Source{Dir: fused, Device: "/CPU:1"},
			wantDescription: "fused graph in fp32", wantLength: 64},
		{name: "precision that the weights do not have", source: repository.Source{Dir: fused},
			opts: &tfmodel.Options{Model: tfbert.Options{Precision: tfbert.BF16}}, wantErr: "bf16"},
		{name: "precision before the configuration's", source: repository.Source{Dir: reference, MixedPrecision: true},
			opts:            &tfmodel.Options{Model: tfbert.Options{Precision: tfbert.FP32}},
			wantDescription: "reference graph in fp32", wantLength: 384},
	}
	if tfbert.FP16Support() != nil {
		mixed, gpu := tests[0], tests[0]
		mixed.name, mixed.source.MixedPrecision = "mixed precision without a GPU", true
		mixed.wantLog = "the configuration asks for auto_mixed_precision, which is for GPUs"
		gpu.name, gpu.source.Device = "a GPU that is not there", "/GPU:0"
		gpu.wantLog = "the configuration asks for a GPU, and TensorFlow has none"
		tests = append(tests, mixed, gpu)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			opts := tfmodel.Options{}
			if tt.opts != nil {
				opts = *tt.opts
			}
			opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
			tt.source.Name, tt.source.Version = "bert", 1
			b, err := tfmodel.Loader(&opts)(t.Context(), tt.source)
			if tt.wantErr != "" {
				assert.ErrorContains(t, err, tt.wantErr)
				return
			}
			require.NoError(t, err)
			defer func() { assert.NoError(t, b.Close()) }()
			assert.Equal(t, tt.wantDescription, b.Description)
			assert.Equal(t, tt.wantLength, b.SeqLength)
			assert.Contains(t, log.String(), tt.wantLog)
			assert.Greater(t, b.Bytes, int64(10<<20))
			assert.Equal(t, []string{"input_ids", "input_mask", "segment_ids", "unique_ids"}, names(b.Inputs))
			assert.Contains(t, names(b.Outputs), "start_logits")
		})
	}
}

func names(tensors []repository.TensorInfo) (list []string) {
	for _, t := range tensors {
		list = append(list, t.Name)
	}
	return list
}
