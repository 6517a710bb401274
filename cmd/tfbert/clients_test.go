package main

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
// TensorFlow Serving and Hugging Face, in the scripts of testdata/clients, and grpcurl. Then it holds
// the metrics against Prometheus's own linter and against the statistics. Those who ask one server do so
// in turn, for they count what it counts.
func TestClients(t *testing.T) {
	t.Parallel() // with the scripts: clients wait, and their imports take one CPU
	testenv.Long(t, "starts servers and the clients of others")
	testenv.TensorFlow(t)
	checkpoint := testenv.Model(t)
	demo := filepath.Join(testenv.Root(t), "testdata", "models", "demo.json")
	dir := t.TempDir()
	model, err := shared.model()
	require.NoError(t, err)
	features := func(t *testing.T, length string) string {
		out := filepath.Join(dir, length+".npz")
		runTFBERT(t, "features", "--vocab_file", filepath.Join(checkpoint, "vocab.txt"), "--predict_file", demo,
			"--max_seq_length", length, "--out", out)
		return out
	}

	t.Run("model", func(t *testing.T) {
		t.Parallel()
		short := features(t, "128")
		s := startServer(t, "--model", model, "--model_name", bundledName,
			"--model_control_mode", "explicit", "--priority_levels", "2")
		t.Run("triton_repository", func(t *testing.T) { runClient(t, s) })
		t.Run("triton_http", func(t *testing.T) { runClient(t, s, "--features", short) })
		t.Run("triton_grpc", func(t *testing.T) { runClient(t, s, "--features", short) })
		t.Run("triton_aio", func(t *testing.T) { runClient(t, s, "--features", short) })
		t.Run("tensorflow_serving_client", func(t *testing.T) { runClient(t, s, "--features", short) })
		t.Run("hugging_face", func(t *testing.T) { runClient(t, s) })
		t.Run("grpcurl", func(t *testing.T) { testGRPCurl(t, s) })
		t.Run("metrics", func(t *testing.T) { testMetrics(t, s) })
		assert.NotContains(t, s.logged(), "level=ERROR") // for nothing that clients do
	})

	// A repository as NVIDIA's export script leaves it, whose windows all have the same length.
	t.Run("repository", func(t *testing.T) {
		t.Parallel()
		testenv.Clients(t)
		repository := filepath.Join(dir, "triton_models")
		require.NoError(t, os.MkdirAll(filepath.Join(repository, "bert", "1"), 0o777))
		require.NoError(t, os.Symlink(model, filepath.Join(repository, "bert", "1", "model.savedmodel")))
		require.NoError(t, os.WriteFile(filepath.Join(repository, "bert", "config.pbtxt"), []byte(testenv.NVIDIAConfig), 0o666))
		const token = "0123456789abcdef"
		tokenFile := filepath.Join(dir, "token")
		require.NoError(t, os.WriteFile(tokenFile, []byte(token+"\n"), 0o600))
		s := startServer(t, "--model_repository", repository, "--model_control_mode", "explicit", "--load_model", "bert",
			"--admin_token_file", tokenFile)
		t.Run("triton_repository", func(t *testing.T) { runClient(t, s, "--model", "bert", "--token", token) })

		want := filepath.Join(dir, "predict")
		runTFBERT(t, "predict", "--model", model, "--predict_file", demo, "--output_dir", want,
			"--pad_to_max")
		long := features(t, "384")
		for _, size := range []string{"4", "1"} {
			t.Run("nvidia_client", func(t *testing.T) {
				logits, got := filepath.Join(dir, size+".npy"), filepath.Join(dir, "decode"+size)
				runClient(t, s, "--model", "bert", "--features", long, "--logits", logits, "--batch-size", size)
				runTFBERT(t, "decode", "--vocab_file", filepath.Join(checkpoint, "vocab.txt"), "--predict_file", demo,
					"--logits", logits, "--output_dir", got)
				assert.Equal(t, readPredictedFile(t, want), readPredictedFile(t, got))
			})
		}
	})
}

// runClient runs the script of testdata/clients that the test is named for.
func runClient(t *testing.T, s *testServer, args ...string) {
	name, _, _ := strings.Cut(filepath.Base(t.Name()), "#") // of the second test of a name
	script := filepath.Join("testdata", "clients", name+".py")
	// -B leaves no compiled files in testdata.
	cmd := exec.CommandContext(t.Context(), testenv.Clients(t), append([]string{"-B", script, "--http", s.http, "--grpc", s.grpc}, args...)...)
	cmd.Env = append(os.Environ(), "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1", "PYTHONUNBUFFERED=1", "TF_CPP_MIN_LOG_LEVEL=3")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
}

func runTFBERT(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tfbert", args...).CombinedOutput()
	require.NoError(t, err, "tfbert %s:\n%s", strings.Join(args, " "), out)
}

func readPredictedFile(t *testing.T, dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "predictions.json"))
	require.NoError(t, err)
	return string(text)
}

// testGRPCurl knows the services by reflection alone.
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
	answer := func(to any, body, method string) {
		t.Helper()
		out, err := grpcurl(body, method)
		require.NoError(t, err, out)
		require.NoError(t, json.Unmarshal([]byte(out), to), out)
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
	assert.Contains(t, out, "rpc ModelStreamInfer ( stream .inference.ModelInferRequest ) returns ( stream .inference.ModelStreamInferResponse );")
	out, err = grpcurl("", "describe", "tensorflow.serving.PredictRequest")
	require.NoError(t, err, out)
	assert.Contains(t, out, "map<string, .tensorflow.TensorProto> inputs = 2;")

	var metadata struct {
		Name       string
		Extensions []string
	}
	answer(&metadata, "", "inference.GRPCInferenceService/ServerMetadata")
	assert.Equal(t, "tfbert", metadata.Name)
	assert.Contains(t, metadata.Extensions, "statistics")

	text := func(name, value string) string {
		return fmt.Sprintf(`{"name":%q,"datatype":"BYTES","shape":[1,1],"contents":{"bytes_contents":[%q]}}`,
			name, base64.StdEncoding.EncodeToString([]byte(value)))
	}
	var infer struct {
		ID         string
		Outputs    []struct{ Name, Datatype string }
		RawOutputs [][]byte `json:"rawOutputContents"`
	}
	answer(&infer, fmt.Sprintf(`{"model_name":"%s_qa","id":"7","inputs":[%s,%s],"outputs":[{"name":"ANSWER"}]}`, bundledName,
		text("QUESTION", "Who wrote it?"), text("CONTEXT", "It was written by Ada Lovelace.")), "inference.GRPCInferenceService/ModelInfer")
	require.Len(t, infer.Outputs, 1)
	assert.Equal(t, "7", infer.ID)
	assert.Equal(t, "ANSWER", infer.Outputs[0].Name)
	assert.Equal(t, [][]byte{[]byte("\x0c\x00\x00\x00Ada Lovelace")}, infer.RawOutputs)

	row := func(name string) string {
		return fmt.Sprintf(`{"name":%q,"datatype":"INT32","shape":[1,3],"contents":{"int_contents":[1,1,1]}}`, name)
	}
	answer(&infer, fmt.Sprintf(`{"model_name":%q,"inputs":[%s,%s,%s,{"name":"unique_ids","datatype":"INT32","shape":[1,1],"contents":{"int_contents":[7]}}]}`,
		bundledName, row("input_ids"), row("input_mask"), row("segment_ids")), "inference.GRPCInferenceService/ModelInfer")
	require.Len(t, infer.RawOutputs, 3)

	var status struct {
		Versions []struct{ Version, State string } `json:"modelVersionStatus"`
	}
	answer(&status, `{"model_spec":{"name":"`+bundledName+`"}}`, "tensorflow.serving.ModelService/GetModelStatus")
	require.Len(t, status.Versions, 1)
	assert.Equal(t, "AVAILABLE", status.Versions[0].State)

	var signatures struct {
		Metadata map[string]struct {
			Type string `json:"@type"`
			Defs map[string]struct{ MethodName string }
		}
	}
	answer(&signatures, `{"model_spec":{"name":"`+bundledName+`"},"metadata_field":["signature_def"]}`, "tensorflow.serving.PredictionService/GetModelMetadata")
	assert.Equal(t, "type.googleapis.com/tensorflow.serving.SignatureDefMap", signatures.Metadata["signature_def"].Type)

	for _, service := range []string{"", "inference.GRPCInferenceService", bundledName, bundledName + "_qa"} {
		var health struct{ Status string }
		answer(&health, `{"service":"`+service+`"}`, "grpc.health.v1.Health/Check")
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

// testMetrics needs that nothing else asks the server now.
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
	infer := `{"inputs":[{"name":"input_ids","datatype":"INT32","shape":[1,3],"data":[101,102,102]},{"name":"input_mask","datatype":"INT32","shape":[1,3],"data":[1,1,1]},
		{"name":"segment_ids","datatype":"INT32","shape":[1,3],"data":[0,0,1]},{"name":"unique_ids","datatype":"INT32","shape":[1,1],"data":[0]}]}`
	response, err := http.Post("http://"+s.http+"/v2/models/"+bundledName+"/infer", "application/json", strings.NewReader(infer))
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)

	var figures map[string]float64
	for _, path := range []string{"/metrics", "/monitoring/prometheus/metrics"} {
		text := get(path)
		problems, err := promlint.New(bytes.NewReader(text)).Lint()
		require.NoError(t, err, path)
		for _, p := range problems {
			// Triton's names, for its dashboards: microseconds, and counters without _total.
			assert.True(t, strings.HasPrefix(p.Metric, "nv_inference_"), "%s: %s: %s", path, p.Metric, p.Text)
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
		figure := func(name string) float64 {
			value, ok := figures[fmt.Sprintf(`nv_inference_%s{model=%q,version=%q}`, name, m.Name, m.Version)]
			assert.True(t, ok, name)
			return value
		}
		assert.NotZero(t, m.Inference.Success.Count, "there was no traffic")
		assert.Equal(t, m.Inference.Success.Count, figure("request_success"))
		assert.Equal(t, m.Inference.Fail.Count, figure("request_failure"))
		assert.Equal(t, m.InferenceCount, figure("count"))
		assert.Equal(t, m.ExecutionCount, figure("exec_count"))
		for name, d := range map[string]duration{
			"request": m.Inference.Success, "queue": m.Inference.Queue, "compute_input": m.Inference.Input,
			"compute_infer": m.Inference.Compute, "compute_output": m.Inference.Output,
		} {
			assert.InDelta(t, d.NS/1000, figure(name+"_duration_us"), 1, name)
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
