package squad_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/squad"
)

// readShared applies a reader to a file outside the repository.
func readShared[T any](t testing.TB, read func(*os.File) (T, error), elem ...string) T {
	t.Helper()
	f, err := os.Open(testenv.Shared(t, elem...))
	require.NoError(t, err)
	defer f.Close()
	v, err := read(f)
	require.NoError(t, err)
	return v
}

func sharedDataset(t testing.TB, name string) *squad.Dataset {
	return readShared(t, func(f *os.File) (*squad.Dataset, error) { return squad.ReadDataset(f) }, "data", name)
}

func sharedAnswers(t testing.TB, name string) map[string]string {
	return readShared(t, func(f *os.File) (map[string]string, error) {
		return squad.ReadAnswers(f)
	}, "data", "predictions", name)
}

func sharedText(t testing.TB, elem ...string) string {
	return readShared(t, func(f *os.File) (string, error) {
		b, err := io.ReadAll(f)
		return string(b), err
	}, elem...)
}

// printReport returns what a report prints to the two streams.
func printReport(t *testing.T, r *squad.Report) (stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	require.NoError(t, r.Print(&out, &err))
	return out.String(), err.String()
}

func TestEvaluateV1Golden(t *testing.T) {
	d := sharedDataset(t, "dev-v1.1.json")
	for _, name := range []string{"v1.1-bert-ensemble", "v1.1-logistic-regression"} {
		t.Run(name, func(t *testing.T) {
			r, err := squad.Evaluate(d, sharedAnswers(t, name+".json"), nil)
			require.NoError(t, err)
			stdout, stderr := printReport(t, r)
			assert.Equal(t, sharedText(t, "golden", "eval", name+".stdout"), stdout)
			assert.Equal(t, sharedText(t, "golden", "eval", name+".stderr"), stderr)
			assert.Equal(t, 10570, r.Total)
		})
	}
}

func TestEvaluateV2Golden(t *testing.T) {
	const name = "v2.0-bert-single"
	d := sharedDataset(t, "dev-v2.0-rebuilt.json")
	answers := sharedAnswers(t, name+".json")
	probs := readShared(t, func(f *os.File) ([]squad.NAProb, error) {
		return squad.ReadNAProbs(f)
	}, "golden", "eval", name+".na_prob.json")

	t.Run("plain", func(t *testing.T) {
		r, err := squad.Evaluate(d, answers, nil)
		require.NoError(t, err)
		stdout, stderr := printReport(t, r)
		assert.Equal(t, sharedText(t, "golden", "eval", name+".stdout"), stdout)
		assert.Empty(t, stderr)
	})
	t.Run("na", func(t *testing.T) {
		r, err := squad.Evaluate(d, answers, &squad.EvaluateOptions{Version: "2.0", NAProbs: probs})
		require.NoError(t, err)
		stdout, stderr := printReport(t, r)
		assert.Equal(t, sharedText(t, "golden", "eval", name+".na.stdout"), stdout)
		assert.Empty(t, stderr)
	})
	t.Run("na-thresh", func(t *testing.T) {
		r, err := squad.Evaluate(d, answers, &squad.EvaluateOptions{Version: "2.0", NAProbs: probs, NAProbThresh: new(3.5)})
		require.NoError(t, err)
		var stdout, stderr, file bytes.Buffer
		require.NoError(t, r.PrintMessages(&stdout, &stderr))
		require.NoError(t, r.WriteJSON(&file))
		assert.Equal(t, sharedText(t, "golden", "eval", name+".na-thresh.stdout"), stdout.String())
		assert.Equal(t, sharedText(t, "golden", "eval", name+".na-thresh.json"), file.String())
		assert.Empty(t, stderr.String())
	})
	// Computed in Python from the description of the script's precision-recall figures.
	t.Run("analysis", func(t *testing.T) {
		r, err := squad.Evaluate(d, answers, &squad.EvaluateOptions{Version: "2.0", NAProbs: probs, Analyze: true})
		require.NoError(t, err)
		stdout, _ := printReport(t, r)
		want := strings.TrimSuffix(sharedText(t, "golden", "eval", name+".na.stdout"), "\n}\n") +
			",\n  \"pr_exact_ap\": 45.5171291117719,\n  \"pr_f1_ap\": 53.24669057214187,\n  \"pr_oracle_ap\": " +
			"71.72849077543593\n}\n"
		assert.Equal(t, want, stdout)
		require.Len(t, r.Analysis.Curves, 3)
		for _, c := range r.Analysis.Curves {
			assert.Len(t, c.Points, 5323, c.Name)
		}
		assert.Len(t, r.Analysis.HasAns, 5928)
		assert.Len(t, r.Analysis.NoAns, 5945)
	})
}

// question returns a question with the reference answers given.
func question(id string, golds ...string) squad.Question {
	q := squad.Question{ID: id}
	for _, g := range golds {
		q.Answers = append(q.Answers, squad.Answer{Text: g})
	}
	return q
}

func dataset(version string, questions ...squad.Question) *squad.Dataset {
	return &squad.Dataset{Version: version, Articles: []squad.Article{
		{Paragraphs: []squad.Paragraph{{QAs: questions[:len(questions)/2]}}},
		{Paragraphs: []squad.Paragraph{{}, {QAs: questions[len(questions)/2:]}}},
	}}
}

// Scores of one answer, by hand.
func TestEvaluateAnswer(t *testing.T) {
	tests := []struct {
		name   string
		answer string
		golds  []string
		v1, v2 [2]float64 // exact match, F1
	}{
		{"equal", "Denver Broncos", []string{"Denver Broncos"}, [2]float64{100, 100}, [2]float64{100, 100}},
		{"equal but for case, article and punctuation", "the denver broncos.", []string{"Denver Broncos"},
			[2]float64{100, 100}, [2]float64{100, 100}},
		{"best of several", "Broncos", []string{"Panthers", "Denver Broncos", "in Denver, Broncos"}, [2]float64{0, 200. / 3},
			[2]float64{0, 200. / 3}},
		{"another order", "Broncos Denver", []string{"Denver Broncos"}, [2]float64{0, 100}, [2]float64{0, 100}},
		{"words count as often as they occur", "no no no yes", []string{"no no"}, [2]float64{0, 200. / 3},
			[2]float64{0, 200. / 3}},
		{"nothing in common", "x", []string{"y"}, [2]float64{}, [2]float64{}},
		{"nothing for something", "", []string{"y"}, [2]float64{}, [2]float64{}},
		// v1.1 finds no word in common; v2.0 drops the reference and so has an answer of "".
		{"both without words", "a", []string{"The"}, [2]float64{100, 0}, [2]float64{100, 100}},
		{"reference without words beside another", "the", []string{"The", "x"}, [2]float64{100, 0}, [2]float64{0, 0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			answers := map[string]string{"q": test.answer}
			for version, want := range map[string][2]float64{"1.1": test.v1, "v2.0": test.v2} {
				r, err := squad.Evaluate(dataset(version, question("q", test.golds...)), answers, nil)
				require.NoError(t, err)
				assert.Equal(t, want[0], r.ExactMatch, version)
				assert.InDelta(t, want[1], r.F1, 1e-12, version)
			}
		})
	}
}

func TestEvaluateV1Messages(t *testing.T) {
	d := dataset("v2.0", question("a", "x"), question("b"), question("c", "x"), question("d", "x"))
	r, err := squad.Evaluate(d, map[string]string{"a": "x", "c": "x y", "other": "x"},
		&squad.EvaluateOptions{Version: "1.1"})
	require.NoError(t, err)
	stdout, stderr := printReport(t, r)
	assert.Equal(t, "{\"exact_match\": 25.0, \"f1\": 41.666666666666664}\n", stdout)
	assert.Equal(t, "Evaluation expects v-1.1, but got dataset with v-v2.0\n"+
		"Unanswered question b will receive score 0.\n"+
		"Unanswered question d will receive score 0.\n", stderr)
	assert.Equal(t, []string{"b", "d"}, r.Missing)
	assert.Equal(t, 4, r.Total)
}

// The script stops at "Missing prediction"; see EvaluateV2 for what is defined instead.
func TestEvaluateV2Missing(t *testing.T) {
	d := dataset("v2.0", question("a", "x"), question("b"), question("c", "x"), question("d"))
	probs := []squad.NAProb{{ID: "d", Prob: .5}, {ID: "b", Prob: .5}, {ID: "a", Prob: .1}, {ID: "other", Prob: 0}}
	r, err := squad.Evaluate(d, map[string]string{"a": "x", "d": "x"},
		&squad.EvaluateOptions{Version: "2.0", NAProbs: probs, Analyze: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"b", "c"}, r.Missing)
	stdout, stderr := printReport(t, r)
	assert.Empty(t, stderr)
	assert.Equal(t, `Missing prediction for b
Missing prediction for c
{
  "exact": 50.0,
  "f1": 50.0,
  "total": 2,
  "HasAns_exact": 100.0,
  "HasAns_f1": 100.0,
  "HasAns_total": 1,
  "NoAns_exact": 0.0,
  "NoAns_f1": 0.0,
  "NoAns_total": 1,
  "best_exact": 100.0,
  "best_exact_thresh": 0.1,
  "best_f1": 100.0,
  "best_f1_thresh": 0.1,
  "pr_exact_ap": 100.0,
  "pr_f1_ap": 100.0,
  "pr_oracle_ap": 100.0
}
`, stdout)

	whole, err := squad.Evaluate(dataset("v2.0", question("a", "x"), question("d")), map[string]string{"a": "x", "d": "x"},
		&squad.EvaluateOptions{Version: "2.0", NAProbs: probs, Analyze: true})
	require.NoError(t, err)
	assert.Equal(t, whole.Scores, r.Scores)
	assert.Equal(t, whole.Analysis, r.Analysis, "as if the data set did not hold them")
}

func TestEvaluateThreshold(t *testing.T) {
	d := dataset("v2.0", question("has", "x"), question("none"))
	answers := map[string]string{"has": "x", "none": "y"}
	probs := []squad.NAProb{{ID: "has", Prob: .5}, {ID: "none", Prob: 1}}
	tests := []struct {
		name          string
		probs         []squad.NAProb
		thresh        *float64
		hasAns, noAns float64
	}{
		{"default", nil, nil, 100, 0},
		{"1 is not above the default", probs, nil, 100, 0},
		{"between", probs, new(.75), 100, 100},
		{"not above either", probs, new(.5), 100, 100},
		{"zero is a threshold", probs, new(0.), 0, 100},
		{"without probabilities they are 0", nil, new(0.), 100, 0},
		{"below all", nil, new(-1.), 0, 100},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := squad.Evaluate(d, answers,
				&squad.EvaluateOptions{Version: "2.0", NAProbs: test.probs, NAProbThresh: test.thresh})
			require.NoError(t, err)
			assert.Equal(t, squad.Scores{ExactMatch: test.hasAns, F1: test.hasAns, Total: 1}, *r.HasAns)
			assert.Equal(t, squad.Scores{ExactMatch: test.noAns, F1: test.noAns, Total: 1}, *r.NoAns)
			assert.Equal(t, (test.hasAns+test.noAns)/2, r.ExactMatch)
		})
	}
}

func TestBestThresholds(t *testing.T) {
	d := dataset("v2.0", question("a", "x"), question("b", "x y"), question("c"), question("d"))
	answers := map[string]string{"a": "x", "b": "x", "c": "x", "d": ""}
	tests := []struct {
		name  string
		probs []squad.NAProb
		want  squad.BestThresholds
	}{
		{"answer a and b", []squad.NAProb{{"a", .1}, {"b", .2}, {"c", .3}, {"d", .4}},
			squad.BestThresholds{ExactMatch: 75, ExactMatchThresh: .1, F1: 100 * (3 + 2./3) / 4, F1Thresh: .2}},
		{"answer nothing", []squad.NAProb{{"a", .4}, {"b", .3}, {"c", .2}, {"d", .1}},
			squad.BestThresholds{ExactMatch: 50, F1: 100 * (1 + 1 + 2./3) / 4, F1Thresh: .4}},
		{"a gain that only makes up for a loss is none", []squad.NAProb{{"c", -3}, {"a", -2}, {"b", 5}, {"d", 6}},
			squad.BestThresholds{ExactMatch: 50, F1: 100 * (1 + 1 + 2./3) / 4, F1Thresh: 5}},
		// a first: the gain counts, although no threshold lies between a and c.
		{"ties in the order of the probabilities", []squad.NAProb{{"a", .5}, {"c", .5}, {"b", .6}, {"d", .7}},
			squad.BestThresholds{ExactMatch: 75, ExactMatchThresh: .5, F1: 75, F1Thresh: .5}},
		{"ties in another order", []squad.NAProb{{"c", .5}, {"a", .5}, {"b", .6}, {"d", .7}},
			squad.BestThresholds{ExactMatch: 50, F1: 100 * (1 + 1 + 2./3) / 4, F1Thresh: .6}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := squad.Evaluate(d, answers, &squad.EvaluateOptions{Version: "2.0", NAProbs: test.probs})
			require.NoError(t, err)
			assert.InDeltaMapValues(t, map[string]float64{
				"exact": test.want.ExactMatch, "exact thresh": test.want.ExactMatchThresh,
				"f1": test.want.F1, "f1 thresh": test.want.F1Thresh,
			}, map[string]float64{
				"exact": r.Best.ExactMatch, "exact thresh": r.Best.ExactMatchThresh,
				"f1": r.Best.F1, "f1 thresh": r.Best.F1Thresh,
			}, 1e-12)
		})
	}
}

func TestCurves(t *testing.T) {
	d := dataset("v2.0", question("a", "x"), question("b", "x y z"), question("c"), question("d", "z"))
	answers := map[string]string{"a": "x", "b": "x", "c": "x", "d": ""}
	probs := []squad.NAProb{{"a", .1}, {"b", .2}, {"c", .2}, {"d", .9}}
	r, err := squad.Evaluate(d, answers, &squad.EvaluateOptions{Version: "2.0", NAProbs: probs, Analyze: true})
	require.NoError(t, err)
	// The points behind a, behind the tie of b and c, and behind d.
	third := 1. / 3
	assert.Equal(t, []squad.Curve{
		{Name: "pr_exact", AveragePrecision: 100 * third,
			Points: []squad.PRPoint{{0, 1}, {third, 1}, {third, third}, {third, .25}}},
		{Name: "pr_f1", AveragePrecision: 100 * (third + .5*(.5-third)),
			Points: []squad.PRPoint{{0, 1}, {third, 1}, {.5, .5}, {.5, .375}}},
		{Name: "pr_oracle", AveragePrecision: 100 * (third + 2./3*third + .75*third),
			Points: []squad.PRPoint{{0, 1}, {third, 1}, {2. / 3, 2. / 3}, {1, .75}}},
	}, r.Analysis.Curves)
	assert.Equal(t, []float64{.1, .2, .9}, r.Analysis.HasAns)
	assert.Equal(t, []float64{.2}, r.Analysis.NoAns)
}

func TestEvaluateOneClass(t *testing.T) {
	none := dataset("2.0", question("a"), question("b"))
	probs := []squad.NAProb{{"a", .1}, {"b", .2}}
	r, err := squad.Evaluate(none, map[string]string{"a": "", "b": ""},
		&squad.EvaluateOptions{Version: "2.0", NAProbs: probs, Analyze: true})
	require.NoError(t, err)
	stdout, _ := printReport(t, r)
	assert.Equal(t, `{
  "exact": 100.0,
  "f1": 100.0,
  "total": 2,
  "NoAns_exact": 100.0,
  "NoAns_f1": 100.0,
  "NoAns_total": 2,
  "best_exact": 100.0,
  "best_exact_thresh": 0.0,
  "best_f1": 100.0,
  "best_f1_thresh": 0.0
}
`, stdout, "no curves without questions that have an answer")
	assert.Equal(t, &squad.Analysis{NoAns: []float64{.1, .2}}, r.Analysis)
}

func TestEvaluateErrors(t *testing.T) {
	d := dataset("v2.0", question("a", "x"), question("b"))
	answers := map[string]string{"a": "x", "b": ""}
	v2 := func(probs ...squad.NAProb) func() (*squad.Report, error) {
		return func() (*squad.Report, error) {
			return squad.Evaluate(d, answers, &squad.EvaluateOptions{Version: "2.0", NAProbs: probs})
		}
	}
	tests := []struct {
		name     string
		evaluate func() (*squad.Report, error)
		want     string
	}{
		{"unknown version", func() (*squad.Report, error) { return squad.Evaluate(dataset("3"), answers, nil) },
			`evaluate: the version is "3", want 1.1 or 2.0; choose the rules to follow`},
		{"v1.1 without references", func() (*squad.Report, error) {
			return squad.Evaluate(d, answers, &squad.EvaluateOptions{Version: "1.1"})
		},
			`evaluate: question "b" has no reference answer; data with unanswerable questions follows the rules of version 2.0`},
		{"v1.1 without questions", func() (*squad.Report, error) {
			return squad.Evaluate(dataset("1.1"), answers, &squad.EvaluateOptions{Version: "1.1"})
		},
			`evaluate: the data set has no questions`},
		{"v2.0 without predictions", func() (*squad.Report, error) { return squad.Evaluate(d, nil, nil) },
			`evaluate: no question of the data set has a prediction`},
		{"probability missing", v2(squad.NAProb{ID: "a"}),
			`evaluate: question "b" has a prediction but no no-answer probability; both files must be of the same run`},
		{"probability twice", v2(squad.NAProb{ID: "a"}, squad.NAProb{ID: "b"}, squad.NAProb{ID: "a"}),
			`evaluate: the no-answer probability of question "a" appears twice`},
		{"probability NaN", v2(squad.NAProb{ID: "a"}, squad.NAProb{ID: "b", Prob: math.NaN()}),
			`evaluate: the no-answer probability of question "b" is NaN`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := test.evaluate()
			assert.EqualError(t, err, test.want)
			assert.Nil(t, r)
		})
	}
}

func TestPrintErrors(t *testing.T) {
	d := dataset("1.1", question("a", "x"), question("b", "x"))
	r, err := squad.Evaluate(d, map[string]string{"a": "x"}, nil)
	require.NoError(t, err)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer full.Close()
	var ok bytes.Buffer
	assert.ErrorContains(t, r.Print(full, &ok), "write report: ")
	assert.ErrorContains(t, r.Print(&ok, full), "write report: ")
	assert.ErrorContains(t, r.WriteJSON(full), "no space left on device")
}

func ExampleEvaluate() {
	d, err := squad.ReadDataset(strings.NewReader(`{"version": "1.1", "data": [{"paragraphs": [{
		"context": "The cat sat on the mat.",
		"qas": [{"id": "1", "question": "Who sat?", "answers": [{"text": "The cat", "answer_start": 0}]},
		        {"id": "2", "question": "Where?", "answers": [{"text": "on the mat", "answer_start": 12}]}]
	}]}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := squad.Evaluate(d, map[string]string{"1": "cat", "2": "the mat"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	r.Print(os.Stdout, os.Stderr)
	// Output: {"exact_match": 50.0, "f1": 83.33333333333333}
}

func BenchmarkEvaluateV1(b *testing.B) {
	d := sharedDataset(b, "dev-v1.1.json")
	answers := sharedAnswers(b, "v1.1-bert-ensemble.json")
	b.ReportAllocs()
	for b.Loop() {
		_, err := squad.Evaluate(d, answers, &squad.EvaluateOptions{Version: "1.1"})
		require.NoError(b, err)
	}
}
