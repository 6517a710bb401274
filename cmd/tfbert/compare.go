package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/squad"
)

func newCompare() *cobra.Command {
	var predictFile string
	var logits []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Show what differs between two folders of predictions",
		Long: `Compare counts the questions whose answers, whose five best texts and whose
n-best lists differ between two folders that 'tfbert predict' or run_squad.py
wrote, and prints the answers that differ with their probabilities. Logits are
compared where both folders have a logits.npy, where both have computed them.`,
		Args: args("A", "B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(logits) != 0 && len(logits) != 2 {
				return usagef("--logits takes two files: A.npy,B.npy")
			}
			if logits == nil {
				for _, dir := range args {
					if path := filepath.Join(dir, "logits.npy"); exists(path) {
						logits = append(logits, path)
					}
				}
			}
			c, err := compare(args[0], args[1])
			if err != nil {
				return err
			}
			if len(logits) == 2 {
				if c.Logits, err = compareLogits(logits[0], logits[1]); err != nil {
					return err
				}
			}
			if predictFile != "" {
				data, err := readFile(predictFile, squad.ReadDataset)
				if err != nil {
					return err
				}
				if err := c.score(data); err != nil {
					return fmt.Errorf("%s: %w", predictFile, err)
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), c)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), c)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&predictFile, "predict_file", "", "SQuAD `file` to score both by")
	f.StringSliceVar(&logits, "logits", nil, "two `files` of --save_logits to compare (default: logits.npy of both folders)")
	f.BoolVar(&asJSON, "json", false, "the comparison as JSON")
	return cmd
}

// comparison says what differs between two folders, A and B.
type comparison struct {
	Questions int          `json:"questions"`
	Answers   int          `json:"answers"` // questions whose answer differs
	TopFive   int          `json:"top_five"`
	NBest     int          `json:"nbest"`
	NullOdds  *differences `json:"null_odds,omitempty"`
	Logits    *differences `json:"logits,omitempty"`
	Scores    *scoresJSON  `json:"scores,omitempty"`
	Different []difference `json:"different"`

	a, b map[string]string // answers
}

// differences are those between numbers.
type differences struct {
	Compared int     `json:"compared"`
	Largest  float64 `json:"largest"`
}

// add leaves out what one side does not have.
func (d *differences) add(x, y float64) {
	if by := math.Abs(x - y); !math.IsNaN(by) {
		d.Compared++
		d.Largest = max(d.Largest, by)
	}
}

// scoresJSON holds the scores of both sides.
type scoresJSON struct {
	A exactF1 `json:"a"`
	B exactF1 `json:"b"`
}

type exactF1 struct {
	ExactMatch float64 `json:"exact_match"`
	F1         float64 `json:"f1"`
}

// difference is a question with two answers.
type difference struct {
	ID string     `json:"id"`
	A  sideAnswer `json:"a"`
	B  sideAnswer `json:"b"`
}

type sideAnswer struct {
	Answer      string  `json:"answer"`
	Probability float64 `json:"probability"`
	*exactF1
}

func (a sideAnswer) String() string {
	if a.exactF1 == nil {
		return fmt.Sprintf("%q %.4f", a.Answer, a.Probability)
	}
	return fmt.Sprintf("%q %.4f (EM %.0f, F1 %.1f)", a.Answer, a.Probability, a.ExactMatch, a.F1)
}

// predictionFolder is what run_squad.py writes.
type predictionFolder struct {
	dir      string
	answers  map[string]string
	nBest    []squad.NBest
	nullOdds []squad.NAProb // nil where there are none
}

func readPredictions(dir string) (p predictionFolder, err error) {
	p.dir = dir
	if p.answers, err = readFile(filepath.Join(dir, squad.PredictionsFile), squad.ReadAnswers); err != nil {
		return p, err
	}
	if p.nBest, err = readFile(filepath.Join(dir, squad.NBestFile), squad.ReadNBest); err != nil {
		return p, err
	}
	same := len(p.nBest) == len(p.answers)
	for _, list := range p.nBest {
		_, ok := p.answers[list.ID]
		same = same && ok
	}
	if !same {
		return p, fmt.Errorf("%s: %s and %s hold other questions: they are not of one run", dir, squad.PredictionsFile, squad.NBestFile)
	}
	if path := filepath.Join(dir, squad.NullOddsFile); exists(path) {
		p.nullOdds, err = readFile(path, squad.ReadNAProbs)
	}
	return p, err
}

// candidate gives the answer to a question with the probability that its n-best list has for it.
func (p *predictionFolder) candidate(list squad.NBest) sideAnswer {
	a := sideAnswer{Answer: p.answers[list.ID]}
	if i := slices.IndexFunc(list.Candidates, func(c squad.Candidate) bool { return c.Text == a.Answer }); i >= 0 {
		a.Probability = list.Candidates[i].Probability
	}
	return a
}

func compare(dirA, dirB string) (*comparison, error) {
	a, err := readPredictions(dirA)
	if err != nil {
		return nil, err
	}
	b, err := readPredictions(dirB)
	if err != nil {
		return nil, err
	}
	c := &comparison{Questions: len(a.nBest), Different: []difference{}, a: a.answers, b: b.answers}
	if len(a.nBest) != len(b.nBest) {
		return nil, fmt.Errorf("%s answers %d questions, %s %d: they are not of one data set", dirA, len(a.nBest), dirB, len(b.nBest))
	}
	listsB := make(map[string]squad.NBest, len(b.nBest))
	for _, list := range b.nBest {
		listsB[list.ID] = list
	}
	for _, listA := range a.nBest {
		listB, ok := listsB[listA.ID]
		if !ok {
			return nil, fmt.Errorf("%s answers question %q, %s does not: they are not of one data set", dirA, listA.ID, dirB)
		}
		if a.answers[listA.ID] != b.answers[listA.ID] {
			c.Answers++
			c.Different = append(c.Different, difference{listA.ID, a.candidate(listA), b.candidate(listB)})
		}
		if !sameTexts(listA.Candidates, listB.Candidates, 5) {
			c.TopFive++
		}
		if !sameTexts(listA.Candidates, listB.Candidates, math.MaxInt) {
			c.NBest++
		}
	}
	if a.nullOdds != nil && b.nullOdds != nil {
		c.NullOdds = compareNullOdds(a.nullOdds, b.nullOdds)
	}
	return c, nil
}

// sameTexts compares the first n of two lists.
func sameTexts(a, b []squad.Candidate, n int) bool {
	return slices.EqualFunc(a[:min(n, len(a))], b[:min(n, len(b))],
		func(x, y squad.Candidate) bool { return x.Text == y.Text })
}

func compareNullOdds(a, b []squad.NAProb) *differences {
	d := new(differences)
	oddsB := make(map[string]float64, len(b))
	for _, p := range b {
		oddsB[p.ID] = p.Prob
	}
	for _, p := range a {
		if odds, ok := oddsB[p.ID]; ok {
			d.add(p.Prob, odds)
		}
	}
	return d
}

func compareLogits(pathA, pathB string) (d *differences, err error) {
	a, err := openLogits(pathA)
	if err != nil {
		return nil, err
	}
	defer closing(&err, a.f.Close)
	b, err := openLogits(pathB)
	if err != nil {
		return nil, err
	}
	defer closing(&err, b.f.Close)
	if a.left != b.left || a.length != b.length {
		return nil, fmt.Errorf("%s holds logits of %d windows of %d, %s of %d of %d: they are not of one data set and length",
			pathA, a.left, a.length, pathB, b.left, b.length)
	}
	d = new(differences)
	for a.left > 0 {
		x, errA := a.next()
		y, errB := b.next()
		if err := cmp.Or(errA, errB); err != nil {
			return nil, err
		}
		for i := range x {
			d.add(float64(x[i]), float64(y[i]))
		}
	}
	return d, nil
}

// score adds the scores of both sides, in all and of each answer that differs.
func (c *comparison) score(data *squad.Dataset) error {
	questions := make(map[string]squad.Question)
	missing := 0
	for p := range data.All() {
		for _, q := range p.QAs {
			if _, ok := c.a[q.ID]; ok {
				questions[q.ID] = q
			} else {
				missing++
			}
		}
	}
	if others := c.Questions - len(questions); others > 0 {
		return fmt.Errorf("%d of %d questions are not in the data set: it is not the one that was predicted", others, c.Questions)
	}
	if missing > 0 {
		warn("%d questions of the data set have no prediction", missing)
	}
	all, err := c.evaluate(data)
	if err != nil {
		return err
	}
	c.Scores = all
	for i := range c.Different {
		d := &c.Different[i]
		one := squad.Paragraph{QAs: []squad.Question{questions[d.ID]}}
		s, err := c.evaluate(&squad.Dataset{Version: data.Version, Articles: []squad.Article{{Paragraphs: []squad.Paragraph{one}}}})
		if err != nil {
			return err
		}
		d.A.exactF1, d.B.exactF1 = &s.A, &s.B
	}
	return nil
}

func (c *comparison) evaluate(data *squad.Dataset) (*scoresJSON, error) {
	a, err := squad.Evaluate(data, c.a, nil)
	if err != nil {
		return nil, err
	}
	b, err := squad.Evaluate(data, c.b, nil)
	if err != nil {
		return nil, err
	}
	return &scoresJSON{exactF1{a.ExactMatch, a.F1}, exactF1{b.ExactMatch, b.F1}}, nil
}

// String gives the counts, then the answers that differ, one a line.
func (c *comparison) String() string {
	var s strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) }
	line("%d questions", c.Questions)
	line("%d answers differ", c.Answers)
	line("%d lists of the five best texts differ", c.TopFive)
	line("%d n-best lists differ", c.NBest)
	if c.NullOdds != nil {
		line("null odds differ by at most %.1e (%d compared)", c.NullOdds.Largest, c.NullOdds.Compared)
	}
	if c.Logits != nil {
		line("logits differ by at most %.1e (%d compared)", c.Logits.Largest, c.Logits.Compared)
	}
	if r := c.Scores; r != nil {
		line("EM %.2f and %.2f (%+.2f), F1 %.2f and %.2f (%+.2f)",
			r.A.ExactMatch, r.B.ExactMatch, r.B.ExactMatch-r.A.ExactMatch, r.A.F1, r.B.F1, r.B.F1-r.A.F1)
	}
	for _, d := range c.Different {
		line("%s\t%v\t%v", d.ID, d.A, d.B)
	}
	return s.String()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
