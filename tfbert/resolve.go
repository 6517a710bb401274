package tfbert

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/tfbert/go/checkpoint"
)

// A resolution says which of a checkpoint's variables are the weights of a model, by modeling.py's names.
type resolution struct {
	keys    map[string]string // in the checkpoint
	turned  map[string]bool   // stored [in,out] where modeling.py has [out,in]
	notes   []string          // what is not as modeling.py has it
	authors authors
}

// authors are those whose code a model is from, as far as its names tell: they mean different things by "gelu".
type authors int

const (
	scripts     authors = iota // modeling.py, NVIDIA's and tf-models
	huggingFace                // the TensorFlow classes of transformers
)

// A found is a variable of a checkpoint with its name, which is its key but in an object-based checkpoint.
type found struct {
	key, name string
	part      part
	checkpoint.Variable
}

// longestName is a length that no name of a weight has.
const longestName = 1 << 10

// resolve finds the weights of a BERT among variables.
func (s *source) resolve(head string) error {
	names := map[string]string{} // full names by key
	if o, ok := s.variables.(interface {
		FullNames() (map[string]string, error)
	}); ok {
		// A graph that cannot be read leaves the keys, which name the variables of some checkpoints well enough.
		names, _ = o.FullNames()
	}
	var all []found
	for _, v := range s.Variables() {
		f := found{key: v.Name, Variable: v}
		f.name = strings.TrimSuffix(v.Name, "/.ATTRIBUTES/VARIABLE_VALUE")
		if full := names[v.Name]; full != "" {
			f.name = strings.TrimSuffix(full, ":0")
		}
		if len(f.name) <= longestName && v.Kind != checkpoint.Bookkeeping {
			f.part = parsePart(f.name)
		}
		if v.Kind == checkpoint.Slot && f.part.state == "" {
			f.part = part{} // an optimizer's, under the name of its weight
		}
		all = append(all, f)
	}
	r := &resolution{keys: map[string]string{}, turned: map[string]bool{}}
	at, err := s.findEncoder(r, all)
	if err != nil {
		return err
	}
	if err := s.checkEncoder(r, at.scope, all); err != nil {
		return err
	}
	if at.state != "" { // the head is an average too
		all = slices.DeleteFunc(all, func(f found) bool { return !strings.HasSuffix(f.name, "/"+at.state) })
		for i := range all {
			all[i].name, all[i].Kind = strings.TrimSuffix(all[i].name, "/"+at.state), checkpoint.Weight
		}
	}
	if err := s.findHead(r, head, all); err != nil {
		return err
	}
	s.resolved = r
	return nil
}

// A place is where a checkpoint may have a whole encoder: below a scope, its weights or one kind of their state.
type place struct{ scope, state string }

// averages are names of the state that is a weight too: its moving average, which some save alone.
var averages = regexp.MustCompile(`(?i)(average|ema)(_\d+)?$`)

// findEncoder maps the weights of the encoder and returns where they stand.
func (s *source) findEncoder(r *resolution, all []found) (at place, err error) {
	wanted := s.config.weights()
	wanted = wanted[:len(wanted)-2] // without the head
	places := map[place]map[string]found{}
	for _, f := range all {
		if f.part.name == "" || f.part.state != "" && !averages.MatchString(f.part.state) {
			continue
		}
		p := place{f.part.scope, f.part.state}
		if places[p] == nil {
			places[p] = map[string]found{}
		}
		places[p][f.part.name] = f
	}
	missing := func(p place) (names []string) {
		for _, w := range wanted {
			if _, ok := places[p][strings.TrimPrefix(w.name, bertScope)]; !ok {
				names = append(names, w.name)
			}
		}
		return names
	}
	var complete []place
	for p := range places {
		if len(missing(p)) == 0 {
			complete = append(complete, p)
		}
	}
	slices.SortFunc(complete, func(a, b place) int { return strings.Compare(a.scope+a.state, b.scope+b.state) })
	complete = slices.DeleteFunc(complete, func(p place) bool {
		return slices.ContainsFunc(complete, func(q place) bool { return q != p && p.stateOf(q) })
	})
	switch {
	case len(complete) > 1:
		var scopes []string
		for _, p := range complete {
			scopes = append(scopes, path.Join(p.scope, "encoder"))
		}
		return at, fmt.Errorf("the checkpoint %s holds several models (%s): save the one to run alone", s.name, strings.Join(scopes, ", "))
	case len(complete) == 0:
		return at, s.noEncoder(all, places, missing)
	}
	p := complete[0]
	if family := familyOf(slices.Collect(maps.Values(places[p]))); family != "" {
		return at, s.otherFamily(family)
	}
	example := ""
	for _, w := range wanted {
		f := places[p][strings.TrimPrefix(w.name, bertScope)]
		r.keys[w.name] = f.key
		if example == "" && f.name != w.name {
			example = fmt.Sprintf("%s is %s", w.name, f.name)
		}
		if strings.HasPrefix(p.scope, "tf_bert") || strings.Contains(f.name, "/layer_._") || strings.HasSuffix(f.name, "_embeddings/weight") {
			r.authors = huggingFace
		}
	}
	if example != "" {
		r.notes = append(r.notes, "names are mapped: "+example)
	}
	if p.state != "" {
		r.notes = append(r.notes, fmt.Sprintf("the weights are averages (%s)", p.state))
	}
	return p, nil
}

// stateOf reports whether what stands at p is likely state of the weights at q: averages of them, or what an
// optimizer keeps below a scope of its own.
func (p place) stateOf(q place) bool {
	if p.scope == q.scope {
		return p.state != "" && q.state == ""
	}
	return q.state == "" && (q.scope == "" || strings.HasSuffix(p.scope, "/"+q.scope))
}

// bertScope is what modeling.py's names of the encoder begin with.
const bertScope = "bert/"

// checkEncoder returns an error that lists the weights of another shape or type than the configuration asks for, the
// layers that it does not ask for, and what is no part of a BERT.
func (s *source) checkEncoder(r *resolution, scope string, all []found) error {
	var wrong, foreign []string
	wanted := s.config.weights()
	for _, w := range wanted[:len(wanted)-2] {
		v, _ := s.Variable(r.keys[w.name])
		switch {
		case !w.holds(v.Shape):
			wrong = append(wrong, fmt.Sprintf("%s has shape %v, the configuration asks for %v", w.name, v.Shape, []int64(w.shape)))
		case !isFloat(v.DType):
			wrong = append(wrong, fmt.Sprintf("%s is of type %v, not a floating-point one", w.name, v.DType))
		}
	}
	// The scripts restore what the graph asks for, and would run a model without its last layers or its adapters.
	for _, f := range all {
		below := strings.TrimPrefix(f.name, scope+"/")
		if scope == "" {
			below = f.name
		}
		layer := layerOf.FindStringSubmatch(below)
		inEncoder := strings.HasPrefix(below, "encoder/") || strings.HasPrefix(below, "transformer/") || strings.HasPrefix(below, "embeddings")
		switch {
		case f.Kind == checkpoint.Bookkeeping || below == f.name && scope != "":
		case f.part.name != "" && f.part.scope == scope && f.part.state == "" && layer != nil && r.keys[bertScope+f.part.name] == "":
			wrong = append(wrong, fmt.Sprintf("%s is not of the configuration's %d layers", f.name, s.config.NumHiddenLayers))
		case f.part.name != "" && !changesWeight.MatchString(f.part.state):
		case inEncoder && isFloat(f.DType) && (f.Kind == checkpoint.Weight || changesWeight.MatchString(f.name)):
			foreign = append(foreign, f.name)
		}
	}
	if len(wrong) > 0 {
		return s.mismatch(atMost(wrong, "; "))
	}
	if len(foreign) > 0 {
		return fmt.Errorf("the checkpoint %s holds variables that a BERT does not have, such as those of an adapter, and would compute something else without them: %s",
			s.name, atMost(foreign, ", "))
	}
	return nil
}

// changesWeight matches variables below a weight that are not its state: they are added to it.
var changesWeight = regexp.MustCompile(`(?i)(lora|adapter)`)

// holds reports whether a variable of a shape has the elements of a weight in the weight's order. Keras's attention
// layers have their kernels as [in, heads, size] or [heads, size, out].
func (w weight) holds(shape []int64) bool {
	if w.shape.Compatible(shape) {
		return true
	}
	n, of := int64(1), int64(1)
	for _, d := range shape {
		n *= d
	}
	for _, d := range w.shape {
		of *= d
	}
	return strings.Contains(w.name, "/attention/") && len(shape) == len(w.shape)+1 && n == of &&
		(shape[0] == w.shape[0] || shape[len(shape)-1] == w.shape[len(w.shape)-1] || len(w.shape) == 1)
}

// A headPair is two variables that fit the layer which answers questions.
type headPair struct{ weights, bias found }

// findHead maps the layer that answers questions: that of run_squad.py, or else the only one that can be it.
func (s *source) findHead(r *resolution, named string, all []found) error {
	pretraining := slices.ContainsFunc(all, func(f found) bool { return strings.Contains(f.name, "cls/predictions/") })
	hidden := int64(s.config.HiddenSize)
	var pairs []headPair
	var others []string
	for _, f := range all {
		if f.Kind != checkpoint.Weight || f.part.name != "" || !isFloat(f.DType) || len(f.Shape) != 2 {
			continue
		}
		fits := slices.Equal(f.Shape, []int64{2, hidden}) || slices.Equal(f.Shape, []int64{hidden, 2})
		bias, ok := biasOf(f, all)
		nextSentence := strings.Contains(f.name, "seq_relationship") ||
			pretraining && strings.HasSuffix(f.name, "predictions/transform/logits/kernel")
		isNamed := named == f.name || named == f.key || named == path.Dir(f.name)
		switch {
		case fits && ok && (!nextSentence || isNamed):
			pairs = append(pairs, headPair{f, bias})
		case len(f.Shape) == 2 && (f.Shape[0] == hidden || f.Shape[1] == hidden) && !strings.Contains(f.name, "cls/predictions/"):
			others = append(others, fmt.Sprintf("%s %v", f.name, f.Shape))
		}
	}
	pair, err := s.chooseHead(pairs, named)
	if err != nil {
		return err
	}
	if pair == nil {
		return s.noHead(pretraining, others)
	}
	r.keys[headWeights], r.keys[headBias] = pair.weights.key, pair.bias.key
	r.turned[headWeights] = pair.weights.Shape[0] != 2
	if pair.weights.name != headWeights {
		r.notes = append(r.notes, fmt.Sprintf("the head is %s %v with %s", pair.weights.name, pair.weights.Shape, pair.bias.name))
	}
	return nil
}

const (
	headWeights = "cls/squad/output_weights"
	headBias    = "cls/squad/output_bias"
)

func (s *source) chooseHead(pairs []headPair, named string) (*headPair, error) {
	// What an optimizer or an average keeps of a head stands below a scope of its own.
	pairs = slices.DeleteFunc(slices.Clone(pairs), func(p headPair) bool {
		return slices.ContainsFunc(pairs, func(q headPair) bool { return strings.HasSuffix(p.weights.name, "/"+q.weights.name) })
	})
	var names []string
	for _, p := range pairs {
		names = append(names, p.weights.name)
	}
	for i, p := range pairs {
		if name := p.weights.name; named == name || named == p.weights.key || named != "" && named == path.Dir(name) ||
			named == "" && (name == headWeights || strings.HasSuffix(name, "/"+headWeights)) {
			return &pairs[i], nil
		}
	}
	switch {
	case named != "" && len(pairs) == 0:
		return nil, fmt.Errorf("the checkpoint %s has no head %q, a matrix [2,%d] or [%[3]d,2] with a bias [2]", s.name, named, s.config.HiddenSize)
	case named != "":
		return nil, fmt.Errorf("the checkpoint %s has no head %q: it has %s", s.name, named, strings.Join(names, ", "))
	case len(pairs) > 1:
		return nil, &HeadError{Checkpoint: s.name, Heads: names}
	case len(pairs) == 1:
		return &pairs[0], nil
	}
	return nil, nil
}

// biasOf returns the vector [2] that stands beside a matrix.
func biasOf(f found, all []found) (found, bool) {
	var beside []found
	for _, b := range all {
		if b.Kind == checkpoint.Weight && isFloat(b.DType) && slices.Equal(b.Shape, []int64{2}) && path.Dir(b.name) == path.Dir(f.name) {
			beside = append(beside, b)
		}
	}
	if len(beside) == 1 {
		return beside[0], true
	}
	// Several heads may stand side by side: start_weights and start_bias.
	stem := strings.NewReplacer("output_weights", "output_bias", "weights", "bias", "kernel", "bias", "weight", "bias").Replace(f.name)
	for _, b := range beside {
		if b.name == stem {
			return b, true
		}
	}
	return found{}, false
}

func (s *source) noHead(pretraining bool, others []string) error {
	_, hasWeights := s.Variable(headWeights)
	_, hasBias := s.Variable(headBias)
	halfHead := hasWeights != hasBias
	for _, w := range s.config.weights()[len(s.config.weights())-2:] {
		v, ok := s.Variable(w.name)
		switch {
		case !ok && halfHead:
			return s.mismatch(w.name + " is missing")
		case ok && !w.shape.Compatible(v.Shape):
			return s.mismatch(fmt.Sprintf("%s has shape %v, the configuration asks for %v", w.name, v.Shape, []int64(w.shape)))
		case ok && !isFloat(v.DType):
			return s.mismatch(fmt.Sprintf("%s is of type %v, not a floating-point one", w.name, v.DType))
		}
	}
	what := "it was not fine-tuned on SQuAD"
	switch {
	case pretraining:
		what += ", but pre-trained alone"
	case len(others) > 0:
		what += fmt.Sprintf(", but for something else (%s)", atMost(others, ", "))
	}
	return fmt.Errorf("the checkpoint %s has no question-answering head: %s", s.name, what)
}

// noEncoder returns the error of a checkpoint without a whole encoder.
func (s *source) noEncoder(all []found, places map[place]map[string]found, missing func(place) []string) error {
	if family := familyOf(all); family != "" {
		return s.otherFamily(family)
	}
	// The place where most is: the scope of a model that the configuration does not describe.
	var best place
	for _, p := range slices.SortedFunc(maps.Keys(places), func(a, b place) int { return strings.Compare(a.scope, b.scope) }) {
		if p.state == "" && len(places[p]) > len(places[best]) {
			best = p
		}
	}
	if len(places[best]) > 5 { // more than embeddings
		lacking := missing(best)
		for i, name := range lacking {
			lacking[i] = name + " is missing"
		}
		return s.mismatch(atMost(lacking, "; "))
	}
	var names []string
	for _, f := range all {
		if f.Kind == checkpoint.Weight {
			names = append(names, f.name)
		}
	}
	if o, ok := s.variables.(interface{ ObjectBased() bool }); ok && o.ObjectBased() {
		return fmt.Errorf("the checkpoint %s is an object-based one of TensorFlow 2, and its graph of objects does not name the weights of a BERT; it holds %s",
			s.name, atMost(names, ", "))
	}
	if len(names) == 0 {
		return fmt.Errorf("the checkpoint %s holds no weights", s.name)
	}
	return fmt.Errorf("the checkpoint %s holds no BERT; it holds %s", s.name, atMost(names, ", "))
}

// families are models that are like a BERT or stand beside one, and are not run.
var families = []struct {
	name  string
	match *regexp.Regexp
}{
	{"ALBERT", regexp.MustCompile(`encoder/transformer/group_\d|embedding_hidden_mapping_in|(^|/)albert/|albert_layer_groups`)},
	{"ELECTRA", regexp.MustCompile(`(^|/)(electra|generator|discriminator_predictions|generator_predictions)(/|$)`)},
	{"RoBERTa", regexp.MustCompile(`(^|/)(tf_)?(xlm_)?roberta(_[^/]*)?/|(^|/)roberta`)},
	{"DistilBERT", regexp.MustCompile(`(^|/)(tf_)?distil_?bert(_[^/]*)?/`)},
	{"MobileBERT", regexp.MustCompile(`(^|/)mobilebert/|/bottleneck/input/`)},
	{"XLNet", regexp.MustCompile(`rel_attn/|(^|/)transformer/r_w_bias|word_embedding/lookup_table`)},
	{"GPT-2", regexp.MustCompile(`(^|/)model/h\d+/attn/|(^|/)wte$`)},
	{"T5", regexp.MustCompile(`encoder/block_\d+/layer_\d+/SelfAttention`)},
	{"keras-bert", regexp.MustCompile(`Encoder-\d+-MultiHeadSelfAttention`)},
}

// familyOf returns the name of the family that the names look like, with one of the names, or "".
func familyOf(all []found) string {
	slices.SortFunc(all, func(a, b found) int { return strings.Compare(a.name, b.name) })
	for _, family := range families {
		for _, f := range all {
			if len(f.name) <= longestName && f.Kind == checkpoint.Weight && family.match.MatchString(f.name) {
				return fmt.Sprintf("%s (it holds %s)", family.name, f.name)
			}
		}
	}
	return ""
}

func (s *source) otherFamily(family string) error {
	return fmt.Errorf("the checkpoint %s looks like one of %s, which tfbert does not run: it runs BERT", s.name, family)
}

// atMost joins the first few of a list for one line.
func atMost(list []string, separator string) string {
	const most = 8
	if n := len(list); n > most {
		list = append(slices.Clone(list[:most]), fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(list, separator)
}
