package squad_test

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/squad"
)

func TestReadAnswers(t *testing.T) {
	answers, err := squad.ReadAnswers(strings.NewReader(`{"a": "x", "b": "", "\u00e9": "\ud83d\ude00", "a": "y"}`), nil)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a": "y", "b": "", "é": "😀"}, answers)

	answers, err = squad.ReadAnswers(strings.NewReader("\ufeff"+`{"a": [{}], "a": "y", "\ud800": "x", "b": "\ud83d\ude00"}`), nil)
	require.NoError(t, err, "the mistake does not count")
	assert.Equal(t, map[string]string{"a": "y", "b": "😀"}, answers)

	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "read predictions: the file is empty, not JSON (line 1, byte 0)"},
		{"array", `[{"id": "a", "prediction_text": "x"}]`,
			"read predictions: the file is an array, want an object with a member for each question (line 1, byte 0)"},
		{"string", `"x"`, "read predictions: the file is a string, want an object (line 1, byte 0)"},
		{"n-best lists", "{\n\"a\": [{\"text\": \"x\"}]}",
			`read predictions: the answer to question "a" is an array, want a string; the file looks like n-best lists (line 2, byte 5)`},
		{"odds", `{"a": 0.5}`,
			`the answer to question "a" is a number, want a string; the file looks like no-answer odds (line 1, byte `},
		{"null", `{"a": null}`, `the answer to question "a" is null, want a string (line 1, byte `},
		{"text and then null", `{"a": "x", "a": null}`,
			`the answer to question "a" is null, want a string (line 1, byte `},
		{"half a surrogate pair", `{"a": "\udfff"}`,
			`the answer to question "a" has half a surrogate pair, which is not text (line 1, byte `},
		{"cut off", `{"a": "x`,
			`read predictions: not JSON: the file ends in the middle of a value: unexpected EOF (line 1, byte`},
		{"cut off after a mistake", `{"a": [`, `the answer to question "a" is an array, want a string`},
		{"more", `{} {}`, `not JSON: there is more text after the end of the document`},
		{"data set", `{"version": "1.1", "data": [{"title": "T", "paragraphs": []}]}`,
			`read predictions: it answers no question of the data set; the file looks like a data set`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers, err := squad.ReadAnswers(strings.NewReader(tt.text),
				func(id string) bool { return id != "version" })
			assert.Nil(t, answers)
			assert.ErrorContains(t, err, tt.want)
		})
	}
	var content *squad.ContentError
	_, err = squad.ReadAnswers(strings.NewReader(`{"a": []}`), nil)
	require.ErrorAs(t, err, &content)
	assert.Equal(t, "n-best lists", content.Format)
}

// Members that are not questions may be anything.
func TestReadAnswersOthers(t *testing.T) {
	isA := func(id string) bool { return id == "a" }
	for _, other := range []string{`null`, `{"a": 1}`, `[1, [2]]`, `NaN`, `-1`, `"\ud800"`, `[{"text": "x"}]`, `true`} {
		text := strings.ReplaceAll(`{"scores": #, "a": "x", "data": #, "more": "text"}`, "#", other)
		answers, err := squad.ReadAnswers(strings.NewReader(text), isA)
		require.NoError(t, err, other)
		assert.Equal(t, map[string]string{"a": "x", "more": "text"}, answers, other)
	}
	answers, err := squad.ReadAnswers(strings.NewReader(`{"data": [{"paragraphs": []}], "a": "x"}`), isA)
	require.NoError(t, err, "an answer shows that it is not a data set")
	assert.Equal(t, map[string]string{"a": "x"}, answers)
	for _, other := range []string{`null`, `{"a": 1}`, `[1, [2]]`, `"0.5"`, strings.Repeat("9", 5000)} {
		probs, err := squad.ReadNAProbs(strings.NewReader(strings.ReplaceAll(`{"scores": #, "a": 0.5, "data": #}`,
			"#", other)), isA)
		require.NoError(t, err, other)
		assert.Equal(t, []squad.NAProb{{ID: "a", Prob: 0.5}}, probs, other)
	}
}

func TestReadNAProbs(t *testing.T) {
	probs, err := squad.ReadNAProbs(strings.NewReader(`{"b": "x", "a": -2.5e-3, "b": 0.25, "c": 1e400, "d": -Infinity}`), nil)
	require.NoError(t, err)
	assert.Equal(t, []squad.NAProb{
		{ID: "b", Prob: 0.25}, {ID: "a", Prob: -0.0025}, {ID: "c", Prob: math.Inf(1)}, {ID: "d", Prob: math.Inf(-1)},
	}, probs)
	probs, err = squad.ReadNAProbs(strings.NewReader(`{"a": 9e9, "b": NaN, "c": 1, "d": true}`), nil)
	require.NoError(t, err)
	require.Len(t, probs, 4)
	assert.Equal(t, 9e9, probs[0].Prob)
	assert.True(t, math.IsNaN(probs[1].Prob))
	assert.Equal(t, 1., probs[2].Prob)
	assert.Equal(t, 1., probs[3].Prob)

	for _, tt := range []struct{ name, text, want string }{
		{"text", `{"a": "0.5"}`,
			`read no-answer odds: the value of question "a" is a string, want a number (line 1, byte `},
		{"digits", `{"a": ` + strings.Repeat("9", 4301) + `}`,
			`the value of question "a" has 4301 digits, and Python reads no whole number of more than 4300`},
		{"a word like NaN", `{"a": NaNs}`, `read no-answer odds: not JSON: invalid character 's' after object value`},
		{"a key like NaN", `{NaN: 1}`, `read no-answer odds: not JSON: `},
		{"a word", `{"a": Nan}`, `read no-answer odds: not JSON: invalid character 'N' at start of value`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			probs, err := squad.ReadNAProbs(strings.NewReader(tt.text), nil)
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
		{"text", `{"a": [{}, {"text": 1}]}`,
			`text in entry 1 of the n-best list of question "a" is a number, want a string`},
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
		bounded.Run(t, 100*len(text), 10*time.Second,
			func() { answers, err = squad.ReadAnswers(bytes.NewReader(text), nil) })
		require.Equal(t, err == nil, answers != nil)
		if err != nil {
			return
		}
		var predictions []squad.Prediction
		for id, answer := range answers {
			predictions = append(predictions, squad.Prediction{ID: id, Answer: answer})
		}
		again, err := squad.ReadAnswers(bytes.NewReader(writeFile(t, squad.PredictionsFile, predictions)), nil)
		require.NoError(t, err)
		require.Equal(t, answers, again)
	})
}

func FuzzReadNAProbs(f *testing.F) {
	f.Add([]byte(`{"a": 1, "b": -2.5e-3}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var probs []squad.NAProb
		var err error
		bounded.Run(t, 100*len(text), 10*time.Second,
			func() { probs, err = squad.ReadNAProbs(bytes.NewReader(text), nil) })
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
