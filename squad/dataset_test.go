package squad_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
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
					{ID: "a", Question: "Why?", Answers: []string{"é"}},
					{ID: "0", Question: "How?"},
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
var badDatasets = []badDataset{
	{"empty", "", `the file is empty, not JSON (line 1, byte 0)`},
	{"blank", " \n", `the file is empty, not JSON`},
	{"mistake after BOM", "\ufeff{x", `not JSON: invalid character 'x' at start of value (line 1, byte 1)`},
	{"UTF-16", "\xff\xfe{\x00", `the file is UTF-16: save it as UTF-8`},
	{"text", "hello", `not JSON: invalid character 'h' at start of value (line 1, byte 0)`},
	{"cut off", "{\"data\": [\n{\"title\": \"T\", \"paragr",
		`article 1 ("T"): not JSON: the file ends in the middle of a value: unexpected EOF (line 2, byte`},
	{"cut off after a value", `{"data": []`, `not JSON: the file ends in the middle of a value`},
	{"two documents", `{"data": []} {}`, `not JSON: there is more text after the end of the document`},
	{"missing comma", "{\"data\": [{\"paragraphs\": []}\n{\"paragraphs\": []}]}",
		`not JSON: invalid character '{' after array element (expecting ',' or ']') (line 2, byte 29)`},
	{"array of numbers", `[1]`, `entry 1: the entry is a number, want an object`},
	{"text that begins like null", `not JSON`, `not JSON: invalid character 'o' in literal null`},
	{"number", `1`, `the file is a number, want an object`},
	{"no data", `{"version": "1.1"}`, `not a SQuAD file: there is no "data"`},
	{"data of the wrong type", `{"data": {"a": 1}}`, `"data" is an object, want an array`},
	{"neither article nor question", `{"data": [{"context": "x", "text": "1"}]}`,
		`article 1: not a SQuAD file: the article has no "paragraphs"`},
	{"an entry of neither", `[{"paragraphs": []}, {"a": 1}]`,
		`entry 2: not a SQuAD file: the entry has no "paragraphs"`},
	{"a line of neither", `{"paragraphs": []}` + "\n" + `{"a": 1}`,
		`entry 2: not a SQuAD file: the entry has no "paragraphs" (line 2, byte `},
	{"a line after a data set", `{"data": []}` + "\n" + `{"paragraphs": []}`,
		`not JSON: there is more text after the end of the document`},
	{"an array and more", `[] []`, `not JSON: there is more text after the end of the document`},
	{"predictions", `{"a": "x", "b": ""}`, `not a SQuAD file: there is no "data"; the file looks like predictions`},
	{"null odds", `{"a": -1.5, "b": 0}`, `not a SQuAD file: there is no "data"; the file looks like no-answer odds`},
	{"flat question without an id", `{"data": [{"context": "x", "question": "Why?"}]}`,
		`article 1: the question has no "id"`},
	{"article of the wrong type", `{"data": [null]}`, `article 1: the article is null, want an object`},
	{"no qas", `{"data": [{"paragraphs": [{"context": "x"}]}]}`, `article 1, paragraph 1: the paragraph has no "qas"`},
	{"no id", datasetOf(`{"question": "Why?"}`), `article 1, paragraph 1, question 1: the question has no "id"`},
	{"id of the wrong type", datasetOf(`{"id": []}`), `question 1: "id" is an array, want a string or a number`},
	{"id of too many digits", datasetOf(`{"id": 1` + strings.Repeat("0", 5000) + `}`),
		`"id" has 5001 digits, and Python reads no whole number of more than 4300`},
	{"id that is not text", datasetOf(`{"id": "\ud800"}`), `"id" has half a surrogate pair, which is not text`},
	{"mistake in a repeated key", datasetOf(`{"id": "a", "id": []}`), `"id" is an array, want a string or a number`},
	{"invalid UTF-8", datasetOf("{\"id\": \"a\", \"question\": \"\xff Why?\"}"),
		`question "a": not JSON: invalid UTF-8 (line 1, byte`},
	{"control character", datasetOf("{\"id\": \"a\", \"question\": \"a\tb\"}"),
		`question "a": not JSON: invalid character '\t' in string`},
}

// badToPredict are files that cannot be predicted. ReadDataset reads them, as they may be scored.
var badToPredict = []badDataset{
	{"no context", `{"data": [{"title": "T", "paragraphs": [{"qas": []}]}]}`,
		`article 1 ("T"), paragraph 1: the paragraph has no "context"`},
	{"context of the wrong type", `{"data": [{"paragraphs": [{"context": ["x"], "qas": []}]}]}`,
		`article 1, paragraph 1: "context" is an array, want a string`},
	{"no question", datasetOf(`{"id": "a"}`), `question "a": the question has no "question"`},
	{"question of the wrong type", datasetOf(`{"id": "a", "question": true}`),
		`question "a": "question" is true, want a string`},
	{"repeated id", datasetOf(`{"id": "a", "question": "Why?"}, {"id": "a", "question": "How?"}`),
		`article 1, paragraph 1: the question id "a" appears twice: give every question an id of its own`},
	{"repeated id, number and string", datasetOf(`{"id": 7, "question": "Why?"}, {"id": "7", "question": "How?"}`),
		`the question id "7" appears twice`},
	{"lone surrogate", datasetOf(`{"id": "a", "question": "\ud800 Why?"}`),
		`question "a": "question" has half a surrogate pair, which is not text`},
	{"data twice", `{"data": [], "data": []}`, `"data" appears twice`},
	{"paragraphs beside data", `{"paragraphs": [], "data": []}`, `"data" appears after "paragraphs"`},
	{"paragraphs twice", `{"data": [{"paragraphs": [], "paragraphs": []}]}`, `article 1: "paragraphs" appears twice`},
	{"flat question without context", `{"id": 1, "question": "Why?"}`, `the question has no "context"`},
	{"flat question of the wrong type", `[{"id": 1, "context": "x", "question": 1}]`,
		`entry 1, question "1": "question" is a number, want a string`},
	{"repeated id on two lines",
		`{"id": 1, "context": "x", "question": "Why?"}` + "\n" + `{"id": 1, "context": "x", "question": "Why?"}`, `the question id "1" appears twice`},
}

type badDataset struct{ name, text, want string }

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
			if !strings.Contains(tt.want, `there is no "data"`) { // which is nowhere in particular
				assert.Regexp(t, `\(line \d+, byte \d+\)$`, err.Error())
			}
			assert.ErrorContains(t, lastOf(t, tt.text), tt.want)
		})
	}
}

// lastOf reads a data set a byte at a time and returns the error at its end.
func lastOf(t *testing.T, text string) (last error) {
	for _, err := range squad.Paragraphs(iotest.OneByteReader(strings.NewReader(text))) {
		assert.NoError(t, last, "an error must end the sequence")
		last = err
	}
	return last
}

func TestParagraphsErrors(t *testing.T) {
	for _, tt := range badToPredict {
		t.Run(tt.name, func(t *testing.T) {
			err := lastOf(t, tt.text)
			require.ErrorContains(t, err, tt.want)
			assert.Regexp(t, `^read data set: .*\(line \d+, byte \d+\)$`, err.Error())

			d, err := squad.ReadDataset(strings.NewReader(tt.text))
			require.NoError(t, err)
			var last error
			for _, err := range d.Examples() {
				assert.NoError(t, last, "an error must end the sequence")
				last = err
			}
			if last != nil {
				assert.ErrorContains(t, last, tt.want)
			}
		})
	}
}

// The forms of a data set that people have beside SQuAD's. All hold the same two questions.
func TestReadDatasetForms(t *testing.T) {
	const (
		article  = `{"title": "T", "paragraphs": [{"context": "a b", "qas": [{"id": "1", "question": "Why?", "answers": [{"text": "a"}]}]}]}`
		flat     = `{"id": "2", "title": "T", "context": "c", "question": "How?", "answers": {"text": ["c", "d"], "answer_start": [0, 2]}}`
		question = `{"title": "T", "context": "a b", "id": 1, "answers": {"answer_start": [0], "text": "a"}, "question": "Why?"}`
		mrqa     = `{"id": "", "context": "c", "qas": [{"qid": "2", "question": "How?", "answers": ["c", "d"], "detected_answers": [{"text": "c"}]}], "context_tokens": [["c", 0]]}`
	)
	want := []squad.Paragraph{
		{Context: "a b", QAs: []squad.Question{{ID: "1", Question: "Why?", Answers: []string{"a"}}}},
		{Context: "c", QAs: []squad.Question{{ID: "2", Question: "How?", Answers: []string{"c", "d"}}}},
	}
	for name, text := range map[string]string{
		"SQuAD":                                `{"data": [` + article + "," + flat + `]}`,
		"SQuAD, upside down":                   `{"context": 1, "id": [], "data": [` + question + "," + flat + `], "version": 1.1, "paragraphs": [0]}`,
		"after a byte order mark":              "\ufeff" + `{"data": [` + article + "," + flat + `]}`,
		"articles in an array":                 "[" + article + "," + flat + "]",
		"questions in an array":                " [\n" + question + ",\n" + flat + "\n]\n",
		"a line each":                          article + "\n" + flat + "\n",
		"a line each, without data":            question + "\r\n" + flat,
		"after a byte order mark, a line each": "\ufeff" + question + "\n\n" + flat + "\n\n",
		"MRQA":                                 `{"header": {"dataset": "X", "split": "dev"}}` + "\n" + question + "\n" + mrqa,
	} {
		t.Run(name, func(t *testing.T) {
			d, err := squad.ReadDataset(strings.NewReader(text))
			require.NoError(t, err)
			var whole, streamed []squad.Paragraph
			for p := range d.All() {
				whole = append(whole, *p)
			}
			assert.Equal(t, want, whole)
			for p, err := range squad.Paragraphs(iotest.OneByteReader(strings.NewReader(text))) {
				require.NoError(t, err)
				streamed = append(streamed, *p)
			}
			assert.Equal(t, want, streamed)
		})
	}
}

// Keys that the scripts do not read may have any value, and of a repeated key the last value counts.
func TestReadDatasetAsPython(t *testing.T) {
	for _, junk := range []string{
		`null`, `true`, `-0`, `1e400`, `NaN`, `Infinity`, `[-Infinity, {"text": NaN}]`, `"\ud800"`, `{"\udc00": [{}]}`, `[[[1]]]`, `""`,
	} {
		text := strings.ReplaceAll(`{"title": #, "data": #, "data": [{"paragraphs": [#], "paragraphs": [
			{"qas": #, "title": #, "context": #, "qas": [{"id": #, "id": "a", "answers": [{"text": #, "answer_start": #, "text": "x"}, {"text": "y"}],
				"is_impossible": #, "plausible_answers": #, "question": #, "# ": #}]}],
			"title": #, "context": #, "qas": #}], "version": "v2.0", "id": #, "answers": #}`, "#", junk)
		text = strings.ReplaceAll(text, `"`+junk+` "`, `"more"`)
		d, err := squad.ReadDataset(strings.NewReader(text))
		require.NoError(t, err, text)
		assert.Equal(t, "v2.0", d.Version)
		require.Len(t, d.Articles, 1, text)
		require.Len(t, d.Articles[0].Paragraphs, 1)
		require.Len(t, d.Articles[0].Paragraphs[0].QAs, 1)
		q := d.Articles[0].Paragraphs[0].QAs[0]
		assert.Equal(t, "a", q.ID)
		assert.Equal(t, []string{"x", "y"}, q.Answers, junk)
	}
}

func TestReadDatasetIDs(t *testing.T) {
	for id, want := range map[string]string{
		`"é"`: "é", `0`: "0", `-0`: "0", `1.50`: "1.5", `1e22`: "1e+22", `1e999`: "Infinity", `NaN`: "NaN",
		`null`: "null", `true`: "true", `false`: "false", `123456789012345678901234567890`: "123456789012345678901234567890",
	} {
		text := datasetOf(`{"id": ` + id + `, "question": "Why?"}`)
		d, err := squad.ReadDataset(strings.NewReader(text))
		require.NoError(t, err)
		assert.Equal(t, map[string]int{want: 1}, d.IDs())
		for ex, err := range squad.Examples(strings.NewReader(text)) {
			require.NoError(t, err)
			assert.Equal(t, want, ex.ID)
		}
	}
	d, err := squad.ReadDataset(strings.NewReader(datasetOf(`{"id": 7, "answers": {}}, {"id": "7", "answers": ""}, {"id": 8, "answers": null}`)))
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"7": 2, "8": 1}, d.IDs())
	assert.False(t, d.Labelled())
}

func TestReadErrorSaysWhere(t *testing.T) {
	readDataset := func(r io.Reader) error { _, err := squad.ReadDataset(r); return err }
	readAnswers := func(r io.Reader) error { _, err := squad.ReadAnswers(r, nil); return err }
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
			readDataset, datasetOf("\n" + `{"id": "a", "question": ""}, {"id": []}`),
			squad.ReadError{Format: "data set", Place: `article 1, paragraph 1, question 2`, Line: 2, Byte: 86},
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
	for _, tt := range slices.Concat(badDatasets, badToPredict) {
		f.Add([]byte(tt.text))
	}
	f.Add([]byte(datasetOf(`{"id": 1, "question": "Why?", "answers": [{"text": "x", "answer_start": NaN}]}`)))
	f.Add([]byte(`{"header": 1} {"context": "x", "qas": [{"qid": "1", "question": "Why?", "answers": ["x"]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d *squad.Dataset
		var err error
		bounded.Run(t, 200*len(text), 10*time.Second, func() { d, err = squad.ReadDataset(bytes.NewReader(text)) })
		require.Equal(t, err != nil, d == nil)
		var streamed []*squad.Paragraph
		for p, err := range squad.Paragraphs(bytes.NewReader(text)) {
			if err != nil {
				return
			}
			streamed = append(streamed, p)
		}
		require.NoError(t, err, "what can be predicted can be scored")
		require.Equal(t, streamed, slices.Collect(d.All()))
	})
}
