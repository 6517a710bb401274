package serve

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	pb "github.com/tfbert/go/internal/serveproto"
)

func TestGenerate(t *testing.T) {
	f := newFixture(t, &setup{})
	for _, path := range []string{"/v2/models/bert_qa/generate", "/v2/models/bert_qa/versions/1/generate"} {
		w := f.ask("POST", path, []byte(`{"id":"7","QUESTION":"find w1","CONTEXT":["🦉 w1"],"parameters":{"stream":false}}`))
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, `{"id":"7","model_name":"bert_qa","model_version":"1","ANSWER":"w1","SCORE":1,"START":2,"END":4}`+"\n",
			w.Body.String())
		assert.Contains(t, w.Header().Get("Server-Timing"), "compute")
	}
	for _, tt := range []struct {
		path, body string
		status     int
		message    string
	}{
		{"/v2/models/bert/generate", `{}`, 501, `ask "bert_qa"`},
		{"/v2/models/nobody/generate", `{}`, 404, "there is no model"},
		{"/v2/models/bert_qa/generate", `{"text_input":"x"}`, 400, "unknown key: text_input"},
		{"/v2/models/bert_qa/generate", `{"CONTEXT":"x"}`, 400, "the question is empty"},
		{"/v2/models/bert_qa/generate", `{"QUESTION":["a","b"],"CONTEXT":"x"}`, 400, "an input has 2 elements"},
		{"/v2/models/bert_qa/generate", `{"QUESTION":7,"CONTEXT":"x"}`, 400, "QUESTION must be a string"},
		{"/v2/models/bert_qa/generate", `{"QUESTION":"a","CONTEXT":"x","parameters":{"priority":9}}`, 400, "priority"},
		{"/v2/models/bert_qa/generate_stream", `{"QUESTION":"","CONTEXT":"x"}`, 400, "the question is empty"},
		{"/v2/models/bert_qa/generate_stream", `{"QUESTION":"find fail","CONTEXT":"x"}`, 500, "its log says why"},
	} {
		requireError(t, tt.status, tt.message, f.ask("POST", tt.path, []byte(tt.body)))
	}
}

// A stream has the best answer so far, and last the answer or the error that ended it.
func TestGenerateStream(t *testing.T) {
	f := startServer(t, &setup{})
	ask := func(document string) (events []map[string]any) {
		body, err := json.Marshal(map[string]any{"id": "x", "QUESTION": "find w1", "CONTEXT": document})
		require.NoError(t, err)
		r, err := client(t).Post(f.url+"/v2/models/bert_qa/generate_stream", "application/json", strings.NewReader(string(body)))
		require.NoError(t, err)
		assert.Equal(t, 200, r.StatusCode)
		assert.Equal(t, "text/event-stream; charset=utf-8", r.Header.Get("Content-Type"))
		for _, event := range strings.Split(strings.TrimSuffix(readAll(t, r), "\n\n"), "\n\n") {
			data, ok := strings.CutPrefix(event, "data: ")
			require.True(t, ok, event)
			var v map[string]any
			require.NoError(t, json.Unmarshal([]byte(data), &v))
			events = append(events, v)
		}
		return events
	}
	long := strings.Repeat("x ", 2000)
	events := ask(long + "w1")
	assert.Greater(t, len(events), 2)
	last := events[len(events)-1]
	assert.Equal(t, "w1", last["ANSWER"])
	assert.EqualValues(t, 4000, last["START"])
	assert.NotEqual(t, "w1", events[0]["ANSWER"])
	for _, e := range events {
		assert.Equal(t, "x", e["id"])
	}
	events = ask(long + "fail")
	assert.Equal(t, map[string]any{"error": "the server failed to answer: its log says why"}, events[len(events)-1])
}

// Each response of a stream over gRPC is the only one to its request.
func TestFinalResponse(t *testing.T) {
	f := startServer(t, &setup{})
	stream, err := pb.NewInferenceClient(f.dial(t)).ModelStreamInfer(t.Context())
	require.NoError(t, err)
	for i, r := range []*pb.ModelInferRequest{textRequest(1), {ModelName: "nobody"}} {
		r.Parameters = map[string]*pb.InferParameter{
			"triton_enable_empty_final_response": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}},
		}
		require.NoError(t, stream.Send(r))
		answer, err := stream.Recv()
		require.NoError(t, err)
		assert.Equal(t, i == 1, answer.GetErrorMessage() != "", fmt.Sprint(answer))
		assert.True(t, answer.GetInferResponse().GetParameters()["triton_final_response"].GetBoolParam())
	}
}
