// Package compare finds what differs between two runs of prediction: their answers, n-best lists, null
// odds, logits and scores.
package compare

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/squad/logits"
)

// A Comparison is what differs between two runs, A and B.
type Comparison struct {
	Questions int          `json:"questions"`
	Answers   int          `json:"answers"`             // questions whose answers differ
	TopFive   int          `json:"top_five"`            // questions whose five best texts differ
	NBest     int          `json:"nbest"`               // questions whose n-best lists differ
	NullOdds  *Numbers     `json:"null_odds,omitempty"` // nil if a folder does not have them
	Logits    *Numbers     `json:"logits,omitempty"`    // for the caller to set, see [Logits]
	Scores    *Scores      `json:"scores,omitempty"`    // nil before [Comparison.Score]
	Different []Difference `json:"different"`           // the questions whose answers differ

	a, b map[string]string // answers
}

// Numbers is how much the numbers that both sides have differ.
type Numbers struct {
	Compared int     `json:"compared"`
	Largest  float64 `json:"largest"` // difference
}

// add compares two numbers. NaN stands for a number that a side does not have.
func (n *Numbers) add(x, y float64) {
	if by := math.Abs(x - y); !math.IsNaN(by) {
		n.Compared++
		n.Largest = max(n.Largest, by)
	}
}

// Scores holds the scores of both sides.
type Scores struct {
	A Score `json:"a"`
	B Score `json:"b"`
}

// A Score is the result of an evaluation, in per cent.
type Score struct {
	ExactMatch float64 `json:"exact_match"`
	F1         float64 `json:"f1"`
}

// A Difference is a question with two answers.
type Difference struct {
	ID string `json:"id"`
	A  Answer `json:"a"`
	B  Answer `json:"b"`
}

// An Answer is the answer of one side and the probability that its n-best list has for it. Score is
// nil before [Comparison.Score].
type Answer struct {
	Answer      string  `json:"answer"`
	Probability float64 `json:"probability"`
	*Score
}

// A folder holds the prediction files of one run.
type folder struct {
	answers  map[string]string
	nBest    []squad.NBest
	nullOdds []squad.NAProb // nil if the run has none
}

func readFolder(dir string) (p folder, err error) {
	if p.answers, err = file.Parse(filepath.Join(dir, squad.PredictionsFile), squad.ReadAnswers); err != nil {
		return p, err
	}
	if p.nBest, err = file.Parse(filepath.Join(dir, squad.NBestFile), squad.ReadNBest); err != nil {
		return p, err
	}
	same := len(p.nBest) == len(p.answers)
	for _, list := range p.nBest {
		_, ok := p.answers[list.ID]
		same = same && ok
	}
	if !same {
		return p, fmt.Errorf("%s: %s and %s hold different questions: they are not of one run",
			dir, squad.PredictionsFile, squad.NBestFile)
	}
	p.nullOdds, err = file.Parse(filepath.Join(dir, squad.NullOddsFile), squad.ReadNAProbs)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return p, err
}

// answer returns the answer to the question of an n-best list.
func (p *folder) answer(list squad.NBest) Answer {
	a := Answer{Answer: p.answers[list.ID]}
	of := func(c squad.Candidate) bool { return c.Text == a.Answer }
	if i := slices.IndexFunc(list.Candidates, of); i >= 0 {
		a.Probability = list.Candidates[i].Probability
	}
	return a
}

// Folders compares the prediction files of two folders. It returns an error if they do not answer the
// same questions.
func Folders(dirA, dirB string) (*Comparison, error) {
	a, err := readFolder(dirA)
	if err != nil {
		return nil, err
	}
	b, err := readFolder(dirB)
	if err != nil {
		return nil, err
	}
	if len(a.nBest) != len(b.nBest) {
		return nil, fmt.Errorf("%s answers %d questions, %s %d: they are not of one data set",
			dirA, len(a.nBest), dirB, len(b.nBest))
	}
	c := &Comparison{Questions: len(a.nBest), Different: []Difference{}, a: a.answers, b: b.answers}
	listsB := make(map[string]squad.NBest, len(b.nBest))
	for _, list := range b.nBest {
		listsB[list.ID] = list
	}
	for _, listA := range a.nBest {
		listB, ok := listsB[listA.ID]
		if !ok {
			return nil, fmt.Errorf("%s answers question %q, %s does not: they are not of one data set",
				dirA, listA.ID, dirB)
		}
		if a.answers[listA.ID] != b.answers[listA.ID] {
			c.Answers++
			c.Different = append(c.Different, Difference{listA.ID, a.answer(listA), b.answer(listB)})
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

// sameTexts reports whether the first n texts of two lists are equal.
func sameTexts(a, b []squad.Candidate, n int) bool {
	return slices.EqualFunc(a[:min(n, len(a))], b[:min(n, len(b))],
		func(x, y squad.Candidate) bool { return x.Text == y.Text })
}

func compareNullOdds(a, b []squad.NAProb) *Numbers {
	d := new(Numbers)
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

// Logits compares two files of logits. Only logits that both files have are compared.
func Logits(pathA, pathB string) (n *Numbers, err error) {
	a, err := logits.Open(pathA)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	b, err := logits.Open(pathB)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if a.Windows() != b.Windows() || a.Length() != b.Length() {
		return nil, fmt.Errorf("%s holds logits of %d windows of %d, %s of %d of %d: "+
			"they are not of one data set and length",
			pathA, a.Windows(), a.Length(), pathB, b.Windows(), b.Length())
	}
	n = new(Numbers)
	for range a.Windows() {
		x, errA := a.Next()
		y, errB := b.Next()
		if err := cmp.Or(errA, errB); err != nil {
			return nil, err
		}
		for i := range x {
			n.add(float64(x[i]), float64(y[i]))
		}
	}
	return n, nil
}

// Score adds the scores of both sides: of all questions, and of each answer that differs. It returns
// how many questions of the data set have no prediction, and an error if a prediction is not for a
// question of the data set.
func (c *Comparison) Score(data *squad.Dataset) (missing int, err error) {
	questions := make(map[string]squad.Question)
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
		return missing, fmt.Errorf("%d of %d questions are not in the data set: it is not the one that was predicted",
			others, c.Questions)
	}
	if c.Scores, err = c.evaluate(data); err != nil {
		return missing, err
	}
	for i := range c.Different {
		d := &c.Different[i]
		one := squad.Paragraph{QAs: []squad.Question{questions[d.ID]}}
		s, err := c.evaluate(&squad.Dataset{
			Version:  data.Version,
			Articles: []squad.Article{{Paragraphs: []squad.Paragraph{one}}},
		})
		if err != nil {
			return missing, err
		}
		d.A.Score, d.B.Score = &s.A, &s.B
	}
	return missing, nil
}

func (c *Comparison) evaluate(data *squad.Dataset) (*Scores, error) {
	a, err := squad.Evaluate(data, c.a, nil)
	if err != nil {
		return nil, err
	}
	b, err := squad.Evaluate(data, c.b, nil)
	if err != nil {
		return nil, err
	}
	return &Scores{Score{a.ExactMatch, a.F1}, Score{b.ExactMatch, b.F1}}, nil
}
