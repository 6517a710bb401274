package serve

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/fakemodel"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
)

const tensorBody = `{"inputs":[
	{"name":"input_ids","datatype":"INT32","shape":[1,4],"data":[2,7,3,9]},
	{"name":"input_mask","datatype":"INT32","shape":[1,4],"data":[[1,1,1,1]]},
	{"name":"segment_ids","datatype":"INT32","shape":[1,4],"data":[0,0,0,1]},
	{"name":"unique_ids","datatype":"INT32","shape":[1,1],"data":[5]}]}`

const predictRows = `{"instances":[
	{"input_ids":[2,7,3,9],"input_mask":[1,1,1,1],"segment_ids":[0,0,0,1],"unique_ids":5}]}`

// bytesInput returns the JSON of an input with one row of text; rest is its data or its parameters.
func bytesInput(name, rest string) string {
	return `{"name":"` + name + `","datatype":"BYTES","shape":[1],` + rest + `}`
}

// textBody returns the JSON of an inference request to the text model.
func textBody(question, document string) string {
	return `{"id":"x","inputs":[` + bytesInput("QUESTION", `"data":["`+question+`"]`) + `,` +
		bytesInput("CONTEXT", `"data":["`+document+`"]`) + `],"outputs":[{"name":"ANSWER"}]}`
}

// bodies are requests that each protocol answers.
var bodies = map[string]string{
	"/v1/answer":              question(9),
	"/":                       `{"inputs":` + question(9) + `}`,
	"/v2/models/bert/infer":   tensorBody,
	"/v1/models/bert:predict": predictRows,
}

// Every route answers as its protocol has it.
func TestRoutes(t *testing.T) {
	f := newFixture(t, &setup{repo: repository.Options{Control: repository.ControlExplicit}})
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/healthz", "", 200, `{}`},
		{"HEAD", "/healthz", "", 200, ``},
		{"GET", "/readyz", "", 200, `{}`},
		{"GET", "/", "", 200, `<title>`},
		{"HEAD", "/", "", 200, ``},
		{"GET", "/page.js", "", 200, `const $`},
		{"GET", "/metrics", "", 200, `tfbert_ready 1`},
		{"GET", "/monitoring/prometheus/metrics", "", 200, `nv_inference_count`},

		{"POST", "/v1/answer", question(1), 200,
			`{"answer":"w1","probability":1,"start":4,"end":6,"document":0,"model":"bert","version":"1","n_best":[{`},
		{"POST", "/v1/answer",
			`{"question":"find w1","documents":["x","🦉 w1"],"version_2_with_negative":true,"n_best_size":1}`,
			200, `"start":2,"end":4,"document":1,"null_odds":`},
		{"POST", "/v1/answer", `{"requests":[` + question(1) + `,{"question":""},` + question(2) + `]}`, 200,
			`{"error":"the question is empty"}`},
		{"POST", "/v1/answer", `{"requests":[{"question":""}]}`, 400, `the question is empty`},
		{"POST", "/v1/answer", `{"question":"find w1","context":"w1","stream":true}`, 200, `"windows_done":1`},
		{"POST", "/v1/answer", `{"question":"find w1","context":"w1","model":"other"}`, 404, `there is no model`},
		{"POST", "/v1/answer", `{"question":"find w1","context":"w1","model":"../bert"}`, 404, `there is no model`},
		{"POST", "/v1/answer", `{"question":"find w1","context":"w1","version":"7"}`, 404, `no version 7`},
		{"POST", "/v1/answer", `{"question":"find w1","context":"w1","version":"-7"}`, 400, `is not a valid version`},
		{"GET", "/v1/models", "", 200, `{"models":[{"name":"bert","version":"1","state":"AVAILABLE",` +
			`"max_seq_length":96,"version_2_with_negative":false}]}`},

		{"POST", "/", `{"inputs":{"question":"find w1","context":"🦉 w1"}}`, 200, `"start":2,"end":4,"answer":"w1"}`},
		{"POST", "/models/bert", `{"inputs":[{"question":"find w1","context":"w1"}],"parameters":{"top_k":2}}`, 200,
			`[[{"score":`},
		{"POST", "/pipeline/question-answering/bert", `{"inputs":[{"question":"find w1","context":"w1"}]}`, 200,
			`[{"score":`},
		{"POST", "/models/bert", `{"inputs":[]}`, 200, `[]`},
		{"POST", "/models/bert", `{}`, 400, `inputs are missing`},
		{"POST", "/models/bert", `{"inputs":null}`, 400, `the question is empty`},
		{"POST", "/models/bert", `{"inputs":"x"}`, 400, `must be an object`},
		{"POST", "/models/bert", `{"inputs":{"question":"find w1","context":"w1"},"parameters":{"top_k":0}}`, 400,
			`top_k is 0`},
		{"POST", "/models/bert", `{"inputs":{"question":"find w1","context":"w1"},"parameters":{"top_k":1000000000}}`, 400,
			`n_best_size is`},
		{"POST", "/models/other", `{"inputs":{"question":"find w1","context":"w1"}}`, 404, `there is no model`},

		{"GET", "/v2", "", 200, `{"name":"tfbert","version":"1.2.3","extensions":["model_repository",`},
		{"GET", "/v2/health/live", "", 200, `{"live":true}`},
		{"GET", "/v2/health/ready", "", 200, `{"ready":true}`},
		{"GET", "/v2/models/bert", "", 200, `{"name":"bert","versions":["1"],"platform":"tensorflow_savedmodel",` +
			`"inputs":[{"name":"input_ids","datatype":"INT32","shape":[-1,-1]}`},
		{"GET", "/v2/models/bert_qa/versions/1", "", 200, `"inputs":[{"name":"QUESTION","datatype":"BYTES","shape":[-1,1]}`},
		{"GET", "/v2/models/bert/ready", "", 200, `{"name":"bert","ready":true}`},
		{"GET", "/v2/models/bert/versions/2/ready", "", 404, `no version 2`},
		{"GET", "/v2/models/bert/versions/x/ready", "", 400, `is not a valid version`},
		{"GET", "/v2/models/bert/config", "", 200, `"max_batch_size":8`},
		{"GET", "/v2/models/bert_qa/config", "", 200, `"platform":"","backend":"tfbert"`},
		{"GET", "/v2/models/bert/stats", "", 200, `{"model_stats":[{"name":"bert","version":"1",`},
		{"GET", "/v2/models/stats", "", 200, `{"name":"bert_qa","version":"1",`},
		{"GET", "/v2/models/other/stats", "", 404, `there is no model`},
		{"GET", "/v2/models/other", "", 404, `there is no model`},
		{"POST", "/v2/models/bert/infer", tensorBody, 200, `{"model_name":"bert","model_version":"1","outputs":[` +
			`{"name":"start_logits","datatype":"FP32","shape":[1,4],"data":[`},
		{"POST", "/v2/models/bert_qa/infer", textBody("find w1", "w1"), 200,
			`{"model_name":"bert_qa","model_version":"1","id":"x","outputs":[` +
				`{"name":"ANSWER","datatype":"BYTES","shape":[1,1],"data":["w1"]}]}`},
		{"POST", "/v2/repository/index", "", 200,
			`[{"name":"bert","version":"1","state":"READY"},{"name":"bert_qa","version":"1","state":"READY"}]`},
		{"POST", "/v2/repository/index", `{"ready":true}`, 200, `[{"name":"bert"`},
		{"POST", "/v2/repository/models/bert/load", "", 200, `{}`},
		{"POST", "/v2/repository/models/bert/load", `{"parameters":{"file:1/x":"eA=="}}`, 501, `only loads those of its repository`},
		{"POST", "/v2/repository/models/%2e%2e/load", "", 404, `there is no model`},
		{"POST", "/v2/repository/models/..%2f..%2fetc/load", "", 404, `there is no model`},
		{"POST", "/v2/repository/models/bert%00/load", "", 404, `there is no model`},
		{"POST", "/v2/repository/models/%2fetc/unload", "", 404, `is not loaded`},
		{"GET", "/v2/models/..%2fbert", "", 404, `there is no model`},
		{"GET", "/v2/models/bert%2fversions%2f1", "", 404, `there is no model`},

		{"GET", "/v1/models/bert", "", 200,
			`{"model_version_status":[{"version":"1","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}`},
		{"GET", "/v1/models/bert/versions/1", "", 200, `AVAILABLE`},
		{"GET", "/v1/models/bert/versions/2", "", 404, `Could not find any versions of model bert`},
		{"GET", "/v1/models/bert/versions/-2", "", 404, `Could not find any`},
		{"GET", "/v1/models/bert/versions/z", "", 400, `is not a valid version`},
		{"GET", "/v1/models/bert/labels/stable", "", 400, `Unrecognized servable version label: stable`},
		{"GET", "/v1/models/bert/metadata", "", 200, `"method_name":"tensorflow/serving/predict"`},
		{"GET", "/v1/models/bert/versions/1/metadata", "", 200, `"dtype":"DT_INT32"`},
		{"GET", "/v1/models/bert/labels/stable/metadata", "", 400, `label`},
		{"POST", "/v1/models/bert:predict", predictRows, 200, `{"predictions":[{"start_logits":[`},
		{"POST", "/v1/models/bert/versions/1:predict", predictRows, 200, `"unique_ids":5}]}`},
		{"POST", "/v1/models/bert/labels/stable:predict", predictRows, 400, `label`},
		{"POST", "/v1/models/bert_qa:predict", `{"inputs":{"QUESTION":["find w1"],"CONTEXT":["w1"]}}`, 200,
			`{"outputs":{"ANSWER":["w1"],"SCORE":[1],"START":[0],"END":[2]}}`},
		{"POST", "/v1/models/bert_qa:predict", `{"instances":[{"QUESTION":{"b64":"ZmluZCB3MQ=="},"CONTEXT":"w1"}]}`, 200,
			`{"predictions":[{"ANSWER":"w1",`},
		{"POST", "/v1/models/bert:classify", `{}`, 501, `takes tf.Example`},
		{"POST", "/v1/models/bert:zap", `{}`, 404, `use predict`},
		{"POST", "/v1/models/bert", `{}`, 404, `a verb such as :predict is missing`},
		{"POST", "/v1/models/other:predict", `{}`, 404, `Servable not found for request: Latest(other)`},
		{"POST", "/v1/models/bert/versions/9:predict", `{}`, 404, `Servable not found for request: Specific(bert, 9)`},

		{"GET", "/v1/answer", "", 405, `another method`},
		{"POST", "/healthz", "", 405, `another method`},
		{"PUT", "/", "", 405, `another method`},
		{"DELETE", "/v2/models/bert", "", 405, `another method`},
		{"GET", "/v2/models/bert/infer", "", 405, `another method`},
		{"OPTIONS", "/v1/answer", "", 405, `another method`},
		{"GET", "/etc/passwd", "", 404, `no such endpoint: GET /etc/passwd`},
		{"GET", "/debug/pprof/", "", 404, `no such endpoint: GET`},
		{"POST", "/v3", "", 404, `no such endpoint: POST /v3`},
		{"GET", "/v2/models/bert/versions/1/other", "", 404, `no such endpoint: GET`},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			w := f.ask(tt.method, tt.path, []byte(tt.body))
			require.Equal(t, tt.status, w.Code, w.Body.String())
			if tt.status >= 400 {
				requireError(t, tt.status, tt.want, w)
			}
			assert.Contains(t, w.Body.String(), tt.want)
			if w.Header().Get("Content-Type") == "application/json" && tt.method != "HEAD" {
				assert.True(t, json.Valid(w.Body.Bytes()))
			}
		})
	}
	w := f.ask("PUT", "/", nil)
	assert.Equal(t, "GET, HEAD, POST", w.Header().Get("Allow"))
	assert.Contains(t, f.ask("POST", "/v1/answer", nil).Body.String(), "error")
}

// A model that was unloaded by the name of its text model is not available by either.
func TestUnloadedModel(t *testing.T) {
	f := newFixture(t, &setup{repo: repository.Options{Control: repository.ControlExplicit}})
	w := f.ask("POST", "/v2/repository/models/bert_qa/unload", nil)
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), `{}`)
	for _, path := range []string{"/v2/models/bert/ready", "/v2/models/bert_qa/ready"} {
		requireError(t, 503, "is not available: unloaded", f.ask("GET", path, nil))
	}
	w = f.ask("GET", "/v1/models/bert", nil)
	require.Equal(t, 200, w.Code)
	assert.Contains(t, w.Body.String(),
		`"state":"END","status":{"error_code":"UNKNOWN","error_message":"unloaded"}`)
}

// A malformed request is refused, with the reason.
func TestMalformed(t *testing.T) {
	f := newFixture(t, &setup{})
	input := func(s string) string { return strings.Replace(tensorBody, `"data":[2,7,3,9]`, s, 1) }
	shape := func(s string) string { return strings.Replace(tensorBody, `[1,4],"data":[2`, s+`,"data":[2`, 1) }
	instance := func(s string) string { return strings.Replace(predictRows, "[2,7,3,9]", s, 1) }
	const (
		answer  = "/v1/answer"
		infer   = "/v2/models/bert/infer"
		predict = "/v1/models/bert:predict"
		qa      = "/v1/models/bert_qa:predict"
	)
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	for _, tt := range []struct{ path, body, want string }{
		{answer, ``, "is not JSON"},
		{answer, `{`, "is not JSON"},
		{answer, `{"question":"a"`, "is not JSON"},
		{answer, `{"question":"a"}}`, "is not JSON"},
		{answer, `{'question':'a'}`, "is not JSON"},
		{answer, `{"question":"a",}`, "is not JSON"},
		{answer, "{\"question\":\"a\nb\"}", "is not JSON"},
		{answer, "{\"question\":\"\xff\"}", "is not JSON"},
		{answer, `{"question":"\ud800"}`, "is not JSON"},
		{answer, "\xef\xbb\xbf{}", "is not JSON"},
		{answer, `{"question":"a","question":"b"}`, "duplicate"},
		{answer, `[]`, "must be an object"},
		{answer, `"x"`, "must be an object"},
		{answer, `7`, "must be an object"},
		{answer, `null`, "the question is empty"},
		{answer, `{"question":7}`, "question must be a string"},
		{answer, `{"question":"find","context":["a"]}`, "context must be a string"},
		{answer, `{"question":"find","documents":"a"}`, "documents must be an array"},
		{answer, `{"question":"find","documents":[1]}`, "documents.0 must be a string"},
		{answer, `{"question":"find","context":"a","n_best_size":"3"}`, "n_best_size must be a whole number"},
		{answer, `{"question":"find","context":"a","n_best_size":1.5}`, "n_best_size must be a whole number"},
		{answer, `{"question":"find","context":"a","n_best_size":1e30}`, "n_best_size must be a whole number"},
		{answer, `{"question":"find","context":"a","stream":1}`, "stream must be true or false"},
		{answer, `{"question":"find","context":"a","null_score_diff_threshold":NaN}`, "is not JSON"},
		{answer, `{"question":"find","context":"a","null_score_diff_threshold":1e999}`,
			"null_score_diff_threshold must be a number"},
		{answer, `{"question":"find","contxt":"a"}`, "an unknown key: contxt"},
		{answer, `{"question":"find","Context":"a"}`, "an unknown key: Context"},
		{answer, `{"question":"find","context":"a","documents":["b"]}`, "a context or documents, not both"},
		{answer, `{"question":"find"}`, "the context is missing"},
		{answer, `{"question":"find","documents":[]}`, "the context is missing"},
		{answer, `{"question":"find","context":"a","requests":[{}]}`, "send one question, or requests"},
		{answer, `{"requests":[{"requests":[]}]}`, "an unknown key: requests.0.requests"},
		{answer, `{"requests":{}}`, "requests must be an array"},
		{answer, `{"requests":[7]}`, "requests.0 must be an object"},
		{answer, `{"requests":[` + strings.Repeat("{},", 1024) + `{}]}`, "requests has more than 1024 elements"},
		{answer, deep, "must be an object"},
		{answer, strings.Repeat("[", 100000), "must be an object"},
		{answer, strings.Repeat(`{"requests":[`, 5000), "requests"},

		{infer, `{}`, `input "input_ids" is missing`},
		{infer, `{"inputs":{}}`, "inputs must be an array"},
		{infer, `{"inputs":[` + strings.Repeat("{},", 1024) + `{}]}`, "inputs has more than 1024 elements"},
		{infer, `{"inputs":[{"name":"x"}]}`, `input "x" does not have data`},
		{infer, shape(`[1,5]`), "[1 5] but 4 elements"},
		{infer, shape(`[1,-4]`), "which no tensor can have"},
		{infer, shape(`[1048576,1048576,1048576]`), "which no tensor can have"},
		{infer, shape(`[9223372036854775807,9223372036854775807]`), "which no tensor can have"},
		{infer, shape(`[1,9223372036854775808]`), "shape.1 must be a whole number"},
		{infer, shape(`[1,4.5]`), "shape.1 must be a whole number"},
		{infer, shape(`"1,4"`), "shape must be an array"},
		{infer, shape(`[2147483647,1]`), "[2147483647 1] but 4 elements"},
		{infer, shape(`[]`), "[] but 4 elements"},
		{infer, shape(`[4]`), "[4]: it must be [-1 -1]"},
		{infer, shape(`[` + strings.Repeat("1,", 1000) + `4]`), "it must be [-1 -1]"},
		{infer, input(`"data":[2,7,3,2147483648]`), "whole numbers of 32 bits"},
		{infer, input(`"data":[2,7,3,1.5]`), "whole numbers of 32 bits"},
		{infer, input(`"data":[2,7,3,"9"]`), "is INT32 and holds string"},
		{infer, input(`"data":[2,7,3,null]`), "is INT32 and holds null"},
		{infer, input(`"data":[2,7,3,NaN]`), "is not JSON"},
		{infer, input(`"data":[2,7,3,{}]`), "is INT32 and holds {"},
		{infer, input(`"data":7`), "must be an array"},
		{infer, input(`"data":` + deep), "but 0 elements"},
		{infer, input(`"parameters":{"binary_data_size":16}`), "a binary_data_size of 16: 0 bytes are left"},
		{infer, input(`"parameters":{"shared_memory_region":"x","shared_memory_byte_size":16}`), "shared memory is not supported"},
		{infer, input(`"parameters":7,"data":[1]`), "parameters must be an object"},
		{infer, strings.Replace(tensorBody, `INT32`, `FP64`, 1), `is FP64: it must be INT32`},
		{infer, strings.Replace(tensorBody, `]}`, `]}`, 1)[:len(tensorBody)-1] + `,"outputs":[{"name":"x"}]}`,
			`does not have an output "x"`},
		{infer, tensorBody[:len(tensorBody)-1] + `,"outputs":[{"name":"start_logits","parameters":{"classification":2}}]}`,
			"classification is not supported"},

		{predict, `{}`, "send either instances"},
		{predict, `{"instances":[{}],"inputs":{}}`, "send either instances"},
		{predict, `{"instances":[]}`, "instances is empty"},
		{predict, `{"instances":{}}`, "instances must be an array"},
		{predict, `{"instances":[[1,2]]}`, "instance 0 must be an object"},
		{predict, `{"instances":[{}]}`, `input "input_ids" is missing`},
		{predict, `{"instances":[{"x":1}]}`, `does not have an input "x"`},
		{predict, `{"instances":[{"input_ids":[1]},{}]}`, "instance 1 has 0 inputs, the first 1"},
		{predict, `{"instances":[{"input_ids":[1]},{"input_mask":[1]}]}`, `instance 1 does not have "input_ids"`},
		{predict, `{"instances":[{"input_ids":[1]},{"input_ids":[1,2]}]}`,
			`has the shape [2] in instance 1 and [1] in the first`},
		{predict, `{"inputs":{"input_ids":[[1],[1,2]]}}`, "is ragged"},
		{predict, `{"inputs":{"input_ids":[[1],2]}}`, "is ragged"},
		{predict, `{"inputs":[1]}`, "inputs must be an object"},
		{predict, `{"inputs":null}`, "is missing"},
		{predict, `{"inputs":{"input_ids":` + deep + `}}`, "has more than 8 dimensions"},
		{predict, `{"signature_name":"x","inputs":{}}`, `does not have a signature "x"`},
		{predict, instance(`[2,7,3,NaN]`), "is not JSON"},
		{predict, instance(`[2,7,3,Infinity]`), "is not JSON"},
		{predict, instance(`[2,7,3,"9"]`), "is INT32 and holds string"},
		{predict, instance(`[2,7,3,true]`), "is INT32 and holds true"},
		{predict, instance(`[2,7,3,{"b64":"AA=="}]`), "only strings may be one"},
		{predict, instance(`{"b64":"AA=="}`), "only strings may be one"},
		{predict, instance(`[[[2,7,3,9]]]`), "it must be [-1 -1]"},
		{predict, instance(`[2,7,3,99999]`), "it must be from 0 to"},
		{qa, `{"inputs":{"QUESTION":[{"b64":"@"}],"CONTEXT":["a"]}}`, "not valid base64"},
		{qa, `{"inputs":{"QUESTION":[{"b64":"AA==","x":1}],"CONTEXT":["a"]}}`, "only strings may be one"},
		{qa, `{"inputs":{"QUESTION":[{}],"CONTEXT":["a"]}}`, "only strings may be one"},
		{qa, `{"inputs":{"QUESTION":[{"b64":"/w=="}],"CONTEXT":["a"]}}`, "not valid UTF-8"},
		{qa, `{"inputs":{"QUESTION":[7],"CONTEXT":["a"]}}`, "is BYTES and holds number"},
		{qa, `{"inputs":{"QUESTION":["a"],"CONTEXT":["a","b"]}}`, "2 rows, another input 1"},
		{"/v2/repository/index", `{"ready":7}`, "ready must be true or false"},
	} {
		w := f.ask("POST", tt.path, []byte(tt.body))
		status := http.StatusBadRequest
		if strings.Contains(tt.want, "not supported") {
			status = http.StatusNotImplemented
		}
		body := tt.body[:min(len(tt.body), 200)]
		t.Run(body, func(t *testing.T) { requireError(t, status, tt.want, w) })
	}
	assert.NotContains(t, f.log.String(), "level=ERROR")
}

// littleEndian returns numbers of 32 bits as the binary extension has them.
func littleEndian(n ...uint32) (b []byte) {
	for _, x := range n {
		b = append(b, byte(x), byte(x>>8), byte(x>>16), byte(x>>24))
	}
	return b
}

// binaryRequest returns a request whose binary tensors have these sizes, and the header that it needs.
func binaryRequest(sizes [4]int, data []byte) (body []byte, header string) {
	text := fmt.Sprintf(`{"parameters":{"binary_data_output":true},"inputs":[
		{"name":"input_ids","datatype":"INT32","shape":[1,4],"parameters":{"binary_data_size":%d}},
		{"name":"input_mask","datatype":"INT32","shape":[1,4],"parameters":{"binary_data_size":%d}},
		{"name":"segment_ids","datatype":"INT32","shape":[1,4],"parameters":{"binary_data_size":%d}},
		{"name":"unique_ids","datatype":"INT32","shape":[1],"parameters":{"binary_data_size":%d}}]}`,
		sizes[0], sizes[1], sizes[2], sizes[3])
	return append([]byte(text), data...), headerLength + ": " + strconv.Itoa(len(text))
}

func TestBinaryTensors(t *testing.T) {
	f := newFixture(t, &setup{})
	const path = "/v2/models/bert/infer"
	data := littleEndian(2, 7, 3, 9, 1, 1, 1, 1, 0, 0, 0, 1, 5)
	body, header := binaryRequest([4]int{16, 16, 16, 4}, data)
	w := f.ask("POST", path, body, header)
	require.Equal(t, 200, w.Code, w.Body.String())
	n, err := strconv.Atoi(w.Header().Get(headerLength))
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(w.Body.Len()), w.Header().Get("Content-Length"))
	var response struct {
		Outputs []struct {
			Name       string
			Shape      []int
			Parameters map[string]int
		}
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes()[:n], &response))
	require.Len(t, response.Outputs, 3)
	assert.Equal(t, []int{1, 1}, response.Outputs[2].Shape)
	assert.Equal(t, littleEndian(5), w.Body.Bytes()[n+32:])

	for _, tt := range []struct {
		sizes [4]int
		data  []byte
		want  string
	}{
		{[4]int{-1, 16, 16, 4}, data, "a binary_data_size of -1"},
		{[4]int{16, 16, 16, 8}, data, "a binary_data_size of 8: 4 bytes are left"},
		{[4]int{1 << 62, 16, 16, 4}, data, "bytes are left"},
		{[4]int{52, 16, 16, 4}, data, `"input_mask" has a binary_data_size of 16: 0 bytes are left`},
		{[4]int{15, 17, 16, 4}, data, "has 15 bytes: an element of INT32 has 4"},
		{[4]int{12, 20, 16, 4}, data, "[1 4] but 3 elements"},
		{[4]int{16, 16, 16, 0}, data, "the request has 4 bytes more"},
		{[4]int{16, 16, 16, 4}, data[:51], "3 bytes are left"},
		{[4]int{0, 0, 0, 0}, nil, "[1 4] but 0 elements"},
	} {
		body, header := binaryRequest(tt.sizes, tt.data)
		requireError(t, 400, tt.want, f.ask("POST", path, body, header))
	}
	for value, want := range map[string]string{
		"-1": "is \"-1\"", "999999": "is \"999999\"", "x": "is \"x\"", "18446744073709551617": "is \"184",
		"10": "is not JSON", strconv.Itoa(len(body)): "is not JSON", "0x10": "is \"0x10\"", "1e3": "is \"1e3\"",
	} {
		requireError(t, 400, want, f.ask("POST", path, body, headerLength+": "+value))
	}
	requireError(t, 501, "raw bytes alone", f.ask("POST", path, body, headerLength+": 0"))

	// questionRequest returns a request with a binary question.
	questionRequest := func(data []byte) (body []byte, header string) {
		text := `{"inputs":[` + bytesInput("QUESTION", fmt.Sprintf(`"parameters":{"binary_data_size":%d}`, len(data))) +
			`,` + bytesInput("CONTEXT", `"data":["w1"]`) +
			`],"outputs":[{"name":"ANSWER","parameters":{"binary_data":true}}]}`
		return append([]byte(text), data...), headerLength + ": " + strconv.Itoa(len(text))
	}
	body, header = questionRequest(append(littleEndian(7), "find w1"...))
	w = f.ask("POST", "/v2/models/bert_qa/infer", body, header)
	require.Equal(t, 200, w.Code, w.Body.String())
	assert.True(t, bytes.HasSuffix(w.Body.Bytes(), append(littleEndian(2), "w1"...)))
	for _, tt := range []struct {
		want string
		data []byte
	}{
		{"ends within an element", append(littleEndian(8), "find w1"...)},
		{"ends within an element", append(littleEndian(0x80000000), "find w1"...)},
		{"ends within an element", append(littleEndian(0xffffffff), "find w1"...)},
		{"ends within an element", littleEndian(7)[:3]},
		{"ends within an element", append(append(littleEndian(4), "find"...), 0, 0)},
		{"[1] but 0 elements", nil},
		{"[1] but 2 elements", append(append(littleEndian(4), "find"...), littleEndian(0)...)},
		{"the question is empty", littleEndian(0)},
		{"not valid UTF-8", append(littleEndian(1), 0xff)},
	} {
		body, header := questionRequest(tt.data)
		requireError(t, 400, tt.want, f.ask("POST", "/v2/models/bert_qa/infer", body, header))
	}
}

// Logits that are not numbers are reported as each protocol can.
func TestNaN(t *testing.T) {
	f := newFixture(t, &setup{})
	nan := fmt.Sprint(fakemodel.ID(fakemodel.NaN))
	w := f.ask("POST", "/v1/models/bert:predict", []byte(strings.Replace(predictRows, "[2,7", "[2,"+nan, 1)))
	require.Equal(t, 200, w.Code)
	assert.Contains(t, w.Body.String(), `{"start_logits":[NaN,`)
	body := strings.Replace(tensorBody, "[2,7", "[2,"+nan, 1)
	requireError(t, 500, "doubt the model's weights", f.ask("POST", "/v2/models/bert/infer", []byte(body)))
	binary := body[:len(body)-1] + `,"parameters":{"binary_data_output":true}}`
	assert.Equal(t, 200, f.ask("POST", "/v2/models/bert/infer", []byte(binary)).Code)
	requireError(t, 500, "its log says why", f.ask("POST", "/v1/answer", []byte(`{"question":"find nan","context":"a"}`)))
}

// compress returns a body in an encoding, gzip or deflate.
func compress(t testing.TB, encoding string, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if encoding == "deflate" {
		w = zlib.NewWriter(&b)
	}
	_, err := w.Write(body)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestEncodings(t *testing.T) {
	f := newFixture(t, &setup{serve: Options{MaxRequestBytes: 1 << 20}})
	body := []byte(question(1))
	for _, encoding := range []string{"gzip", "deflate", "GZIP", " gzip "} {
		packed := compress(t, strings.ToLower(strings.TrimSpace(encoding)), body)
		w := f.ask("POST", "/v1/answer", packed, "Content-Encoding: "+encoding)
		assert.Equal(t, 200, w.Code, w.Body.String())
	}
	assert.Equal(t, 200, f.ask("POST", "/v1/answer", body, "Content-Encoding: identity").Code)
	packed := compress(t, "gzip", body)
	for _, tt := range []struct {
		encoding string
		body     []byte
		want     string
	}{
		{"br", body, `the Content-Encoding is "br"`},
		{"gzip, gzip", packed, "the Content-Encoding is"},
		{"gzip", body, "the body cannot be read"},
		{"gzip", nil, "the body cannot be read"},
		{"gzip", packed[:len(packed)-4], "the body cannot be read"},
		{"gzip", packed[:12], "the body cannot be read"},
		{"deflate", packed, "the body cannot be read"},
		{"deflate", compress(t, "deflate", body)[:10], "the body cannot be read"},
	} {
		requireError(t, 400, tt.want, f.ask("POST", "/v1/answer", tt.body, "Content-Encoding: "+tt.encoding))
	}

	const limit = 1 << 20
	requireError(t, 413, "more than 1048576 bytes", f.ask("POST", "/v1/answer", make([]byte, limit+1)))
	requireError(t, 400, "is not JSON", f.ask("POST", "/v1/answer", make([]byte, limit)))
	for _, encoding := range []string{"gzip", "deflate"} {
		bomb := compress(t, encoding, make([]byte, 32<<20))
		assert.Less(t, len(bomb), limit)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := f.ask("POST", "/v1/answer", bomb, "Content-Encoding: "+encoding)
		runtime.ReadMemStats(&after)
		requireError(t, 413, "more than 1048576 bytes", w)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20), "bytes")
	}
}

// A small body does not make the server use much memory or time.
func TestAmplification(t *testing.T) {
	f := newFixture(t, &setup{})
	const size = 1 << 20
	infer := func(name, kind string) string {
		return `{"inputs":[{"name":"` + name + `","datatype":"` + kind + `","data":[`
	}
	fill := func(before, element, after string) []byte {
		return []byte(before + strings.Repeat(element+",", size/(len(element)+1)) + element + after)
	}
	for name, tt := range map[string]struct {
		path string
		body []byte
	}{
		"requests":      {"/v1/answer", fill(`{"requests":[`, "{}", "]}")},
		"nested":        {"/v1/answer", fill(`{"requests":[`, `{"requests":[{},{},{},{},{}]}`, "]}")},
		"documents":     {"/v1/answer", fill(`{"question":"a","documents":[`, `""`, "]}")},
		"inputs":        {"/v2/models/bert/infer", fill(`{"inputs":[`, "{}", "]}")},
		"outputs":       {"/v2/models/bert/infer", fill(`{"outputs":[`, "{}", "]}")},
		"shape":         {"/v2/models/bert/infer", fill(`{"inputs":[{"shape":[`, "1", "]}]}")},
		"data":          {"/v2/models/bert/infer", fill(infer("input_ids", "INT32"), "1", "]}]}")},
		"strings":       {"/v2/models/bert_qa/infer", fill(infer("QUESTION", "BYTES"), `""`, "]}]}")},
		"questions":     {"/models/bert", fill(`{"inputs":[`, "{}", "]}")},
		"instances":     {"/v1/models/bert:predict", fill(`{"instances":[`, "{}", "]}")},
		"instance":      {"/v1/models/bert:predict", fill(`{"instances":[{"input_ids":[`, "1", "]}]}")},
		"column":        {"/v1/models/bert:predict", fill(`{"inputs":{"input_ids":[`, "1", "]}}")},
		"deep column":   {"/v1/models/bert:predict", fill(`{"inputs":{"input_ids":[[[[[[[[`, "1", "]]]]]]]]}}")},
		"many deep":     {"/v1/models/bert:predict", fill(`{"inputs":{"input_ids":[`, "[[[[[[[1]]]]]]]", "]}}")},
		"unknown":       {"/v1/models/bert:predict", fill(`{"x":[`, "{}", "]}")},
		"empty strings": {"/v2/models/bert_qa/infer", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if tt.body == nil {
				text := `{"inputs":[` + bytesInput("QUESTION", fmt.Sprintf(`"parameters":{"binary_data_size":%d}`, size)) + `]}`
				tt.body = append([]byte(text), make([]byte, size)...)
				headers = []string{headerLength + ": " + strconv.Itoa(len(text))}
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			w := f.ask("POST", tt.path, tt.body, headers...)
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			assert.Equal(t, 400, w.Code, w.Body.String())
			allocated := (after.TotalAlloc - before.TotalAlloc) / size
			t.Logf("%d bytes for each of the body's, in %v", allocated, took)
			assert.Less(t, allocated, uint64(160))
			assert.Less(t, took, 30*time.Second) // far from quadratic, on a busy machine and under the race detector
		})
	}
}

// startImpatient serves HTTP with short times until the test ends, and returns the address.
func startImpatient(t *testing.T, f *fixture) string {
	t.Helper()
	web := f.webServer()
	web.ReadHeaderTimeout = 300 * time.Millisecond
	l := listen(t)
	go func() { _ = web.Serve(l) }()
	t.Cleanup(func() { web.Close() })
	return l.Addr().String()
}

func TestSlowClients(t *testing.T) {
	f := newFixture(t, &setup{
		serve: Options{RequestTimeout: 600 * time.Millisecond}, models: fakemodel.Models{Delay: time.Minute},
	})
	address := startImpatient(t, f)
	// drip sends first at once and rest byte by byte until the server hangs up, and returns its response.
	drip := func(first, rest string) string {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, first)
		require.NoError(t, err)
		go func() {
			for i := range rest {
				if _, err := io.WriteString(conn, rest[i:i+1]); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		began := time.Now()
		said, err := io.ReadAll(conn)
		if err != nil {
			assert.NotErrorIs(t, err, context.DeadlineExceeded)
			assert.NotContains(t, err.Error(), "i/o timeout", "the server did not hang up")
		}
		assert.Less(t, time.Since(began), 5*time.Second)
		return string(said)
	}
	t.Run("header", func(t *testing.T) {
		t.Parallel()
		drip("POST /v1/answer HTTP/1.1\r\nHost: localhost\r\n", strings.Repeat("X-A: b\r\n", 100))
	})
	t.Run("body", func(t *testing.T) {
		t.Parallel()
		said := drip("POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n", strings.Repeat(" ", 5000))
		assert.Contains(t, said, "504")
		assert.Contains(t, said, "took longer than it may")
		assert.NotContains(t, said, "127.0.0.1", "addresses are not for clients")
	})
	t.Run("chunks", func(t *testing.T) {
		t.Parallel()
		drip("POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
			strings.Repeat("1\r\n \r\n", 500))
	})
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		drip("", "")
	})
	t.Run("TLS hello to plain HTTP", func(t *testing.T) {
		t.Parallel()
		drip("\x16\x03\x01\x02\x00\x01", strings.Repeat("\x00", 300))
	})
	t.Run("half closed", func(t *testing.T) {
		t.Parallel()
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		defer conn.Close()
		body := question(1)
		fmt.Fprintf(conn, "POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:10])
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		said, _ := io.ReadAll(conn)
		assert.Contains(t, string(said), "499", "as for a client that has gone")
	})
	t.Run("slow model", func(t *testing.T) {
		t.Parallel()
		body := `{"question":"find slow","context":"slow"}`
		header := "POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
		said := drip(fmt.Sprintf(header, len(body), body), "")
		assert.Contains(t, said, "504 Gateway Timeout")
	})
}

func TestHugeHeader(t *testing.T) {
	f := newFixture(t, &setup{})
	address := startImpatient(t, f)
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	go func() {
		fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: %s\r\n\r\n", strings.Repeat("a", 200<<10))
	}()
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, line, "431")
}

// A client that disconnects frees its place in the queue, and its goroutines.
func TestDisconnects(t *testing.T) {
	f := startServer(t, &setup{models: fakemodel.Models{Delay: time.Minute}})
	m, err := f.host.Models.Acquire("bert", 0)
	require.NoError(t, err)
	defer m.Release()
	requireNoLeaks := watchGoroutines(t)
	slow := `{"question":"find slow","context":"slow","stream":%v}`
	var conns []net.Conn
	for i := range 20 {
		conn, err := net.Dial("tcp", f.url[7:])
		require.NoError(t, err)
		body := fmt.Sprintf(slow, i%2 == 0)
		fmt.Fprintf(conn, "POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		conns = append(conns, conn)
	}
	eventually(t, "all wait", func() bool {
		return m.Batcher().Waiting()+int(f.models.Windows.Load()) >= 22 && m.Batcher().Running() == 1
	})
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, "none waits", func() bool { return m.Batcher().Waiting() == 0 && m.Batcher().Running() == 0 })
	requireNoLeaks()
}

// A gate can stop the batches of models.
type gate struct {
	shut    atomic.Bool
	stopped chan struct{} // receives from each batch that the gate stops
	opened  chan struct{} // to be closed for them to go on
}

func newGate(models *fakemodel.Models) *gate {
	g := &gate{stopped: make(chan struct{}, 100), opened: make(chan struct{})}
	models.OnBatch = func(context.Context, repository.Source, []squad.Feature) error {
		if g.shut.Load() {
			g.stopped <- struct{}{}
			<-g.opened
		}
		return nil
	}
	return g
}

// The response to a request that finds a full queue tells when to try again.
func TestQueueFull(t *testing.T) {
	s := &setup{repo: repository.Options{Batching: batch.Options{MaxSize: 1, MaxQueue: 2}}}
	gate := newGate(&s.models)
	f := newFixture(t, s)
	gate.shut.Store(true)
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() { assert.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(i))).Code) })
		if i == 0 {
			<-gate.stopped
		}
	}
	m, err := f.host.Models.Acquire("bert", 0)
	require.NoError(t, err)
	eventually(t, "two wait", func() bool { return m.Batcher().Waiting() == 2 })
	m.Release()
	for path, body := range bodies {
		w := f.ask("POST", path, []byte(body))
		requireError(t, 429, "the queue is full", w)
		seconds, err := strconv.Atoi(w.Header().Get("Retry-After"))
		require.NoError(t, err)
		assert.Positive(t, seconds)
	}
	close(gate.opened)
	group.Wait()
}

// While the server loads models, and while it shuts down, it is alive and not ready.
func TestReadiness(t *testing.T) {
	loading, finish := make(chan struct{}), make(chan struct{})
	models := &fakemodel.Models{OnLoad: func(context.Context, repository.Source) error {
		close(loading)
		<-finish
		return nil
	}}
	f := &fixture{root: t.TempDir()}
	f.addVersion(t, "bert", 1)
	opened, err := repository.OpenDir(f.root, repository.Options{Load: models.Load})
	require.NoError(t, err)
	f.Server, err = New(opened, Options{})
	require.NoError(t, err)
	f.handler = sync.OnceValue(f.Handler)
	go func() { _ = f.host.Models.Start(t.Context()) }()
	<-loading
	assert.Equal(t, 200, f.ask("GET", "/healthz", nil).Code)
	assert.Equal(t, 200, f.ask("GET", "/v2/health/live", nil).Code)
	for _, path := range []string{"/readyz", "/v2/health/ready"} {
		w := f.ask("GET", path, nil)
		requireError(t, 503, "the models are being loaded", w)
		assert.Equal(t, "1", w.Header().Get("Retry-After"))
	}
	w := f.ask("POST", "/v1/answer", []byte(question(1)))
	requireError(t, 503, "being loaded", w)
	assert.Equal(t, "1", w.Header().Get("Retry-After"))
	assert.Contains(t, f.ask("GET", "/v1/models/bert", nil).Body.String(), `"LOADING"`)
	assert.Contains(t, f.ask("POST", "/v2/repository/index", nil).Body.String(), `"LOADING"`)
	assert.Contains(t, f.ask("GET", "/metrics", nil).Body.String(), "tfbert_ready 0")
	close(finish)
	eventually(t, "ready", func() bool { return f.ask("GET", "/readyz", nil).Code == 200 })
	f.stages.leave()
	assert.Equal(t, 200, f.ask("GET", "/healthz", nil).Code)
	requireError(t, 503, "shutting down", f.ask("GET", "/readyz", nil))
	assert.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(1))).Code, "late requests are answered")
	f.host.Models.Close()
	requireError(t, 503, "shutting down", f.ask("POST", "/v1/answer", []byte(question(1))))
	models.Check(t)
}

func TestCrossOrigin(t *testing.T) {
	f := newFixture(t, &setup{})
	for _, header := range []string{
		"Sec-Fetch-Site: cross-site", "Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: same-site",
	} {
		requireError(t, 403, "another site", f.ask("POST", "/v1/answer", []byte(question(1)), header))
		requireError(t, 403, "another site", f.ask("POST", "/v2/repository/models/bert/unload", nil, header))
	}
	for _, headers := range [][]string{
		{"Sec-Fetch-Site: same-origin"}, {"Origin: http://example.com"}, {"Sec-Fetch-Site: none"}, {},
	} {
		assert.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(1)), headers...).Code)
	}
	assert.Equal(t, 200, f.ask("GET", "/v1/models", nil, "Sec-Fetch-Site: cross-site").Code)
	assert.Contains(t, f.ask("GET", "/metrics", nil).Body.String(), `status="403",verb="cross-origin"`)
}

func TestAdminToken(t *testing.T) {
	f := newFixture(t, &setup{
		serve: Options{AdminToken: "secret"}, repo: repository.Options{Control: repository.ControlExplicit},
	})
	for _, path := range []string{
		"/v2/repository/index", "/v2/repository/models/bert/load", "/v2/repository/models/bert/unload",
	} {
		for _, header := range []string{
			"X: y", "Authorization: Bearer", "Authorization: Bearer wrong", "Authorization: Bearer secret2",
			"Authorization: secret", "Authorization: Basic secret", "Authorization: Bearer  secret",
		} {
			w := f.ask("POST", path, nil, header)
			requireError(t, 401, "admin token", w)
			assert.Equal(t, "Bearer", w.Header().Get("WWW-Authenticate"))
		}
		assert.Equal(t, 200, f.ask("POST", path, nil, "Authorization: bearer secret").Code)
	}
	require.NotContains(t, f.log.String(), "secret")
	assert.Equal(t, 200, f.ask("POST", "/v2/repository/models/bert/load", nil, "Authorization: Bearer secret").Code)
	assert.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(1))).Code, "questions need no token")
}

// A panic of a model fails the request. Its stack is in the log, and not in the response.
func TestPanics(t *testing.T) {
	f := newFixture(t, &setup{})
	crash := `{"question":"find crash","context":"a"}`
	for _, tt := range []struct{ path, body string }{
		{"/v1/answer", crash},
		{"/", `{"inputs":` + crash + `}`},
		{"/", `{"inputs":[` + crash + `,` + crash + `]}`},
		{"/v1/models/bert_qa:predict",
			`{"instances":[{"QUESTION":"find crash","CONTEXT":"a"},{"QUESTION":"find w1","CONTEXT":"a"}]}`},
		{"/v1/models/bert:predict", strings.Replace(predictRows, "[2,7", fmt.Sprintf("[2,%d", fakemodel.ID("crash")), 1)},
		{"/v2/models/bert/infer", strings.Replace(tensorBody, "[2,7", fmt.Sprintf("[2,%d", fakemodel.ID("crash")), 1)},
	} {
		before := len(f.log.String())
		requireError(t, 500, "its log says why", f.ask("POST", tt.path, []byte(tt.body)))
		assert.Contains(t, f.log.String()[before:], "fakemodel.go", tt.path)
	}
	before := len(f.log.String())
	w := f.ask("POST", "/v1/answer", []byte(`{"requests":[`+crash+`,`+question(1)+`]}`))
	assert.Equal(t, 200, w.Code)
	assert.Contains(t, w.Body.String(), `{"error":"the server failed to answer: its log says why"}`)
	assert.Contains(t, w.Body.String(), `"answer":"w1"`)
	assert.Contains(t, f.log.String()[before:], "fakemodel.go")

	w = f.ask("POST", "/v1/answer", []byte(strings.Replace(crash, "}", `,"stream":true}`, 1)))
	requireError(t, 500, "its log says why", w)

	// A bug of the server's own.
	m, err := f.host.Models.Acquire("bert", 0)
	require.NoError(t, err)
	check := m.Backend().CheckLength
	m.Backend().CheckLength = nil
	bug := strings.Replace(question(1), "}", `,"max_seq_length":90}`, 1)
	for _, body := range []string{bug, `{"requests":[` + bug + `]}`} {
		w := f.ask("POST", "/v1/answer", []byte(body))
		requireError(t, 500, "the server failed to answer: its log says why", w)
	}
	assert.Contains(t, f.log.String(), "answer.go")
	m.Backend().CheckLength = check
	m.Release()
	assert.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(1))).Code, "the server goes on")
}

// A stream has a line of JSON after each batch of windows. The last one has the answer from all windows, or
// the error that ended the stream.
func TestAnswerStream(t *testing.T) {
	f := startServer(t, &setup{})
	long := strings.Repeat("x ", 2000)
	ask := func(document string) (lines []map[string]any) {
		body, err := json.Marshal(map[string]any{
			"question": "find w1", "context": document, "stream": true, "doc_stride": 40, "max_query_length": 8,
		})
		require.NoError(t, err)
		r, err := client(t).Post(f.url+"/v1/answer", "application/json", bytes.NewReader(body))
		require.NoError(t, err)
		assert.Equal(t, "application/x-ndjson", r.Header.Get("Content-Type"))
		for _, line := range strings.Split(strings.TrimSpace(readAll(t, r)), "\n") {
			var v map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &v))
			lines = append(lines, v)
		}
		return lines
	}
	lines := ask(long + "w1")
	require.Greater(t, len(lines), 4)
	last := lines[len(lines)-1]
	assert.Equal(t, "w1", last["answer"])
	assert.EqualValues(t, 4000, last["start"])
	assert.Len(t, last["windows"], int(last["windows_done"].(float64)))
	for i, line := range lines[:len(lines)-1] {
		assert.EqualValues(t, (i+1)*8, line["windows_done"])
	}
	lines = ask(long + "fail")
	assert.Equal(t, map[string]any{"error": "the server failed to answer: its log says why"}, lines[len(lines)-1])
	assert.Greater(t, len(lines), 1)
}

func TestServerTiming(t *testing.T) {
	f := newFixture(t, &setup{})
	for path, body := range bodies {
		timing := f.ask("POST", path, []byte(body)).Header().Get("Server-Timing")
		assert.Equal(t, "tokenize;dur=N, queue;dur=N, compute;dur=N, decode;dur=N",
			regexp.MustCompile(`\d+\.\d{3}`).ReplaceAllString(timing, "N"), path)
	}
}

// A client that begins with HTTP/2 gets it, also without TLS.
func TestHTTP2(t *testing.T) {
	f := startServer(t, &setup{})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	c := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	defer c.CloseIdleConnections()
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() {
			r, err := c.Post(f.url+"/v1/answer", "application/json", strings.NewReader(question(i)))
			if assert.NoError(t, err) {
				assert.Equal(t, 2, r.ProtoMajor)
				assert.Contains(t, readAll(t, r), `{"answer":"`+fakemodel.Key(i)+`"`)
			}
		})
	}
	group.Wait()
}

// Of many clients none gets the answer of another.
func TestManyClients(t *testing.T) {
	f := startServer(t, &setup{repo: repository.Options{
		Batching: batch.Options{MaxDelay: time.Millisecond, MaxQueue: 1 << 20},
	}})
	c := client(t)
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			for j := range 20 {
				n := i*20 + j
				r, err := c.Post(f.url+"/v1/answer", "application/json", strings.NewReader(question(n)))
				if assert.NoError(t, err) {
					assert.Contains(t, readAll(t, r), `{"answer":"`+fakemodel.Key(n)+`"`)
				}
			}
		})
	}
	group.Wait()
	assert.Less(t, f.models.Batches.Load(), f.models.Windows.Load(), "they shared batches")
}

// Requests beyond the server's limit are refused at once; those under way are answered.
func TestMaxRequests(t *testing.T) {
	s := &setup{serve: Options{MaxRequests: 1}}
	gate := newGate(&s.models)
	f := newFixture(t, s)
	gate.shut.Store(true)
	var group sync.WaitGroup
	group.Go(func() { assert.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(0))).Code) })
	<-gate.stopped
	w := f.ask("POST", "/v1/answer", []byte(question(1)))
	requireError(t, 429, "the server has 1 requests under way and takes no more", w)
	assert.Equal(t, "1", w.Header().Get("Retry-After"))
	assert.Equal(t, 200, f.ask("GET", "/readyz", nil).Code, "a busy server is ready")
	close(gate.opened)
	group.Wait()
	assert.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(2))).Code)
}
