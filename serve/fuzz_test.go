package serve

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/fakemodel"
)

// fuzzPost sends a hostile body, which must get an answer or an error, but neither a panic nor a status 500.
func fuzzPost(t *testing.T, f *fixture, path string, body []byte, headers ...string) {
	f.log.Reset()
	began := time.Now()
	w := f.ask("POST", path, body, headers...)
	require.Less(t, time.Since(began), 10*time.Second)
	if w.Code == http.StatusInternalServerError {
		for _, word := range []string{"told to", "logits", "NaN"} { // the body has a word that the model obeys
			if strings.Contains(f.log.String(), word) {
				return
			}
		}
	}
	require.NotEqual(t, http.StatusInternalServerError, w.Code, "%s", w.Body)
	switch kind := w.Header().Get("Content-Type"); {
	case w.Code >= 400:
		requireError(t, w.Code, "", w)
	case kind == "application/json":
		require.True(t, json.Valid(w.Body.Bytes()) || strings.Contains(w.Body.String(), "NaN"), "%s", w.Body)
	case kind == "application/octet-stream":
		n, err := strconv.Atoi(w.Header().Get(headerLength))
		require.NoError(t, err)
		require.True(t, json.Valid(w.Body.Bytes()[:n]))
	}
}

func FuzzInferHTTP(f *testing.F) {
	s := newFixture(f, &setup{})
	body, header := binaryRequest([4]int{16, 16, 16, 4}, littleEndian(2, 7, 3, 9, 1, 1, 1, 1, 0, 0, 0, 1, 5))
	f.Add(body, header[len(headerLength)+2:], false)
	f.Add(body, "-1", false)
	f.Add(body, "00000000000000000000000000000000000000000001", false)
	f.Add([]byte(tensorBody), "", false)
	text := `{"inputs":[` + bytesInput("QUESTION", `"data":["find w1"]`) + `,` +
		bytesInput("CONTEXT", `"parameters":{"binary_data_size":6}`) + `]}`
	f.Add([]byte(text+"\x02\x00\x00\x00w1"), strconv.Itoa(len(text)), true)
	f.Add([]byte(`{"id":"\u0000","outputs":[{"name":"start_logits"},{"name":"start_logits"}],"inputs":[]}`), "", false)
	f.Add([]byte(`{"inputs":[{"shape":[-9223372036854775808,9223372036854775807],"data":[[[[]]]]}]}`), "", true)
	f.Fuzz(func(t *testing.T, body []byte, length string, text bool) {
		path := "/v2/models/bert/infer"
		if text {
			path = "/v2/models/bert_qa/infer"
		}
		fuzzPost(t, s, path, body, headerLength+": "+length)
	})
}

func FuzzPredictREST(f *testing.F) {
	s := newFixture(f, &setup{})
	for _, body := range []string{
		predictRows,
		`{"inputs":{"QUESTION":["find w1"],"CONTEXT":["w1"]}}`,
		`{"instances":[{"QUESTION":{"b64":"ZmluZCB3MQ=="},"CONTEXT":"w1"}]}`,
		`{"inputs":{"input_ids":[[1],[]]}}`,
		`{"instances":[{"input_ids":[[[[[[[[[1]]]]]]]]]}]}`,
		`{"signature_name":"serving_default","inputs":{}}`,
		`{"instances":[{"input_ids":1e999}]}`,
		`{"inputs":{"unique_ids":[[1]],"input_ids":[[]],"input_mask":[[]],"segment_ids":[[]]}}`,
	} {
		f.Add([]byte(body), false)
		f.Add([]byte(body), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, text bool) {
		path := "/v1/models/bert:predict"
		if text {
			path = "/v1/models/bert_qa:predict"
		}
		fuzzPost(t, s, path, body)
	})
}

func FuzzAnswerHTTP(f *testing.F) {
	s := newFixture(f, &setup{})
	for _, body := range []string{
		question(1),
		`{"requests":[` + question(1) + `,{}]}`,
		`{"question":"find w1","documents":["","w1"],"stream":true,` +
			`"version_2_with_negative":true,"null_score_diff_threshold":-1e308}`,
		`{"inputs":` + question(2) + `,"parameters":{"top_k":3}}`,
		`{"inputs":[` + question(2) + `]}`,
		`{"question":"` + strings.Repeat("a", 300) + `","context":"w1",` +
			`"max_query_length":9223372036854775807,"doc_stride":9223372036854775807}`,
		`{"question":"find ` + fakemodel.Key(3) + `","context":"x",` +
			`"max_seq_length":-9223372036854775808,"n_best_size":1,"max_answer_length":9223372036854775807}`,
	} {
		f.Add([]byte(body), "")
		f.Add([]byte(body), "gzip")
	}
	f.Fuzz(func(t *testing.T, body []byte, encoding string) {
		fuzzPost(t, s, "/v1/answer", body, "Content-Encoding: "+encoding)
		fuzzPost(t, s, "/models/bert", body)
	})
}
