package squad_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/squad"
)

func TestReadDataset(t *testing.T) {
	d, err := squad.ReadDataset(strings.NewReader(`{
		"data": [{
			"paragraphs": [
				{"qas": [
					{"id": "a", "question": "Why?", "answers": [{"text": "é", "answer_start": 3}], "is_impossible": false},
					{"id": 0, "question": "How?", "is_impossible": true, "plausible_answers": [{"text": "x", "answer_start": 0}]}
				], "context": "old", "context": "x \ud83d\ude00 é"},
				{"context": "", "qas": []}
			],
			"title": "T", "more": [{}]
		}, {"paragraphs": []}],
		"version": "v2.0"
	}`))
	require.NoError(t, err)
	assert.Equal(t, &squad.Dataset{
		Version: "v2.0",
		Articles: []squad.Article{{
			Title: "T",
			Paragraphs: []squad.Paragraph{
				{Context: "x 😀 é", QAs: []squad.Question{
					{ID: "a", Question: "Why?", Answers: []squad.Answer{{Text: "é", AnswerStart: 3}}},
					{ID: "0", Question: "How?", IsImpossible: true, PlausibleAnswers: []squad.Answer{{Text: "x"}}},
				}},
				{},
			},
		}, {}},
	}, d)
}

func TestReadDatasetMini(t *testing.T) {
	for _, tt := range []struct {
		file, version string
		questions     int
	}{
		{"mini-v1.1.json", "1.1", 32},
		{"mini-v2.0.json", "v2.0", 35},
	} {
		text, err := os.ReadFile(testenv.Golden(t, "mini", tt.file))
		require.NoError(t, err)
		d, err := squad.ReadDataset(bytes.NewReader(text))
		require.NoError(t, err)
		assert.Equal(t, tt.version, d.Version)

		var streamed []*squad.Paragraph
		for p, err := range squad.Paragraphs(iotest.OneByteReader(bytes.NewReader(text))) {
			require.NoError(t, err)
			streamed = append(streamed, p)
		}
		questions := 0
		i := 0
		for p := range d.All() {
			assert.Equal(t, p, streamed[i])
			questions += len(p.QAs)
			i++
		}
		assert.Len(t, streamed, i)
		assert.Equal(t, tt.questions, questions)
	}
}

// badDatasets are files that must be refused, with the error's text after "read data set: ".
var badDatasets = []struct{ name, text, want string }{
	{"empty", "", `the file is empty, not JSON (line 1, byte 0)`},
	{"blank", " \n", `the file is empty, not JSON`},
	{"BOM", "\xef\xbb\xbf{}", `the file starts with a byte order mark: save it as UTF-8 without BOM`},
	{"UTF-16", "\xff\xfe{\x00", `the file is UTF-16: save it as UTF-8 without BOM`},
	{"text", "hello", `not JSON: invalid character 'h' at start of value (line 1, byte 0)`},
	{"cut off", "{\"data\": [\n{\"title\": \"T\", \"paragr",
		`article 1 ("T"): not JSON: the file ends in the middle of a value: unexpected EOF (line 2, byte`},
	{"cut off after a value", `{"data": []`, `not JSON: the file ends in the middle of a value`},
	{"two documents", `{"data": []} {}`, `not JSON: there is more text after the end of the document`},
	{"missing comma", "{\"data\": [{\"paragraphs\": []}\n{\"paragraphs\": []}]}",
		`not JSON: invalid character '{' after array element (expecting ',' or ']') (line 2, byte 29)`},
	{"array", `[1]`, `the file is an array, want an object`},
	{"no data", `{"version": "1.1"}`, `not a SQuAD file: there is no "data"`},
	{"data of the wrong type", `{"data": {}}`, `"data" is an object, want an array`},
	{"data twice", `{"data": [], "data": []}`, `"data" appears twice`},
	{"flat data", `{"data": [{"context": "x", "id": "1"}]}`,
		`article 1: not a SQuAD file: the article has no "paragraphs"`},
	{"article of the wrong type", `{"data": [null]}`, `article 1: the article is null, want an object`},
	{"no context", `{"data": [{"title": "T", "paragraphs": [{"qas": []}]}]}`,
		`article 1 ("T"), paragraph 1: the paragraph has no "context"`},
	{"context of the wrong type", `{"data": [{"paragraphs": [{"context": ["x"], "qas": []}]}]}`,
		`article 1, paragraph 1: "context" is an array, want a string`},
	{"no qas", `{"data": [{"paragraphs": [{"context": "x"}]}]}`, `article 1, paragraph 1: the paragraph has no "qas"`},
	{"no id", datasetOf(`{"question": "Why?"}`), `article 1, paragraph 1, question 1: the question has no "id"`},
	{"id of the wrong type", datasetOf(`{"id": null}`), `question 1: "id" is null, want a string or a whole number`},
	{"fractional id", datasetOf(`{"id": 1.5}`), `question 1: "id" is 1.5, want a string or a whole number`},
	{"no question", datasetOf(`{"id": "a"}`), `question "a": the question has no "question"`},
	{"question of the wrong type", datasetOf(`{"id": "a", "question": true}`),
		`question "a": "question" is true, want a string`},
	{"answers of the wrong type", datasetOf(`{"id": "a", "question": "Why?", "answers": 3}`),
		`question "a": "answers" is a number, want an array`},
	{"answer without text", datasetOf(`{"id": "a", "question": "Why?", "answers": [{}]}`),
		`question "a": an entry of "answers" has no "text"`},
	{"answer_start of the wrong type",
		datasetOf(`{"id": "a", "question": "Why?", "answers": [{"text": "", "answer_start": 1.5}]}`),
		`"answer_start" is 1.5, want a whole number`},
	{"is_impossible of the wrong type", datasetOf(`{"id": "a", "question": "Why?", "is_impossible": "no"}`),
		`"is_impossible" is a string, want true or false`},
	{"repeated id", datasetOf(`{"id": "a", "question": "Why?"}, {"id": "a", "question": "How?"}`),
		`article 1, paragraph 1: the question id "a" appears twice: give every question an id of its own`},
	{"repeated id, number and string", datasetOf(`{"id": 7, "question": "Why?"}, {"id": "7", "question": "How?"}`),
		`the question id "7" appears twice`},
	{"lone surrogate", datasetOf(`{"id": "a", "question": "\ud800 Why?"}`),
		`question "a": not JSON: invalid surrogate pair "\\ud800`},
	{"invalid UTF-8", datasetOf("{\"id\": \"a\", \"question\": \"\xff Why?\"}"),
		`question "a": not JSON: invalid UTF-8 (line 1, byte`},
	{"control character", datasetOf("{\"id\": \"a\", \"question\": \"a\tb\"}"),
		`question "a": not JSON: invalid character '\t' in string`},
}

// datasetOf returns a data set of one paragraph with the questions given.
func datasetOf(questions string) string {
	return `{"data": [{"paragraphs": [{"context": "x", "qas": [` + questions + `]}]}]}`
}

func TestReadDatasetErrors(t *testing.T) {
	for _, tt := range badDatasets {
		t.Run(tt.name, func(t *testing.T) {
			d, err := squad.ReadDataset(strings.NewReader(tt.text))
			assert.Nil(t, d)
			require.Error(t, err)
			assert.Regexp(t, `^read data set: `, err.Error())
			assert.Contains(t, err.Error(), tt.want)
			if tt.name != "no data" { // which is nowhere in particular
				assert.Regexp(t, `\(line \d+, byte \d+\)$`, err.Error())
			}

			var last error
			for _, err := range squad.Paragraphs(iotest.OneByteReader(strings.NewReader(tt.text))) {
				assert.NoError(t, last, "an error must end the sequence")
				last = err
			}
			assert.ErrorContains(t, last, tt.want)
		})
	}
}

func TestReadErrorSaysWhere(t *testing.T) {
	readDataset := func(r io.Reader) error { _, err := squad.ReadDataset(r); return err }
	readAnswers := func(r io.Reader) error { _, err := squad.ReadAnswers(r); return err }
	for name, tt := range map[string]struct {
		read func(io.Reader) error
		text string
		want squad.ReadError
	}{
		"syntax": {
			readDataset, "{\"data\": [\n{\"title\": \"T\", x",
			squad.ReadError{Format: "data set", Place: `article 1 ("T")`, Line: 2, Byte: 26},
		},
		"question": {
			readDataset, datasetOf("\n" + `{"id": "a", "question": 1}`),
			squad.ReadError{Format: "data set", Place: `article 1, paragraph 1, question "a"`, Line: 2, Byte: 74},
		},
		"whole file":  {readDataset, `{}`, squad.ReadError{Format: "data set"}},
		"predictions": {readAnswers, "{\n\"a\": 1}", squad.ReadError{Format: "predictions", Line: 2, Byte: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			var got *squad.ReadError
			require.ErrorAs(t, tt.read(strings.NewReader(tt.text)), &got)
			assert.Error(t, got.Err)
			tt.want.Err = got.Err
			assert.Equal(t, tt.want, *got)
		})
	}
}

func TestReadDatasetReadError(t *testing.T) {
	broken := errors.New("disk on fire")
	_, err := squad.ReadDataset(io.MultiReader(strings.NewReader(`{"data": [`), iotest.ErrReader(broken)))
	assert.ErrorIs(t, err, broken)
	_, err = squad.ReadDataset(iotest.ErrReader(broken))
	assert.ErrorIs(t, err, broken)
}

func TestParagraphsStopsEarly(t *testing.T) {
	text, err := os.ReadFile(testenv.Golden(t, "mini", "mini-v1.1.json"))
	require.NoError(t, err)
	n := 0
	for _, err := range squad.Paragraphs(bytes.NewReader(text)) {
		require.NoError(t, err)
		if n++; n == 3 {
			break
		}
	}
	assert.Equal(t, 3, n)
}

func FuzzReadDataset(f *testing.F) {
	for _, tt := range badDatasets {
		f.Add([]byte(tt.text))
	}
	f.Add([]byte(datasetOf(`{"id": 1, "question": "Why?", "answers": [{"text": "x", "answer_start": 0}]}`)))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d *squad.Dataset
		var err error
		bounded.Run(t, 100*len(text), 10*time.Second, func() { d, err = squad.ReadDataset(bytes.NewReader(text)) })
		if err != nil {
			require.Nil(t, d)
			return
		}
		ids := make(map[string]bool)
		for p := range d.All() {
			for _, q := range p.QAs {
				require.False(t, ids[q.ID], "id %q is there twice", q.ID)
				ids[q.ID] = true
			}
		}
	})
}
