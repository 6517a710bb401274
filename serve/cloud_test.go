package serve

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/serve/repository"
)

// Invocations answers a request in the form of every protocol as that protocol's own path does.
func TestInvocations(t *testing.T) {
	f := newFixture(t, &setup{})
	rows := `{"instances":[{"QUESTION":"find w1","CONTEXT":"a w1"},{"QUESTION":"find w2","CONTEXT":"w2"}]}`
	for _, tt := range []struct{ path, body string }{
		{"/v1/answer", question(1)},
		{"/v1/answer", `{"requests":[` + question(1) + `,` + question(2) + `]}`},
		{"/v1/answer", `{"documents":["w1"],"question":"find w1","stream":true}`},
		{"/", `{"inputs":` + question(1) + `}`},
		{"/", `{"parameters":{"top_k":2},"inputs":[` + question(1) + `]}`},
		{"/v1/models/bert:predict", predictRows},
		{"/v1/models/bert:predict", `{"signature_name":"serving_default","inputs":{"input_ids":[[2,7]],` +
			`"input_mask":[[1,1]],"segment_ids":[[0,0]],"unique_ids":[3]}}`},
		{"/v1/models/bert_qa:predict", rows},
		{"/v1/models/bert_qa:predict", `{"inputs":{"CONTEXT":["w1"],"QUESTION":["find w1"]}}`},
		// Mistakes have the errors of the form that they come nearest to.
		{"/v1/answer", ``}, {"/v1/answer", `{`}, {"/v1/answer", `x`}, {"/v1/answer", `"x"`}, {"/v1/answer", `{"a":1} x`},
		{"/v1/answer", `{"question":"find w1","contxt":"w1"}`},
		{"/v1/models/bert:predict", `{"instances":[]}`}, {"/v1/models/bert:predict", `{"instances":5}`},
		{"/v1/models/bert:predict", `{"instances":[1.0,2.0]}`}, {"/v1/models/bert:predict", `{"inputs":[1]}`},
		{"/v1/models/bert:predict", `{"instances":[{}]}`}, {"/v1/models/bert:predict", `{"instances":[{"input_ids"`},
	} {
		want := f.ask("POST", tt.path, []byte(tt.body))
		got := f.ask("POST", "/invocations", []byte(tt.body))
		assert.Equal(t, want.Code, got.Code, tt.body)
		assert.Equal(t, want.Header().Get("Content-Type"), got.Header().Get("Content-Type"))
		assert.Equal(t, withoutTimes(want.Body.String()), withoutTimes(got.Body.String()), tt.body)
	}

	// A list and JSON lines are instances, as in SageMaker's container.
	list := `[{"QUESTION":"find w1","CONTEXT":"a w1"},{"QUESTION":"find w2","CONTEXT":"w2"}]`
	want := f.ask("POST", "/v1/models/bert_qa:predict", []byte(rows)).Body.String()
	for body, contentType := range map[string]string{
		list: "application/json",
		strings.Trim(strings.Replace(list, "},{", "}\n{", 1), "[]") + "\n": "application/jsonlines",
		strings.Trim(strings.Replace(list, "},{", "} {", 1), "[]"):         "application/json; charset=utf-8",
	} {
		w := f.ask("POST", "/invocations", []byte(body), "Content-Type: "+contentType)
		require.Equal(t, 200, w.Code, w.Body.String())
		assert.Equal(t, want, w.Body.String())
	}
	w := f.ask("POST", "/invocations", []byte(question(1)), "Content-Type: application/jsonlines")
	require.Equal(t, 200, w.Code)
	assert.Contains(t, w.Body.String(), `{"predictions":[{"answer":"w1",`, "one line is an instance too")
	w = f.ask("POST", "/invocations", []byte(question(1)+"\n"+question(2)+"\n{"))
	requireError(t, 400, "line 3 of the request is not JSON", w)

	w = f.ask("GET", "/invocations", nil)
	requireError(t, 405, "", w)
	assert.Equal(t, "POST", w.Header().Get("Allow"))
}

// withoutTimes returns an answer without the seconds that it took.
func withoutTimes(body string) string {
	before, _, _ := strings.Cut(body, `"seconds"`)
	return before
}

// SageMaker's clients name a model in a header.
func TestCustomAttributes(t *testing.T) {
	f := newFixture(t, &setup{names: []string{"bert", "other"}})
	ask := func(attributes string) (int, string) {
		w := f.ask("POST", "/invocations", []byte(predictRows), "X-Amzn-SageMaker-Custom-Attributes: "+attributes)
		return w.Code, w.Body.String()
	}
	for attributes, want := range map[string]string{
		"tfs-model-name=other":                           `200 {"predictions":`,
		"tfs-model-name=other, tfs-model-version=1":      `200 {"predictions":`,
		"trace=1,tfs-method=predict,tfs-model-name=bert": `200 {"predictions":`,
		"":                       `400 {"error":"name one of the models: bert, other"}`,
		"tfs-model-name=third":   `404 {"error":"Servable not found for request: Latest(third)"}`,
		"tfs-model-name=../bert": `404 `,
		"tfs-model-name=bert,tfs-model-version=7":                    `404 {"error":"Servable not found for request: Specific(bert, 7)`,
		"tfs-model-name=bert,tfs-model-version=x":                    `400 `,
		"tfs-model-name=bert,tfs-method=classify":                    `501 `,
		"tfs-model-name=bert,tfs-model-version=1,tfs-method=explain": `404 `,
	} {
		code, body := ask(attributes)
		assert.True(t, strings.HasPrefix(fmt.Sprint(code, " ", body), want), "%s: %d %s", attributes, code, body)
	}
}

// Vertex AI's form: instances and parameters, and a prediction for each instance.
func TestInstances(t *testing.T) {
	f := newFixture(t, &setup{})
	ask := func(body string) (int, []map[string]any, string) {
		w := f.ask("POST", "/invocations", []byte(body))
		var response struct {
			Predictions []map[string]any `json:"predictions"`
		}
		if w.Code == 200 {
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &response))
		}
		return w.Code, response.Predictions, w.Body.String()
	}
	code, predictions, body := ask(`{"instances":[` + question(1) + `,{"question":""},{"question":"find w3",` +
		`"documents":["x","w3"],"version_2_with_negative":false}],` +
		`"parameters":{"n_best_size":1,"version_2_with_negative":true}}`)
	require.Equal(t, 200, code, body)
	require.Len(t, predictions, 3)
	assert.Equal(t, "w1", predictions[0]["answer"])
	assert.Contains(t, predictions[0], "null_odds", "the parameters hold")
	assert.Equal(t, map[string]any{"error": "the question is empty"}, predictions[1])
	assert.Equal(t, "w3", predictions[2]["answer"])
	assert.NotContains(t, predictions[2], "null_odds", "its own keys come first")

	for body, want := range map[string]string{
		`{"instances":[{"question":""}]}`:                                                         "the question is empty",
		`{"instances":[` + question(1) + `],"parameters":[]}`:                                     "must be an object",
		`{"instances":[` + question(1) + `],"parameters":{"a":1}}`:                                "unknown key: a",
		`{"instances":[` + question(1) + `,5]}`:                                                   "must be an object",
		`{"instances":[` + question(1) + `],"more":1}`:                                            "unknown key: more",
		`{"instances":[` + strings.Repeat(question(1)+",", 1024) + question(1) + `]}`:             "more than 1024 elements",
		`{"parameters":{"x":[` + strings.Repeat("[", 20000) + `]},"instances":[{"question":""}]}`: "",
	} {
		w := f.ask("POST", "/invocations", []byte(body))
		requireError(t, 400, want, w)
	}
	code, predictions, _ = ask(`{"instances":[` + question(1) + `],"parameters":null}`)
	require.Equal(t, 200, code)
	require.Len(t, predictions, 1)
}

func TestPing(t *testing.T) {
	f := newFixture(t, &setup{serve: Options{
		HealthRoute: "/v1/answer", PredictRoute: "/v1/endpoints/1/deployedModels/2:predict", // even one that is another's
	}})
	for _, path := range []string{"/ping", "/v1/answer"} {
		w := f.ask("GET", path, nil)
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, "{}\n", w.Body.String())
	}
	body := []byte(`{"instances":[` + question(1) + `]}`)
	assert.Equal(t, 200, f.ask("POST", "/v1/endpoints/1/deployedModels/2:predict", body).Code)
	assert.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(1))).Code, "the other method is as it was")
	requireError(t, 405, "", f.ask("POST", "/ping", nil))

	f.stages.leave()
	requireError(t, 503, "shutting down", f.ask("GET", "/ping", nil))
	requireError(t, 503, "shutting down", f.ask("GET", "/v1/answer", nil))
}

// The memory of an invocation is bounded as that of every other request.
func TestInvocationsAreBounded(t *testing.T) {
	f := newFixture(t, &setup{serve: Options{MaxRequestBytes: 1 << 10}, repo: repository.Options{}})
	requireError(t, 413, "more than 1024 bytes", f.ask("POST", "/invocations", make([]byte, 2<<10)))
	f.questions.Most = 0
	requireError(t, 429, "requests under way", f.ask("POST", "/invocations", []byte(question(1))))
}
