package squad

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Decoding ranks the answers to one question while the results of its windows come. It keeps only the best
// answers, so that a window takes as much time and memory at the end of a long passage as at its beginning.
type Decoding struct {
	d       Decoder
	ex      *Example
	windows int // that were added

	best []Candidate // of different texts, best first, without "no answer"
	null Candidate   // the "no answer" with the lowest score
	low  float64     // that score

	spans []span // of the last window
	seen  map[string]bool
}

// A span is a candidate of a window before its text is known.
type span struct {
	score      float64 // start + end
	start, end float64 // logits
	from, to   int32   // positions
	order      int32   // in which spans were found, which decides between equals
}

// Begin begins to decode the answers to ex, whose windows are then added in their order. The fields of d must be
// in range, as Check reports.
func (d *Decoder) Begin(ex *Example) *Decoding {
	return &Decoding{d: *d, ex: ex, null: noText("", 0, 0), low: noScore, seen: map[string]bool{}}
}

// Add adds the next window of the example and what the model made of it. It returns an error if r cannot be the
// result of f, and then the window is not added.
func (g *Decoding) Add(f *Feature, r *RawResult) error {
	if err := checkResult(f, r); err != nil {
		return fmt.Errorf("decode question %q, window %d: %w", g.ex.ID, g.windows, err)
	}
	start, end := float64(r.StartLogits[0]), float64(r.EndLogits[0])
	if start+end < g.low {
		g.null, g.low = noText("", start, end), start+end
	}
	g.findSpans(f, r)
	g.merge(f)
	g.windows++
	return nil
}

// findSpans finds the spans of a window that can be among the best, best first.
func (g *Decoding) findSpans(f *Feature, r *RawResult) {
	n, maxLength := g.d.nBestSize(), cmp.Or(g.d.MaxAnswerLength, DefaultMaxAnswerLength)
	starts, ends := topN(nil, r.StartLogits, n), topN(nil, r.EndLogits, n)
	first := f.first
	last := first + f.DocLength - 1
	g.spans = g.spans[:0]
	for _, s := range starts {
		if int(s) < first || int(s) > last || !f.MaxContext(int(s)) {
			continue
		}
		for _, e := range ends {
			if e < s || int(e) > last || int(e-s) >= maxLength {
				continue
			}
			sp := span{start: float64(r.StartLogits[s]), end: float64(r.EndLogits[e]), from: s, to: e}
			sp.score, sp.order = sp.start+sp.end, int32(len(g.spans))
			// Of equals the earlier window comes first, and n different texts are before this one.
			if len(g.best) < n || sp.score > g.best[n-1].score() {
				g.spans = append(g.spans, sp)
			}
		}
	}
	slices.SortFunc(g.spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.order, b.order))
	})
}

// merge puts the spans of a window among the best: the n best of different texts.
func (g *Decoding) merge(f *Feature) {
	if len(g.spans) == 0 {
		return
	}
	n := g.d.nBestSize()
	clear(g.seen)
	old, list := g.best, make([]Candidate, 0, min(n, len(g.best)+len(g.spans)))
	for _, s := range g.spans {
		for len(old) > 0 && old[0].score() >= s.score {
			list = g.appendNew(list, old[0])
			old = old[1:]
		}
		if len(list) >= n {
			break
		}
		list = g.appendNew(list, g.candidate(f, s))
	}
	for _, c := range old {
		list = g.appendNew(list, c)
	}
	g.best = list[:min(n, len(list))]
}

// appendNew appends a candidate to a list if its text is not there.
func (g *Decoding) appendNew(list []Candidate, c Candidate) []Candidate {
	if g.seen[c.Text] {
		return list
	}
	g.seen[c.Text] = true
	return append(list, c)
}

// candidate returns a span of the next window with its text.
func (g *Decoding) candidate(f *Feature, s span) Candidate {
	c := Candidate{StartLogit: s.start, EndLogit: s.end, Window: g.windows}
	c.StartWord, _ = f.TokenToOrig(int(s.from))
	c.EndWord, _ = f.TokenToOrig(int(s.to))
	t := f.doc.tokenizer
	pred := joinPieces(t.Vocab, f.InputIDs[s.from:s.to+1])
	c.Text, c.Offset = finalText(pred, strings.Join(g.ex.Words[c.StartWord:c.EndWord+1], " "), t)
	return c
}

// Prediction returns the answer from the windows that were added. After the last it is that of Decode.
func (g *Decoding) Prediction() Prediction {
	p := Prediction{ID: g.ex.ID, NBest: g.nBest()}
	setProbabilities(p.NBest)
	g.d.choose(&p, g.low)
	if p.Warning != "" && g.windows == 0 {
		p.Warning = "the passage has no word pieces: the reference scripts crash here"
	}
	return p
}

// nBest returns the n best with "no answer" in its place. If that is not among them, it follows as one more entry.
func (g *Decoding) nBest() []Candidate {
	n := g.d.nBestSize()
	list := make([]Candidate, 0, len(g.best)+1)
	ranked := !g.d.WithNegative || g.windows == 0 // "no answer" has its place, or has none
	empty := false                                // a text like that of "no answer" is in the list
	add := func(c Candidate) {
		if len(list) < n {
			list, empty = append(list, c), empty || c.Text == ""
		}
	}
	for _, c := range g.best {
		if !ranked && g.low > c.score() {
			add(g.null)
			ranked = true
		}
		if c.Text != "" || !empty {
			add(c)
		}
	}
	if !ranked {
		add(g.null)
	}
	if g.d.WithNegative && !empty {
		list = append(list, g.null)
	}
	if len(list) == 0 {
		list = append(list, noText(emptyAnswer, 0, 0))
	}
	return list
}
