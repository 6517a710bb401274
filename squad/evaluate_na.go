package squad

// BestThresholds are the highest scores that a NAProbThresh can reach, and the least such thresholds.
type BestThresholds struct {
	ExactMatch, ExactMatchThresh float64
	F1, F1Thresh                 float64
}

// An Analysis shows how well the no-answer probabilities tell questions with an answer from those
// without.
type Analysis struct {
	// Curves are called pr_exact, pr_f1 and pr_oracle; the oracle's answers are all right. There
	// are none if no question has an answer.
	Curves []Curve

	// HasAns and NoAns are the no-answer probabilities of the questions with and without an
	// answer, in the order of the data set.
	HasAns, NoAns []float64
}

// A Curve is precision against recall as the no-answer threshold rises.
type Curve struct {
	Name             string
	AveragePrecision float64 // per cent
	Points           []PRPoint
}

// A PRPoint is a point of a precision-recall curve; both are between 0 and 1.
type PRPoint struct{ Recall, Precision float64 }

func exactOf(q *result) float64 { return q.exact }
func f1Of(q *result) float64    { return q.f1 }

func bestThresholds(ranked []*result) *BestThresholds {
	var b BestThresholds
	b.ExactMatch, b.ExactMatchThresh = bestThreshold(ranked, exactOf)
	b.F1, b.F1Thresh = bestThreshold(ranked, f1Of)
	return &b
}

// bestThreshold starts from a threshold so low that every question counts as having no answer, and
// lets one question after the other be answered. Like the script it also looks between questions
// of equal probability, which no threshold can separate.
func bestThreshold(ranked []*result, score func(*result) float64) (best, thresh float64) {
	var current float64
	for _, q := range ranked {
		if !q.hasAns {
			current++
		}
	}
	best = current
	for _, q := range ranked {
		switch {
		case q.hasAns:
			current += score(q)
		case q.predicted:
			current--
		}
		if current > best {
			best, thresh = current, q.naProb
		}
	}
	return 100 * best / float64(len(ranked)), thresh
}

func analyze(results []result, ranked []*result) *Analysis {
	var a Analysis
	for i := range results {
		if q := &results[i]; q.hasAns {
			a.HasAns = append(a.HasAns, q.naProb)
		} else {
			a.NoAns = append(a.NoAns, q.naProb)
		}
	}
	if n := len(a.HasAns); n > 0 {
		a.Curves = []Curve{
			curve("pr_exact", ranked, n, exactOf),
			curve("pr_f1", ranked, n, f1Of),
			curve("pr_oracle", ranked, n, func(*result) float64 { return 1 }),
		}
	}
	return &a
}

// curve counts an answer's score, if there is an answer at all, as that much of a true positive.
// Points lie where a threshold can: behind the last of the questions of equal probability.
func curve(name string, ranked []*result, hasAns int, score func(*result) float64) Curve {
	c := Curve{Name: name, Points: []PRPoint{{Recall: 0, Precision: 1}}}
	var truePositives, average float64
	for i, q := range ranked {
		if q.hasAns {
			truePositives += score(q)
		}
		if i < len(ranked)-1 && q.naProb == ranked[i+1].naProb {
			continue
		}
		p := PRPoint{
			Recall:    truePositives / float64(hasAns),
			Precision: truePositives / float64(i+1),
		}
		// The product rounded by itself, not fused into the sum, or last digits would depend on
		// the processor.
		average += float64(p.Precision * (p.Recall - c.Points[len(c.Points)-1].Recall))
		c.Points = append(c.Points, p)
	}
	c.AveragePrecision = 100 * average
	return c
}
