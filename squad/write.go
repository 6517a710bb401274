package squad

import (
	"io"

	"github.com/tfbert/go/internal/pyjson"
)

// A member writes what a file has of one prediction: a key and its value.
type member func(w *pyjson.Writer, p *Prediction)

func answerMember(w *pyjson.Writer, p *Prediction) {
	w.Key(p.ID)
	w.String(p.Answer)
}

func nBestMember(w *pyjson.Writer, p *Prediction) {
	w.Key(p.ID)
	w.BeginArray()
	for _, c := range p.NBest {
		w.BeginObject()
		w.Key("text")
		w.String(c.Text)
		w.Key("probability")
		w.Float(c.Probability)
		w.Key("start_logit")
		w.Float(c.StartLogit)
		w.Key("end_logit")
		w.Float(c.EndLogit)
		w.EndObject()
	}
	w.EndArray()
}

func nullOddsMember(w *pyjson.Writer, p *Prediction) {
	w.Key(p.ID)
	w.Float(p.NullOdds)
}

// newObject begins a file of the reference scripts: one object, indented by 4.
func newObject(w io.Writer) *pyjson.Writer {
	o := pyjson.NewWriter(w, 4)
	o.BeginObject()
	return o
}

func endObject(o *pyjson.Writer) error {
	o.EndObject()
	o.Newline()
	return o.Flush()
}
