package squad_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/squad"
)

func TestReadAnswers(t *testing.T) {
	answers, err := squad.ReadAnswers(strings.NewReader(`{"a": "x", "b": "", "\u00e9": "\ud83d\ude00", "a": "y"}`))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a": "y", "b": "", "é": "😀"}, answers)

	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "read predictions: the file is empty, not JSON (line 1, byte 0)"},
		{"BOM", "\xef\xbb\xbf{}",
			"read predictions: the file starts with a byte order mark: save it as UTF-8 without BOM (line 1, byte 0)"},
		{"array", `[]`, "read predictions: the file is an array, want an object (line 1, byte 0)"},
		{"list of answers", "{\n\"a\": [\"x\"]}",
			`read predictions: the answer to question "a" is an array, want a string (line 2, byte 5)`},
		{"null", `{"a": null}`, `the answer to question "a" is null, want a string`},
		{"cut off", `{"a": "x`,
			`read predictions: not JSON: the file ends in the middle of a value: unexpected EOF (line 1, byte`},
		{"more", `{} {}`, `not JSON: there is more text after the end of the document`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers, err := squad.ReadAnswers(strings.NewReader(tt.text))
			assert.Nil(t, answers)
			assert.ErrorContains(t, err, tt.want)
		})
	}
}

func TestReadNAProbs(t *testing.T) {
	probs, err := squad.ReadNAProbs(strings.NewReader(`{"b": 1, "a": -2.5e-3, "b": 0.25}`))
	require.NoError(t, err)
	assert.Equal(t, []squad.NAProb{{"b", 0.25}, {"a", -0.0025}}, probs)

	for _, tt := range []struct{ name, text, want string }{
		{"text", `{"a": "0.5"}`, `read no-answer odds: the value of question "a" is a string, want a number`},
		{"out of range", `{"a": 1e999}`, `the value of question "a" is 1e999, which is out of range`},
		{"NaN", `{"a": NaN}`, `read no-answer odds: not JSON: invalid character 'N' at start of value`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			probs, err := squad.ReadNAProbs(strings.NewReader(tt.text))
			assert.Nil(t, probs)
			assert.ErrorContains(t, err, tt.want)
		})
	}
}

func TestReadNBest(t *testing.T) {
	candidate := func(text string, p, start, end float64) squad.Candidate {
		return squad.Candidate{Text: text, Probability: p, StartLogit: start, EndLogit: end, Window: -1, StartWord: -1,
			EndWord: -1}
	}
	want := []squad.NBest{
		{ID: "b", Candidates: []squad.Candidate{candidate("x \"é\"", 0.75, 1.5, -2e-7), candidate("", 0.25, 1, 0)}},
		{ID: "a", Candidates: []squad.Candidate{candidate("empty", 1, 0, 0)}},
	}
	text := writeFile(t, squad.NBestFile, []squad.Prediction{
		{ID: "b", NBest: want[0].Candidates[1:]},
		{ID: "a", NBest: want[1].Candidates},
		{ID: "b", NBest: want[0].Candidates},
	})
	lists, err := squad.ReadNBest(bytes.NewReader(text))
	require.NoError(t, err)
	assert.Equal(t, want, lists)

	for _, tt := range []struct{ name, text, want string }{
		{"predictions.json", `{"a": "x"}`,
			`read n-best lists: the n-best list of question "a" is a string, want an array (line 1, byte `},
		{"entries", `{"a": ["x"]}`, `entry 0 of the n-best list of question "a" is a string, want an object`},
		{"text", `{"a": [{}, {"text": 1}]}`, `text in entry 1 of the n-best list of question "a" is a number, want a string`},
		{"probability", `{"a": [{"text": "x", "probability": null}]}`,
			`probability in entry 0 of the n-best list of question "a" is null, want a number`},
		{"cut off", `{"a": [{"text": "x"`, "the file ends in the middle of a value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lists, err := squad.ReadNBest(strings.NewReader(tt.text))
			assert.Nil(t, lists)
			assert.ErrorContains(t, err, tt.want)
		})
	}
}

func FuzzReadAnswers(f *testing.F) {
	f.Add([]byte(`{"a": "x", "\u00e9": "\ud83d\ude00"}`))
	f.Add([]byte(`{"a": 1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var answers map[string]string
		var err error
		bounded.Run(t, 100*len(text), 10*time.Second, func() { answers, err = squad.ReadAnswers(bytes.NewReader(text)) })
		require.Equal(t, err == nil, answers != nil)
		if err != nil {
			return
		}
		var predictions []squad.Prediction
		for id, answer := range answers {
			predictions = append(predictions, squad.Prediction{ID: id, Answer: answer})
		}
		again, err := squad.ReadAnswers(bytes.NewReader(writeFile(t, squad.PredictionsFile, predictions)))
		require.NoError(t, err)
		require.Equal(t, answers, again)
	})
}

func FuzzReadNAProbs(f *testing.F) {
	f.Add([]byte(`{"a": 1, "b": -2.5e-3}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var probs []squad.NAProb
		var err error
		bounded.Run(t, 100*len(text), 10*time.Second, func() { probs, err = squad.ReadNAProbs(bytes.NewReader(text)) })
		if err != nil {
			require.Nil(t, probs)
			return
		}
		ids := make(map[string]bool)
		for _, p := range probs {
			require.False(t, ids[p.ID])
			ids[p.ID] = true
		}
	})
}

func FuzzReadNBest(f *testing.F) {
	f.Add([]byte(`{"a": [{"text": "x", "probability": 0.5, "start_logit": -2e-7, "end_logit": 1}, {}], "b": []}`))
	f.Add([]byte(`{"a": [{"other": [1]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var lists []squad.NBest
		var err error
		bounded.Run(t, 200*len(text), 10*time.Second, func() { lists, err = squad.ReadNBest(bytes.NewReader(text)) })
		if err != nil {
			require.Nil(t, lists)
			return
		}
		ids := make(map[string]bool)
		for _, l := range lists {
			require.False(t, ids[l.ID])
			ids[l.ID] = true
		}
	})
}
