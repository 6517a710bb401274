package clienttest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// TestClients serves the bundled model to clients of other servers: the Python packages of Triton,
// TensorFlow Serving and Hugging Face, in the scripts of testdata, and grpcurl. Then it holds the metrics
// against Prometheus's own linter and against the statistics. The clients of one server ask in turn, because
// they count what it counts.
func TestClients(t *testing.T) {
	t.Parallel()
	testenv.Long(t, "starts servers and the clients of others")
	vocab := filepath.Join(testenv.Model(t), "vocab.txt")
	demo := filepath.Join(testenv.Root(t), "testdata", "models", "demo.json")
	dir := t.TempDir()
	model := exportModel(t)
	writeFeatures := func(t *testing.T, length string) string {
		out := filepath.Join(dir, length+".npz")
		runTFBERT(t, "features", "--vocab_file", vocab, "--predict_file", demo,
			"--max_seq_length", length, "--out", out)
		return out
	}

	t.Run("model", func(t *testing.T) {
		t.Parallel()
		short := writeFeatures(t, "128")
		s := startServer(t, "--model", model, "--model_name", bundledName,
			"--model_control_mode", "explicit", "--priority_levels", "2", "--allow_client_shm")
		t.Run("triton_repository", func(t *testing.T) { runClient(t, s) })
		t.Run("triton_http", func(t *testing.T) { runClient(t, s, "--features", short) })
		t.Run("triton_grpc", func(t *testing.T) { runClient(t, s, "--features", short) })
		t.Run("triton_aio", func(t *testing.T) { runClient(t, s, "--features", short) })
		t.Run("tensorflow_serving_client", func(t *testing.T) { runClient(t, s, "--features", short) })
		t.Run("hugging_face", func(t *testing.T) { runClient(t, s) })
		t.Run("grpcurl", func(t *testing.T) { testGRPCurl(t, s) })
		t.Run("perf_analyzer", func(t *testing.T) { testPerfAnalyzer(t, s) })
		t.Run("metrics", func(t *testing.T) { testMetrics(t, s) })
		assert.NotContains(t, s.logged(), "level=ERROR") // whatever clients do
	})

	// The layout and the configuration of TensorFlow Serving.
	t.Run("configured", func(t *testing.T) {
		t.Parallel()
		testenv.Clients(t)
		base := filepath.Join(dir, "serving", "bert")
		require.NoError(t, os.MkdirAll(base, 0o777))
		for _, version := range []string{"1", "2"} {
			require.NoError(t, os.Symlink(model, filepath.Join(base, version)))
		}
		config := filepath.Join(dir, "serving", "models.config")
		require.NoError(t, os.WriteFile(config, []byte(`model_config_list { config {
			name: "bert" base_path: "bert" model_version_policy { all {} } version_labels { key: "stable" value: 1 } } }`), 0o666))
		s := startServer(t, "--model_config_file", config, "--model_control_mode", "explicit")
		t.Run("tensorflow_serving_labels", func(t *testing.T) { runClient(t, s, "--model", "bert", "--base", base) })
	})

	// A repository as NVIDIA's export script leaves it, whose windows all have the same length.
	t.Run("repository", func(t *testing.T) {
		t.Parallel()
		testenv.Clients(t)
		repository := filepath.Join(dir, "triton_models")
		require.NoError(t, os.MkdirAll(filepath.Join(repository, "bert", "1"), 0o777))
		require.NoError(t, os.Symlink(model, filepath.Join(repository, "bert", "1", "model.savedmodel")))
		config := filepath.Join(repository, "bert", "config.pbtxt")
		require.NoError(t, os.WriteFile(config, []byte(testenv.NVIDIAConfig), 0o666))
		const token = "0123456789abcdef"
		tokenFile := filepath.Join(dir, "token")
		require.NoError(t, os.WriteFile(tokenFile, []byte(token+"\n"), 0o600))
		s := startServer(t, "--model_repository", repository, "--model_control_mode", "explicit",
			"--load_model", "bert", "--admin_token_file", tokenFile)
		t.Run("triton_repository", func(t *testing.T) { runClient(t, s, "--model", "bert", "--token", token) })

		want := filepath.Join(dir, "predict")
		runTFBERT(t, "predict", "--model", model, "--predict_file", demo, "--output_dir", want, "--pad_to_max")
		long := writeFeatures(t, "384")
		for _, size := range []string{"4", "1"} {
			t.Run("nvidia_client", func(t *testing.T) {
				logits, got := filepath.Join(dir, size+".npy"), filepath.Join(dir, "decode"+size)
				runClient(t, s, "--model", "bert", "--features", long, "--logits", logits, "--batch-size", size)
				runTFBERT(t, "decode", "--vocab_file", vocab, "--predict_file", demo,
					"--logits", logits, "--output_dir", got)
				assert.Equal(t, readPredictions(t, want), readPredictions(t, got))
			})
		}
	})
}

// runClient runs the script of testdata that the test is named for.
func runClient(t *testing.T, s *testServer, args ...string) {
	t.Helper()
	name, _, _ := strings.Cut(filepath.Base(t.Name()), "#") // of the second test of a name
	script := filepath.Join("testdata", name+".py")
	// -B leaves no compiled files in testdata.
	args = append([]string{"-B", script, "--http", s.http, "--grpc", s.grpc}, args...)
	cmd := exec.CommandContext(t.Context(), testenv.Clients(t), args...)
	cmd.Env = append(os.Environ(),
		"NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1", "PYTHONUNBUFFERED=1", "TF_CPP_MIN_LOG_LEVEL=3")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
}

func readPredictions(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "predictions.json"))
	require.NoError(t, err)
	return string(text)
}

// testPerfAnalyzer measures the model and its text model by Triton's own tool, over HTTP with the server's metrics and over
// gRPC.
func testPerfAnalyzer(t *testing.T, s *testServer) {
	tool, libraries := testenv.PerfAnalyzer(t)
	questions := filepath.Join(t.TempDir(), "questions.json")
	require.NoError(t, os.WriteFile(questions, []byte(
		`{"data":[{"QUESTION":["Who wrote it?"],"CONTEXT":["It was written by Ada Lovelace."]}]}`), 0o666))
	tensors := []string{"-m", bundledName, "-z"} // of zeros
	for _, name := range []string{"input_ids", "input_mask", "segment_ids"} {
		tensors = append(tensors, "--shape", name+":64")
	}
	for protocol, address := range map[string]string{"http": s.http, "grpc": s.grpc} {
		for _, model := range [][]string{tensors, {"-m", bundledName + "_qa", "--input-data", questions}} {
			args := append([]string{"-i", protocol, "-u", address, "--concurrency-range", "2", "--request-count", "20",
				"--collect-metrics", "--metrics-url", s.http + "/metrics", "--metrics-interval", "50"}, model...)
			cmd := exec.CommandContext(t.Context(), tool, args...)
			cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries, "no_proxy=127.0.0.1")
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Contains(t, string(out), "Request count: 20\n", "%s", out)
			assert.Contains(t, string(out), "Server Prometheus Metrics", "%s", out)
		}
	}
}

// testGRPCurl calls the services of the server by what reflection alone says about them.
func testGRPCurl(t *testing.T, s *testServer) {
	tool := testenv.GRPCurl(t)
	grpcurl := func(body string, args ...string) (string, error) {
		all := []string{"-plaintext"}
		if body != "" {
			all = append(all, "-d", body)
		}
		out, err := exec.CommandContext(t.Context(), tool, append(append(all, s.grpc), args...)...).CombinedOutput()
		return string(out), err
	}
	call := func(response any, body, method string) {
		t.Helper()
		out, err := grpcurl(body, method)
		require.NoError(t, err, out)
		require.NoError(t, json.Unmarshal([]byte(out), response), out)
	}

	out, err := grpcurl("", "list")
	require.NoError(t, err, out)
	assert.Equal(t, []string{
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
		"inference.GRPCInferenceService", "tensorflow.serving.ModelService", "tensorflow.serving.PredictionService",
	}, strings.Fields(out))
	for _, service := range strings.Fields(out) {
		about, err := grpcurl("", "describe", service)
		require.NoError(t, err, about)
	}
	out, err = grpcurl("", "describe", "inference.GRPCInferenceService")
	require.NoError(t, err, out)
	assert.Contains(t, out, "rpc ModelInfer ( .inference.ModelInferRequest ) returns ( .inference.ModelInferResponse );")
	assert.Contains(t, out, "rpc ModelStreamInfer ( stream .inference.ModelInferRequest ) "+
		"returns ( stream .inference.ModelStreamInferResponse );")
	out, err = grpcurl("", "describe", "tensorflow.serving.PredictRequest")
	require.NoError(t, err, out)
	assert.Contains(t, out, "map<string, .tensorflow.TensorProto> inputs = 2;")

	var metadata struct {
		Name       string
		Extensions []string
	}
	call(&metadata, "", "inference.GRPCInferenceService/ServerMetadata")
	assert.Equal(t, "tfbert", metadata.Name)
	assert.Contains(t, metadata.Extensions, "statistics")

	textTensor := func(name, value string) string {
		return fmt.Sprintf(`{"name":%q,"datatype":"BYTES","shape":[1,1],"contents":{"bytes_contents":[%q]}}`,
			name, base64.StdEncoding.EncodeToString([]byte(value)))
	}
	int32Tensor := func(name, shape, values string) string {
		return fmt.Sprintf(`{"name":%q,"datatype":"INT32","shape":%s,"contents":{"int_contents":%s}}`, name, shape, values)
	}
	const modelInfer = "inference.GRPCInferenceService/ModelInfer"
	var infer struct {
		ID         string
		Outputs    []struct{ Name, Datatype string }
		RawOutputs [][]byte `json:"rawOutputContents"`
	}
	call(&infer, fmt.Sprintf(`{"model_name":"%s_qa","id":"7","inputs":[%s,%s],"outputs":[{"name":"ANSWER"}]}`,
		bundledName, textTensor("QUESTION", "Who wrote it?"),
		textTensor("CONTEXT", "It was written by Ada Lovelace.")), modelInfer)
	require.Len(t, infer.Outputs, 1)
	assert.Equal(t, "7", infer.ID)
	assert.Equal(t, "ANSWER", infer.Outputs[0].Name)
	assert.Equal(t, [][]byte{[]byte("\x0c\x00\x00\x00Ada Lovelace")}, infer.RawOutputs)

	call(&infer, fmt.Sprintf(`{"model_name":%q,"inputs":[%s,%s,%s,%s]}`, bundledName,
		int32Tensor("input_ids", "[1,3]", "[1,1,1]"), int32Tensor("input_mask", "[1,3]", "[1,1,1]"),
		int32Tensor("segment_ids", "[1,3]", "[1,1,1]"), int32Tensor("unique_ids", "[1,1]", "[7]")), modelInfer)
	require.Len(t, infer.RawOutputs, 3)

	var status struct {
		Versions []struct{ Version, State string } `json:"modelVersionStatus"`
	}
	call(&status, `{"model_spec":{"name":"`+bundledName+`"}}`, "tensorflow.serving.ModelService/GetModelStatus")
	require.Len(t, status.Versions, 1)
	assert.Equal(t, "AVAILABLE", status.Versions[0].State)

	var signatures struct {
		Metadata map[string]struct {
			Type string `json:"@type"`
			Defs map[string]struct{ MethodName string }
		}
	}
	call(&signatures, `{"model_spec":{"name":"`+bundledName+`"},"metadata_field":["signature_def"]}`,
		"tensorflow.serving.PredictionService/GetModelMetadata")
	assert.Equal(t, "type.googleapis.com/tensorflow.serving.SignatureDefMap", signatures.Metadata["signature_def"].Type)

	for _, service := range []string{"", "inference.GRPCInferenceService", bundledName, bundledName + "_qa"} {
		var health struct{ Status string }
		call(&health, `{"service":"`+service+`"}`, "grpc.health.v1.Health/Check")
		assert.Equal(t, "SERVING", health.Status, service)
	}
	for method, body := range map[string]string{
		"grpc.health.v1.Health/Check":                    `{"service":"another"}`,
		"inference.GRPCInferenceService/ModelMetadata":   `{"name":"another"}`,
		"tensorflow.serving.ModelService/GetModelStatus": `{"model_spec":{"name":"another"}}`,
	} {
		out, err := grpcurl(body, method)
		require.Error(t, err)
		assert.Contains(t, out, "Code: NotFound", method)
	}
}

// testMetrics compares the server's metrics with its statistics. No client may ask meanwhile.
func testMetrics(t *testing.T, s *testServer) {
	get := func(path string) []byte {
		response, err := http.Get("http://" + s.http + path)
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, http.StatusOK, response.StatusCode)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return body
	}
	// Traffic of its own, for the clients before may be missing here.
	_, err := s.ask(t.Context(), "Who wrote it?", "It was written by Ada Lovelace.")
	require.NoError(t, err)
	infer := `{"inputs":[
		{"name":"input_ids","datatype":"INT32","shape":[1,3],"data":[101,102,102]},
		{"name":"input_mask","datatype":"INT32","shape":[1,3],"data":[1,1,1]},
		{"name":"segment_ids","datatype":"INT32","shape":[1,3],"data":[0,0,1]},
		{"name":"unique_ids","datatype":"INT32","shape":[1,1],"data":[0]}]}`
	url := "http://" + s.http + "/v2/models/" + bundledName + "/infer"
	response, err := http.Post(url, "application/json", strings.NewReader(infer))
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)

	var figures map[string]float64
	for _, path := range []string{"/metrics", "/monitoring/prometheus/metrics"} {
		text := get(path)
		problems, err := promlint.New(bytes.NewReader(text)).Lint()
		require.NoError(t, err, path)
		for _, p := range problems {
			// Triton's and TensorFlow Serving's names, for their dashboards: colons, microseconds, counters without _total.
			others := strings.HasPrefix(p.Metric, "nv_") || strings.HasPrefix(p.Metric, ":tensorflow:")
			assert.True(t, others, "%s: %s: %s", path, p.Metric, p.Text)
		}
		figures = readMetrics(t, text)
	}

	type duration struct {
		Count float64
		NS    float64
	}
	var statistics struct {
		Models []struct {
			Name, Version  string
			InferenceCount float64 `json:"inference_count"`
			ExecutionCount float64 `json:"execution_count"`
			Inference      struct {
				Success, Fail, Queue duration
				Input                duration `json:"compute_input"`
				Compute              duration `json:"compute_infer"`
				Output               duration `json:"compute_output"`
			} `json:"inference_stats"`
		} `json:"model_stats"`
	}
	require.NoError(t, json.Unmarshal(get("/v2/models/stats"), &statistics))
	require.Len(t, statistics.Models, 2)
	for _, m := range statistics.Models {
		triton := func(name string) float64 {
			value, ok := figures[fmt.Sprintf(`nv_inference_%s{model=%q,version=%q}`, name, m.Name, m.Version)]
			assert.True(t, ok, name)
			return value
		}
		assert.NotZero(t, m.Inference.Success.Count, "no traffic")
		assert.Equal(t, m.Inference.Success.Count, triton("request_success"))
		assert.Equal(t, m.Inference.Fail.Count, triton("request_failure"))
		assert.Equal(t, m.InferenceCount, triton("count"))
		assert.Equal(t, m.ExecutionCount, triton("exec_count"))
		for name, d := range map[string]duration{
			"request": m.Inference.Success, "queue": m.Inference.Queue, "compute_input": m.Inference.Input,
			"compute_infer": m.Inference.Compute, "compute_output": m.Inference.Output,
		} {
			assert.InDelta(t, d.NS/1000, triton(name+"_duration_us"), 1, name)
		}
	}
}

// readMetrics reads Prometheus's text form: a value by the name with its labels.
func readMetrics(t *testing.T, text []byte) map[string]float64 {
	list := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndex(line, " ")
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
		require.NoError(t, err, line)
		list[line[:at]] = value
	}
	return list
}
